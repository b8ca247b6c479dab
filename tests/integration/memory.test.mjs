/** Large answers: rows arrive equal, and Harper keeps no more of them in memory than a few at a time. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { FAULT, size, until } from '../support/index.mjs';
import { PATIENCE_MS, assertEqual, postControl, readControl, startComponent, untilRows } from './support/component.mjs';
import { startSource } from './support/source.mjs';

const MEGABYTE = 1_000_000;
/** BigQuery's largest page. */
const PAGE_BYTES = 20 * MEGABYTE;
const LONG_ROW_BYTES = 10_000;
const LONG_ROWS_PER_PAGE = PAGE_BYTES / LONG_ROW_BYTES;
const LONG_ROWS = 13 * LONG_ROWS_PER_PAGE;
const CELL_BYTES = 10 * MEGABYTE;
const CELLS_PER_PAGE = PAGE_BYTES / CELL_BYTES;
const CELLS = 6 * CELLS_PER_PAGE;
/**
 * Under way at a time are a page as it comes in parts, whole, and in the core, the next page in the same forms, and
 * garbage of either: 9 to 13 pages were seen. Whoever kept all of them would need at least 20.
 */
const PAGES_KEPT_MAX = 17;
/** A single cell is many times in a record's way too: as JSON, as a string, as encoded for the table and for its log. */
const CELL_PAGES_KEPT_MAX = 25;
/** An answer is refused when it has more than 128 MiB, 7 pages: those of one may still be garbage when the next comes. */
const REFUSED_PAGES_KEPT_MAX = 25;
const SHORT_ROWS = 2_000;
const SHORT_ROWS_PER_PAGE = 200;
const SAMPLE_MS = 20;
const TABLES = 3;
const EDITED_ROWS = 500;
const EDITS = size(15, 200);
/** A core that stays has some 10 MB, and there may be garbage of some. */
const EDITS_BYTES_MAX = 60 * MEGABYTE + EDITS * 2 * MEGABYTE;

const SCHEMA = [
	{ name: 'number', type: 'INT64' },
	{ name: 'body', type: 'STRING' },
	{ name: 'timestamp', type: 'TIMESTAMP' },
];

/**
 * @param {number} rows
 * @param {number} bytes Of each one's text.
 */
function* longRows(rows, bytes) {
	const text = 'é "quoted" \\ and 東京 '.repeat(Math.ceil(bytes / 20));
	for (let number = 0; number < rows; number++) {
		const body = Buffer.from(`${number} ${text}`)
			.subarray(0, bytes)
			.toString()
			.replace(/\ufffd+$/, '');
		yield { number, body, timestamp: new Date(Date.parse('2024-01-01') + number).toISOString() };
	}
}

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/component.mjs').Running} */
let running;
/** Whether Harper has synced anything since its first start. */
let hasWorked = false;

before(async () => {
	source = await startSource();
	await source.fill('pages', SCHEMA, longRows(LONG_ROWS, LONG_ROW_BYTES));
	await source.fill('cells', SCHEMA, longRows(CELLS, CELL_BYTES));
	await source.fill('edited', SCHEMA, longRows(EDITED_ROWS, LONG_ROW_BYTES));
	await source.fill('refused', SCHEMA, longRows(SHORT_ROWS, 100));
	const tables = [
		{ table: 'pages', batchSize: LONG_ROWS_PER_PAGE },
		{ table: 'cells', batchSize: CELLS_PER_PAGE },
		{ table: 'refused', batchSize: SHORT_ROWS_PER_PAGE },
	];
	const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
	const sync = { pollInterval: 1_000, autoStart: false };
	running = await startComponent({ config: { bigquery, sync, retry: { initialDelay: 50 } } });
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

/**
 * Syncs a table in a Harper that has done nothing yet, and tells how many pages' worth of memory it needs beyond that.
 * @param {string} id
 * @param {number} rows
 */
async function pagesKept(id, rows) {
	const { harper } = running;
	if (hasWorked) {
		await harper.stop();
		await harper.start();
	}
	hasWorked = true;
	const ready = async () => (await readControl(harper)).tables.length === TABLES;
	await until(ready, { deadlineMs: PATIENCE_MS, what: 'the component to be ready' });
	const idle = harper.usage().anonymousBytes;
	let peak = idle;
	const timer = setInterval(() => {
		peak = Math.max(peak, harper.usage().anonymousBytes);
	}, SAMPLE_MS);
	try {
		await postControl(harper, { action: 'start', table: id });
		await untilRows(harper, id, rows);
	} finally {
		clearInterval(timer);
	}
	await postControl(harper, { action: 'stop', table: id });
	return (peak - idle) / PAGE_BYTES;
}

test('pages_of_20_mb_arrive_and_are_not_kept', async (context) => {
	const kept = await pagesKept('pages', LONG_ROWS);
	context.diagnostic(`${kept.toFixed(1)} pages`);
	const counts = await assertEqual({ source, harper: running.harper }, { table: 'pages', target: 'Pages' });
	assert.equal(counts.targetRows, LONG_ROWS);
	assert.ok(kept < PAGES_KEPT_MAX, `${kept} pages of 20 MB were in memory`);
});

test('cells_of_10_mb_arrive_and_are_not_kept', async (context) => {
	const kept = await pagesKept('cells', CELLS);
	context.diagnostic(`${kept.toFixed(1)} pages`);
	const counts = await assertEqual({ source, harper: running.harper }, { table: 'cells', target: 'Cells' });
	assert.equal(counts.targetRows, CELLS);
	assert.ok(kept < CELL_PAGES_KEPT_MAX, `${kept} pages of 20 MB were in memory`);
});

test('answers_without_end_are_given_up_before_they_fill_the_memory', async (context) => {
	const rule = source.proxy.faults.add({ route: 'getQueryResults', every: 2, limit: 3, fault: FAULT.endless() });
	const kept = await pagesKept('refused', SHORT_ROWS);
	context.diagnostic(`${kept.toFixed(1)} pages`);
	assert.equal(rule.injected, 3);
	const counts = await assertEqual({ source, harper: running.harper }, { table: 'refused', target: 'Refused' });
	assert.equal(counts.targetRows, SHORT_ROWS);
	assert.ok(kept < REFUSED_PAGES_KEPT_MAX, `${kept} pages of 20 MB were in memory`);
});

test('edits_of_the_configuration_leave_nothing_in_memory', async (context) => {
	const { harper, application } = running;
	const edit = async (/** @type {number} */ number) => {
		const tables = [{ id: `edited${number}`, table: 'edited', targetTable: 'Edited' }];
		const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
		application.configure({ bigquery, sync: { pollInterval: 1_000 } });
		await untilRows(harper, `edited${number}`, EDITED_ROWS);
	};
	for (let number = 0; number < 5; number++) await edit(number);
	const before = harper.usage().anonymousBytes;
	for (let number = 0; number < EDITS; number++) await edit(5 + number);
	const growth = harper.usage().anonymousBytes - before;
	context.diagnostic(`${EDITS} edits: ${(growth / MEGABYTE).toFixed(0)} MB more`);
	assert.ok(growth < EDITS_BYTES_MAX, `${growth} bytes more`);
});
