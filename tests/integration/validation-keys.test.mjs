/** Validation of tables whose records do not begin with their cursors: those with a key, and those with integer ids. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { VESSEL_SCHEMA, vesselPositions } from '../support/index.mjs';
import { assertEqual, startComponent, untilAllRest, untilEqual } from './support/component.mjs';
import { DATASET, startSource } from './support/source.mjs';
import { IN_HASTE, auditOf, idsOf, isEqual, remove, targetOf, upsert, validate } from './support/validation.mjs';

const ROWS = 9_000;
const VESSELS = 3_000;
const VESSEL_KEY = ['mmsi'];
const POSITION_KEY = ['mmsi', 'timestamp'];
/** Parts of keys whose texts are easily taken for others. */
const ODD = [
	'a|b',
	'a',
	'b',
	'\\',
	'\\N',
	'\\E',
	'#x',
	'',
	null,
	'two\nlines',
	'"quoted"',
	'ä🚢\u0001',
	'x'.repeat(3_000),
];
/** Of each type that a key may have besides: two values of which the second is NULL or looks like the first. */
const TYPED = {
	INT64: ['-9007199254740993', '0'],
	NUMERIC: ['1.50', '-0.000000001'],
	BOOL: [true, false],
	DATE: ['1969-12-31', null],
	DATETIME: ['2024-02-29T12:00:00.000001', '2024-02-29T12:00:00'],
	TIMESTAMP: ['1969-12-31T23:59:59.999999Z', null],
	TIME: ['00:00:00', '23:59:59.999999'],
	BYTES: ['AP8=', ''],
};

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/component.mjs').Running} */
let running;

const DAYS_OF = (/** @type {number} */ index) => new Date(Date.UTC(2024, 0, 1 + index)).toISOString();

before(async () => {
	source = await startSource();
	// Only then is it known that no more rows come, and the last ones are validated too.
	source.proxy.maintainsModification = true;
	const positions = (/** @type {number} */ seed) => vesselPositions({ rows: ROWS, vessels: VESSELS, days: 6, seed });
	const timePartitioning = { type: 'DAY', field: 'timestamp' };
	await source.fill('vessels', VESSEL_SCHEMA, positions(1));
	await source.fill('divided', VESSEL_SCHEMA, positions(2), { timePartitioning });
	await source.fill('numbered', VESSEL_SCHEMA, positions(3));
	await source.fill('hashed', VESSEL_SCHEMA, positions(4));
	const odd = ODD.flatMap((text, index) => [
		{ text, number: '1', timestamp: DAYS_OF(index) },
		{ text, number: null, timestamp: DAYS_OF(index) },
	]);
	const oddSchema = [
		{ name: 'text', type: 'STRING' },
		{ name: 'number', type: 'INT64' },
		{ name: 'timestamp', type: 'TIMESTAMP' },
	];
	await source.fill('odd', oddSchema, odd);
	for (const [type, values] of Object.entries(TYPED)) {
		const schema = [
			{ name: 'part', type },
			{ name: 'timestamp', type: 'TIMESTAMP' },
		];
		const rows = [...values, ...values].map((part, index) => ({ part, timestamp: DAYS_OF(index) }));
		await source.fill(`by_${type}`, schema, rows);
	}
	const tables = [
		{ table: 'vessels', key: VESSEL_KEY },
		{ table: 'divided', key: POSITION_KEY },
		{ table: 'numbered', key: [], idType: 'integer' },
		{ table: 'hashed', key: VESSEL_KEY, idType: 'integer' },
		{ table: 'odd', key: ['text', 'number'] },
		...Object.keys(TYPED).map((type) => ({ table: `by_${type}`, targetTable: `By${type}`, key: ['part'] })),
	];
	const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
	const sync = { pollInterval: 500, lateness: 60 };
	running = await startComponent({ config: { bigquery, sync }, threads: 2, env: IN_HASTE });
	for (const { table } of tables) await untilAllRest(running.harper, table);
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

/** The rows that Harper has when it has all. @type {Record<string, number>} */
const EXPECTED = { divided: ROWS, numbered: ROWS };

for (const table of ['vessels', 'divided', 'numbered', 'hashed']) {
	const key = { vessels: VESSEL_KEY, hashed: VESSEL_KEY, divided: POSITION_KEY }[table];

	test(`a_copy_that_is_equal_is_found_equal_${table}`, async () => {
		const { nodes } = await validate(running.harper, table, isEqual);
		const stored = (await idsOf(running.harper, table)).length;
		assert.equal(stored, EXPECTED[table] ?? stored);
		assert.deepEqual([nodes[0].rowsInBigQuery, nodes[0].rowsHere], [stored, stored]);
	});

	test(`rows_that_were_deleted_by_hand_come_back_${table}`, async () => {
		const ids = await idsOf(running.harper, table);
		await remove(running.harper, table, [...ids.slice(0, 3), ...ids.slice(1_000, 1_040), ids.at(-1)]);
		const { nodes } = await validate(running.harper, table, isEqual);
		assert.equal(nodes[0].rowsHere, ids.length);
		await assertEqual({ source, harper: running.harper }, { table, target: targetOf(table), key });
		assert.ok((await auditOf(running.harper, table, 'validation_repaired')).length > 0);
	});
}

test('bigquery_and_the_core_write_odd_keys_alike', async () => {
	const { nodes } = await validate(running.harper, 'odd', isEqual);
	assert.equal(nodes[0].rowsInBigQuery, 2 * ODD.length);
});

for (const type of Object.keys(TYPED)) {
	test(`bigquery_and_the_core_write_keys_of_a_type_alike_${type}`, async () => {
		const { nodes } = await validate(running.harper, `by_${type}`, isEqual);
		assert.equal(nodes[0].rowsInBigQuery, 2);
	});
}

test('older_versions_that_were_written_by_hand_are_replaced', async () => {
	const ids = (await idsOf(running.harper, 'vessels')).slice(100, 120);
	const older = ids.map((id) => ({ id, mmsi: id, vessel_name: 'old', timestamp: '2023-01-01T00:00:00.000000Z' }));
	await upsert(running.harper, 'vessels', older);
	await validate(running.harper, 'vessels', isEqual);
	await untilEqual({ source, harper: running.harper }, { table: 'vessels', target: 'Vessels', key: VESSEL_KEY });
});

test('a_key_that_comes_a_day_late_is_found', async () => {
	const [row] = vesselPositions({ rows: 1 });
	await source.bigquery.loadRows(DATASET, 'vessels', [{ ...row, mmsi: 'late' }]);
	await validate(running.harper, 'vessels', isEqual);
	await untilEqual({ source, harper: running.harper }, { table: 'vessels', target: 'Vessels', key: VESSEL_KEY });
});

test('validation_is_billed_key_and_cursor_once', async () => {
	source.proxy.accounting = true;
	const from = source.proxy.requests('jobs.query').length;
	await validate(running.harper, 'vessels', isEqual);
	source.proxy.accounting = false;
	const listed = source.proxy.requests('jobs.query').slice(from);
	const bills = listed
		.filter(({ sql }) => /_bigquery_sync_newest/.test(sql ?? ''))
		.map(({ bytesBilled }) => bytesBilled);
	// First a dry run; the minimum is 10 MB.
	assert.deepEqual(bills, [0, 10 << 20]);
});
