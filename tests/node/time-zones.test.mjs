/** The rules of time zones, from Node.js to the core. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { timeZones } from '../../js/time-zones.js';
import { core } from './support/core.mjs';

const HOUR_MS = 3_600_000;

/** @param {string} name @param {number} year */
const changesOf = (name, year) =>
	(timeZones.rules(name) ?? [])
		.filter(([from]) => new Date(from).getUTCFullYear() === year)
		.map(([from, ahead]) => [new Date(from).toISOString(), ahead / HOUR_MS]);

/** @param {string} timeZone @param {object} [surroundings] */
function configure(timeZone, surroundings = { timeZones }) {
	const bigquery = { projectId: 'p', dataset: 'd', table: 't', timestampColumn: 'ts', timeZone };
	return new core.Configuration({ bigquery }, { emulatorHost: null, sharedRoot: false, ...surroundings });
}

test('the changes of clocks are found to the second', () => {
	assert.deepEqual(changesOf('Europe/Berlin', 2024), [
		['2024-03-31T01:00:00.000Z', 2],
		['2024-10-27T01:00:00.000Z', 1],
	]);
	assert.deepEqual(changesOf('America/Los_Angeles', 2050), [
		['2050-03-13T10:00:00.000Z', -7],
		['2050-11-06T09:00:00.000Z', -8],
	]);
	// By half an hour, and by whole ones for a month.
	assert.deepEqual(
		changesOf('Australia/Lord_Howe', 2024).map(([, ahead]) => ahead),
		[10.5, 11]
	);
	assert.deepEqual(changesOf('Africa/Casablanca', 2024), [
		['2024-03-10T02:00:00.000Z', 0],
		['2024-04-14T02:00:00.000Z', 1],
	]);
	assert.deepEqual(timeZones.rules('Asia/Kolkata'), [[0, 5.5 * HOUR_MS]]);
	assert.equal(timeZones.rules('Nowhere/At_All'), null);
});

test('rules agree with the clocks of Node.js at every hour of a year', () => {
	for (const timeZone of ['America/St_Johns', 'Pacific/Apia', 'Europe/Dublin', 'Asia/Tehran']) {
		const rules = timeZones.rules(timeZone) ?? [];
		const format = new Intl.DateTimeFormat('sv-SE', { timeZone, dateStyle: 'short', timeStyle: 'medium' });
		for (let at = Date.UTC(2011, 0, 1); at < Date.UTC(2012, 0, 15); at += HOUR_MS) {
			const ahead = rules.findLast(([from]) => from <= at)?.[1] ?? 0;
			const shown = new Date(at + ahead).toISOString().slice(0, 19).replace('T', ' ');
			assert.equal(shown, format.format(at), timeZone);
		}
	}
});

test('a zone that Node.js knows is taken by the core, and another one is refused with the nearest', () => {
	for (const name of ['UTC', 'Europe/Berlin', 'Asia/Kolkata']) configure(name).free();
	assert.throws(
		() => configure('Europe/Berlni'),
		([{ key, message }]) => key === 'bigquery.timeZone' && /did you mean Europe\/Berlin\?/.test(message)
	);
	assert.throws(() => configure('Europe/Berlin', {}), Array.isArray);
});
