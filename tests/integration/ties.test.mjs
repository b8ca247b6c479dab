/** Very many rows with one cursor value, copies among them: what cursors with LIMIT lose or double. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { size } from '../support/index.mjs';
import { assertEqual, startComponent, untilRows } from './support/component.mjs';
import { backfillQueries, startSource } from './support/source.mjs';

/** Each poll reads the rows of the newest value again. */
const POLL_MS = 10_000;
const PER_SECOND = 1_000;
const TIED_ROWS = size(12_000, 100_000);
const SHARED_ROWS = size(16_000, 1_000_000);
const SHARED_BY_DAY_ROWS = size(12_000, 100_000);
/** Less than a third of what is in a single partition, and in the table that has none. */
const WINDOW_ROWS_MAX = size(3_500, 30_000);
/** Each third row is there twice. */
const COPIED_EVERY = 3;
const BY_DAY = { timePartitioning: { type: 'DAY', field: 'timestamp' } };
const NOON_MS = Date.parse('2024-01-02T12:00:00Z');
/** Narrow, for it is the number of rows that matters. */
const SCHEMA = [
	{ name: 'number', type: 'INT64' },
	{ name: 'timestamp', type: 'TIMESTAMP' },
];

/** @param {number} rows */
function* numbersWithCopies(rows) {
	let written = 0;
	for (let number = 0; written < rows; number++) {
		const copies = number % COPIED_EVERY === 0 ? 2 : 1;
		for (let copy = 0; copy < copies && written < rows; copy++, written++) yield number;
	}
}

/** Rows of which a thousand share each second. */
function* tiedRows() {
	let row = 0;
	for (const number of numbersWithCopies(TIED_ROWS)) {
		const second = Math.floor(row++ / PER_SECOND);
		yield { number, timestamp: new Date(NOON_MS + second * 1_000).toISOString() };
	}
}

/**
 * Rows that share one value, and one row on each side of it, a microsecond away, and one a day before.
 * @param {number} rows
 */
function* sharingRows(rows) {
	for (const timestamp of ['2024-01-01T12:00:00Z', '2024-01-02T11:59:59.999999Z', '2024-01-02T12:00:00.000001Z']) {
		yield { number: -1, timestamp };
	}
	for (const number of numbersWithCopies(rows - 3)) yield { number, timestamp: '2024-01-02T12:00:00Z' };
}

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/component.mjs').Running} */
let running;

/**
 * @param {{table: string, targetTable: string}[]} tables
 * @param {Record<string, any>} [sections]
 */
function configuration(tables, sections = {}) {
	const bigquery = {
		...source.connection(),
		timestampColumn: 'timestamp',
		tables: tables.map((one) => ({ ...one, id: one.targetTable })),
	};
	return { bigquery, sync: { pollInterval: POLL_MS }, ...sections };
}

/**
 * @param {{table: string, targetTable: string}} one
 * @param {number} rows
 */
async function assertArrives({ table, targetTable: target }, rows) {
	const { harper } = running;
	const status = await untilRows(harper, target, rows);
	assert.equal(status.rows, rows, 'nothing was written twice');
	assert.deepEqual(await assertEqual({ source, harper }, { table, target }), { sourceRows: rows, targetRows: rows });
}

const ALL = [
	// Nobody searches for the one value.
	{ table: 'shared', targetTable: 'Shared', schemaOverrides: { timestamp: { indexed: false } } },
	{ table: 'tied', targetTable: 'Tied' },
	{ table: 'tied_by_day', targetTable: 'TiedByDay' },
	{ table: 'shared_by_day', targetTable: 'SharedByDay' },
];
const [shared, tied, tiedByDay, sharedByDay] = ALL;

before(async () => {
	source = await startSource();
	await source.fill('shared', SCHEMA, sharingRows(SHARED_ROWS));
	await source.fill('shared_by_day', SCHEMA, sharingRows(SHARED_BY_DAY_ROWS), BY_DAY);
	await source.fill('tied', SCHEMA, tiedRows());
	await source.fill('tied_by_day', SCHEMA, tiedRows(), BY_DAY);
	running = await startComponent({ config: configuration(ALL), threads: 2 });
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

test('a_thousand_rows_of_each_of_many_seconds_arrive', () => assertArrives(tied, TIED_ROWS));

test('they_arrive_from_a_table_that_is_partitioned_by_day_too', () => assertArrives(tiedByDay, TIED_ROWS));

test('rows_that_share_one_value_arrive_from_a_partitioned_table', () => assertArrives(sharedByDay, SHARED_BY_DAY_ROWS));

test('very_many_rows_that_share_one_value_arrive', () => assertArrives(shared, SHARED_ROWS));

describe('windows that are smaller than the rows of one value', () => {
	// Read by one worker; two of them would divide the days.
	const windowed = { ...sharedByDay, partitionBy: 'table', targetTable: 'SharedInWindows' };
	const numbered = { ...tied, targetTable: 'TiedNumbered' };

	before(() => {
		source.proxy.reset();
		const limits = { maxRowsPerWindow: WINDOW_ROWS_MAX };
		running.application.configure(configuration([windowed, numbered], { limits }));
	});

	test('never_split_them', async () => {
		await assertArrives(windowed, SHARED_BY_DAY_ROWS);
		// The tables of the former configuration may still be polled for a moment, from later times on.
		const windows = backfillQueries(source.proxy).filter(({ sql }) => /<= TIMESTAMP/.test(sql ?? ''));
		assert.equal(windows.length, 1, 'the first of two days is read alone');
	});

	test('make_bigquery_number_the_copies_of_a_table_without_partitions', async () => {
		await assertArrives(numbered, TIED_ROWS);
		const queries = backfillQueries(source.proxy).filter(({ sql }) => /`tied`/.test(sql ?? ''));
		assert.equal(queries.length, 1);
		assert.match(queries[0].sql ?? '', /ROW_NUMBER/);
	});
});
