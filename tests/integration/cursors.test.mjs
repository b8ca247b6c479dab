/** Cursor columns of each type, from the first instant to the last, absent ones, and tables of few rows. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { until } from '../support/index.mjs';
import { PATIENCE_MS, assertEqual, startComponent, untilEqual, untilStatus } from './support/component.mjs';
import { DATASET, startSource } from './support/source.mjs';

const POLL_MS = 1_000;
const WITHOUT_CURSOR = 7;
const TIES = 3;

/** As BigQuery writes them in UTC, in order; each comes several times. */
const INSTANTS = [
	'0001-01-01T00:00:00.000000',
	'0001-01-01T00:00:00.000001',
	'1582-10-15T12:00:00.000000',
	'1969-12-31T23:59:59.999999',
	'1970-01-01T00:00:00.000000',
	'1970-01-01T00:00:00.000001',
	'2024-02-29T12:34:56.789012',
	'9999-12-31T23:59:59.999998',
	'9999-12-31T23:59:59.999999',
];
const DATES = ['0001-01-01', '0001-01-02', '1969-12-31', '1970-01-01', '2024-02-29', '9999-12-31'];
const FIRST_US = -62_135_596_800_000_000n;
const LAST_US = 253_402_300_799_999_999n;

/**
 * All integers that a column may hold that counts units of so many microseconds, at the ends and around 1970.
 * @param {bigint} unitUs
 */
function integers(unitUs) {
	const first = FIRST_US / unitUs;
	const last = LAST_US / unitUs;
	return [first, first + 1n, -1n, 0n, 1n, 1_704_067_200_000_000n / unitUs, last - 1n, last];
}

/**
 * @typedef {{id: string, type: string, values: (string | bigint | null)[], unit?: string, rows?: number}} Case
 * @type {Case[]}
 */
const CASES = [
	{ id: 'by_timestamp', type: 'TIMESTAMP', values: INSTANTS.map((text) => `${text}Z`) },
	{ id: 'by_datetime', type: 'DATETIME', values: INSTANTS },
	{ id: 'by_date', type: 'DATE', values: DATES },
	{ id: 'by_seconds', type: 'INT64', unit: 'seconds', values: integers(1_000_000n) },
	{ id: 'by_milliseconds', type: 'INT64', unit: 'milliseconds', values: integers(1_000n) },
	{ id: 'by_microseconds', type: 'INT64', unit: 'microseconds', values: integers(1n) },
];

/** @param {string} type */
const schemaOf = (type) => [
	{ name: 'name', type: 'STRING' },
	{ name: 'at', type },
];

/**
 * Rows that share each cursor value: some differ, two are the same.
 * @param {Case} one
 */
function* rowsOf({ values }) {
	for (const at of values) {
		for (let tie = 0; tie < TIES; tie++) yield { name: `tie ${tie}`, at };
		yield { name: 'tie 0', at };
	}
}

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/component.mjs').Running} */
let running;
/** @type {{source: import('./support/source.mjs').Source, harper: import('../support/index.mjs').HarperNode}} */
let sides;

/** @param {string} table @param {Iterable<object>} rows */
const add = (table, rows) => source.bigquery.loadRows(DATASET, table, rows);

/** @param {string} id */
const table = (id) => ({ table: id, target: id, cursor: 'at' });

before(async () => {
	source = await startSource();
	for (const one of CASES) await source.fill(one.id, schemaOf(one.type), rowsOf(one));
	const few = schemaOf('TIMESTAMP');
	await source.fill('empty', few);
	await source.fill('filled_later', few);
	await source.fill('one_row', few, [{ name: 'only', at: '2024-01-01T00:00:00Z' }]);
	const absent = Array.from({ length: WITHOUT_CURSOR }, (_, n) => ({ name: `absent ${n}`, at: null }));
	const present = [...rowsOf({ id: '', type: '', values: ['2024-01-01T00:00:00Z'] })];
	await source.fill('some_absent', few, [...absent, ...present]);
	await source.fill('all_absent', few, absent);
	const others = ['empty', 'filled_later', 'one_row', 'some_absent', 'all_absent'].map((id) => ({ id }));
	const tables = [...CASES, ...others].map((/** @type {any} */ { id, unit }) => {
		return { id, table: id, targetTable: id, ...(unit && { timestampUnit: unit }) };
	});
	const bigquery = { ...source.connection(), timestampColumn: 'at', tables };
	running = await startComponent({ config: { bigquery, sync: { pollInterval: POLL_MS } } });
	sides = { source, harper: running.harper };
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

for (const one of CASES) {
	const { id, type, values } = one;
	test(`a_table_${id}_arrives_from_the_first_value_to_the_last`, async () => {
		const counts = await untilEqual(sides, table(id));
		assert.equal(counts.targetRows, values.length * (TIES + 1));
		const { lastError, rejectedRows } = await untilStatus(
			running.harper,
			id,
			({ state }) => state === 'idle',
			'to rest'
		);
		assert.equal(lastError, null);
		assert.equal(rejectedRows, 0);
		// The ids of rows without a key sort as the cursors do, also before 1970.
		// Harper takes an empty text for null; no id sorts before this one.
		const conditions = [{ attribute: 'id', comparator: 'greater_than', value: '!' }];
		const search = { operation: 'search_by_conditions', table: id, conditions, get_attributes: ['id', 'at'] };
		const records = await running.harper.operation({ ...search, sort: { attribute: 'id' } });
		const found = records.map((/** @type {any} */ { at }) => (type === 'INT64' ? BigInt(at) : at));
		assert.equal(found.length, values.length * (TIES + 1));
		const sorted = [...found].sort((a, b) => (a < b ? -1 : Number(a > b)));
		assert.deepEqual(found, sorted);
	});

	test(`a_table_${id}_gets_rows_that_are_added_now`, async () => {
		await untilEqual(sides, table(id));
		const now = new Date();
		const text = now.toISOString().replace('Z', '');
		const unitUs = { seconds: 1_000_000n, milliseconds: 1_000n, microseconds: 1n }[one.unit ?? 'microseconds'];
		const integer = (BigInt(now.getTime()) * 1_000n) / /** @type {bigint} */ (unitUs);
		const at = { TIMESTAMP: `${text}Z`, DATETIME: text, DATE: text.slice(0, 10), INT64: integer }[type];
		await add(id, rowsOf({ ...one, values: [/** @type {string | bigint} */ (at)] }));
		const counts = await untilEqual(sides, table(id));
		assert.equal(counts.targetRows, (values.length + 1) * (TIES + 1));
	});
}

for (const [id, copied] of /** @type {[string, number][]} */ ([
	['some_absent', TIES + 1],
	['all_absent', 0],
])) {
	test(`rows_without_a_cursor_are_counted_and_audited_and_not_copied_in_a_table_with_${id}`, async () => {
		const present = { ...table(id), where: 'at IS NOT NULL' };
		assert.equal((await untilEqual(sides, present)).targetRows, copied);
		const told = ({ rowsWithoutCursor }) => rowsWithoutCursor === WITHOUT_CURSOR;
		const status = await untilStatus(running.harper, id, told, `to tell of ${WITHOUT_CURSOR} rows`);
		assert.equal(status.rejectedRows, 0);
		const audited = async () => {
			const search = { operation: 'search_by_value', table: 'SyncAudit', attribute: 'tableId', value: id };
			const entries = await running.harper.operation({ ...search, get_attributes: ['kind', 'reason'] });
			return entries.some(({ kind, reason }) => kind === 'rows_without_cursor' && /^7 rows .* at;/.test(reason));
		};
		await until(audited, { deadlineMs: PATIENCE_MS, what: 'an entry in the audit' });
		await add(id, [{ name: 'new', at: new Date().toISOString() }]);
		assert.equal((await untilEqual(sides, present)).targetRows, copied + 1);
	});
}

test('an_empty_table_gives_an_empty_target', async () => {
	const status = await untilStatus(running.harper, 'empty', ({ state }) => state === 'idle', 'to rest');
	assert.equal(status.rows, 0);
	assert.deepEqual(await assertEqual(sides, table('empty')), { sourceRows: 0, targetRows: 0 });
	await add('empty', [{ name: 'first', at: new Date().toISOString() }]);
	assert.equal((await untilEqual(sides, table('empty'))).targetRows, 1);
});

test('a_table_of_one_row_arrives_and_grows', async () => {
	assert.equal((await untilEqual(sides, table('one_row'))).targetRows, 1);
	await add('one_row', [{ name: 'second', at: new Date().toISOString() }]);
	assert.equal((await untilEqual(sides, table('one_row'))).targetRows, 2);
});

test('an_empty_table_that_is_filled_with_history_later_arrives_completely', async () => {
	await untilStatus(running.harper, 'filled_later', ({ state }) => state === 'idle', 'to rest');
	const values = INSTANTS.map((text) => `${text}Z`);
	await add('filled_later', rowsOf({ id: '', type: '', values }));
	assert.equal((await untilEqual(sides, table('filled_later'))).targetRows, values.length * (TIES + 1));
});
