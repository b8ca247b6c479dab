/** The rules of time zones, from Node.js to the core. */

import assert from 'node:assert/strict';
import { mock, test } from 'node:test';

import { timeZones } from '../../js/harper/time-zones.js';
import { core } from './support/core.mjs';

const HOUR_MS = 3_600_000;

/** @param {string} name */
const rulesOf = async (name) => (await timeZones([name])).rules[name];

/** @param {string} name @param {number} year */
const changesOf = async (name, year) =>
	(await rulesOf(name))
		.filter(([from]) => new Date(from).getUTCFullYear() === year)
		.map(([from, ahead]) => [new Date(from).toISOString(), ahead / HOUR_MS]);

/** @param {string} timeZone @param {object} [zones] */
async function configure(timeZone, zones) {
	const root = { bigquery: { projectId: 'p', dataset: 'd', table: 't', timestampColumn: 'ts', timeZone } };
	const known = zones ?? { timeZones: await timeZones(core.zoneNames(root)) };
	return new core.Configuration(root, { emulatorHost: null, sharedRoot: false, ...known });
}

test('the changes of clocks are found to the second', async () => {
	assert.deepEqual(await changesOf('Europe/Berlin', 2024), [
		['2024-03-31T01:00:00.000Z', 2],
		['2024-10-27T01:00:00.000Z', 1],
	]);
	assert.deepEqual(await changesOf('America/Los_Angeles', 2050), [
		['2050-03-13T10:00:00.000Z', -7],
		['2050-11-06T09:00:00.000Z', -8],
	]);
	// By half an hour, and by whole ones for a month.
	assert.deepEqual(
		(await changesOf('Australia/Lord_Howe', 2024)).map(([, ahead]) => ahead),
		[10.5, 11]
	);
	assert.deepEqual(await changesOf('Africa/Casablanca', 2024), [
		['2024-03-10T02:00:00.000Z', 0],
		['2024-04-14T02:00:00.000Z', 1],
	]);
	assert.deepEqual(await rulesOf('Asia/Kolkata'), [[0, 5.5 * HOUR_MS]]);
	assert.equal(await rulesOf('Nowhere/At_All'), undefined);
});

test('rules agree with the clocks of Node.js at every hour of a year', async () => {
	for (const timeZone of ['America/St_Johns', 'Pacific/Apia', 'Europe/Dublin', 'Asia/Tehran']) {
		const rules = await rulesOf(timeZone);
		const format = new Intl.DateTimeFormat('sv-SE', { timeZone, dateStyle: 'short', timeStyle: 'medium' });
		for (let at = Date.UTC(2011, 0, 1); at < Date.UTC(2012, 0, 15); at += HOUR_MS) {
			const ahead = rules.findLast(([from]) => from <= at)?.[1] ?? 0;
			const shown = new Date(at + ahead).toISOString().slice(0, 19).replace('T', ' ');
			assert.equal(shown, format.format(at), timeZone);
		}
	}
});

test('looking a zone up leaves the thread to others in between', async () => {
	let now_ms = 0;
	mock.method(performance, 'now', () => now_ms++);
	let turns = 0;
	let others = setImmediate(function next() {
		turns++;
		others = setImmediate(next);
	});
	await timeZones(['America/Caracas']);
	clearImmediate(others);
	mock.restoreAll();
	assert.ok(turns >= 100, `the others had ${turns} turns`);
});

test('a zone that Node.js knows is taken by the core, and another one is refused with the nearest', async () => {
	for (const name of ['UTC', 'Europe/Berlin', 'Asia/Kolkata']) (await configure(name)).free();
	await assert.rejects(
		() => configure('Europe/Berlni'),
		([{ key, message }]) => key === 'bigquery.timeZone' && /did you mean Europe\/Berlin\?/.test(message)
	);
	await assert.rejects(() => configure('Europe/Berlin', {}), Array.isArray);
});
