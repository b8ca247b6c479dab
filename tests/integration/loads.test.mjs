/** Rows that come hours after the time of their cursor, as hourly and nightly loads bring them. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { startComponent, untilEqual, untilStatus } from './support/component.mjs';
import { DATASET, startSource } from './support/source.mjs';

const HOUR_MS = 3_600_000;
const ROWS = 50;

/** @param {number} hoursAgo */
const instant = (hoursAgo) => new Date(Date.now() - hoursAgo * HOUR_MS).toISOString();

const KOLKATA = 'Asia/Kolkata';
/** What clocks in Kolkata showed, five hours and a half ahead of UTC. @param {number} hoursAgo */
const localTime = (hoursAgo) => instant(hoursAgo - 5.5).replace('Z', '');

/**
 * Cursors of rows that are so many hours old, newer than all that were read before.
 * @type {Record<string, {type: string, unit?: string, timeZone?: string, key?: string[], at: (hoursAgo: number) => string | number}>}
 */
const CASES = {
	by_timestamp: { type: 'TIMESTAMP', at: instant },
	by_datetime: { type: 'DATETIME', at: (hoursAgo) => instant(hoursAgo).replace('Z', '') },
	by_local_time: { type: 'DATETIME', timeZone: KOLKATA, at: localTime },
	by_date: { type: 'DATE', at: (hoursAgo) => instant(24 * hoursAgo).slice(0, 10) },
	by_seconds: { type: 'INT64', unit: 'seconds', at: (hoursAgo) => Math.floor(Date.parse(instant(hoursAgo)) / 1000) },
	with_key: { type: 'TIMESTAMP', key: ['name'], at: instant },
};

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/component.mjs').Running} */
let running;

/** @param {string} id @param {number} hoursAgo */
function rowsOf(id, hoursAgo) {
	const at = CASES[id].at(hoursAgo);
	return Array.from({ length: ROWS }, (_, number) => ({ name: `row ${number}`, value: hoursAgo, at }));
}

before(async () => {
	source = await startSource();
	const schema = (/** @type {string} */ type) => [
		{ name: 'name', type: 'STRING' },
		{ name: 'value', type: 'INT64' },
		{ name: 'at', type },
	];
	for (const [id, { type }] of Object.entries(CASES)) await source.fill(id, schema(type), rowsOf(id, 5));
	const tables = Object.entries(CASES).map(([id, { unit, key, timeZone }]) => {
		const more = { ...(unit && { timestampUnit: unit }), ...(key && { key }), ...(timeZone && { timeZone }) };
		return { id, table: id, targetTable: id, ...more };
	});
	const bigquery = { ...source.connection(), timestampColumn: 'at', tables };
	running = await startComponent({ config: { bigquery, sync: { pollInterval: 500 } } });
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

for (const [id, { key }] of Object.entries(CASES)) {
	test(`rows_hours_old_that_are_newer_than_all_others_arrive_${id}`, async () => {
		const { harper } = running;
		const isRead = (/** @type {any} */ { state, rows }) => state === 'idle' && rows === ROWS;
		await untilStatus(harper, id, isRead, 'to be read once');
		await source.bigquery.loadRows(DATASET, id, rowsOf(id, 2));
		await untilEqual({ source, harper }, { table: id, target: id, cursor: 'at', ...(key && { key }) });
	});
}

test('the_watermark_of_local_time_is_told_with_its_offset', async () => {
	const isRead = (/** @type {any} */ { state, watermark }) => state === 'idle' && watermark !== null;
	const { watermark } = await untilStatus(running.harper, 'by_local_time', isRead, 'to be read once');
	assert.match(watermark, /\+05:30$/);
	assert.ok(Date.parse(watermark) < Date.now() - HOUR_MS, watermark);
});
