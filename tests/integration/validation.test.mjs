/** Validation on command: that copies which are equal are found equal, and that others are found and mended. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { VESSEL_SCHEMA, vesselPositions } from '../support/index.mjs';
import { assertEqual, startComponent, untilAllRest, untilEqual } from './support/component.mjs';
import { DATASET, recent, startSource } from './support/source.mjs';
import { IN_HASTE, auditOf, idsOf, isEqual, remove, targetOf, validate } from './support/validation.mjs';

const ROWS = 12_000;
const DAYS = 6;
/** Tables without key, divided in different ways among the threads. */
const TABLES = ['whole', 'days', 'divided'];
/** The types that a cursor may have, with values: two equal ones, one before 1970, and one with a fraction if it can. */
const CURSORS = {
	DATETIME: ['2024-01-01T12:00:00', '2024-01-01T12:00:00', '1969-12-31T23:59:59.999999', '2024-02-29T00:00:00.000001'],
	DATE: ['2024-01-01', '2024-01-01', '1969-07-20', '2024-02-29'],
	INT64: [1_704_067_200, 1_704_067_200, -1, 1_709_164_800],
	TIMESTAMP: [
		'2024-01-01T12:00:00Z',
		'2024-01-01T12:00:00Z',
		'1969-12-31T23:59:59.999999Z',
		'2024-02-29T00:00:00.000001Z',
	],
};

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/component.mjs').Running} */
let running;

before(async () => {
	source = await startSource();
	// Only then is it known that no more rows come, and the last ones are validated too.
	source.proxy.maintainsModification = true;
	const timePartitioning = { type: 'DAY', field: 'timestamp' };
	for (const [seed, table] of TABLES.entries()) {
		const rows = vesselPositions({ rows: ROWS, days: DAYS, seed });
		await source.fill(table, VESSEL_SCHEMA, rows, table === 'days' ? { timePartitioning } : {});
	}
	for (const [type, values] of Object.entries(CURSORS)) {
		const schema = [
			{ name: 'at', type },
			{ name: 'number', type: 'INT64' },
		];
		await source.fill(
			`by_${type}`,
			schema,
			values.map((at, number) => ({ at, number }))
		);
	}
	const byCursor = Object.keys(CURSORS).map((type) => ({
		table: `by_${type}`,
		targetTable: `By${type}`,
		timestampColumn: 'at',
		...(type === 'INT64' && { timestampUnit: 'seconds' }),
	}));
	const tables = [
		{ table: 'whole' },
		{ table: 'days' },
		{ table: 'divided', partitionBy: 'timestamp', sync: { partitions: 5 } },
		...byCursor,
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

for (const table of TABLES) {
	test(`a_copy_that_is_equal_is_found_equal_${table}`, async () => {
		const { text, nodes } = await validate(running.harper, table, isEqual);
		assert.equal(nodes[0].rowsInBigQuery, ROWS);
		assert.equal(nodes[0].rowsHere, ROWS);
		assert.match(text, /^equal up to \S+, 12,000 rows, 0 differences, \d+\.\d MB billed$/);
		assert.ok((await auditOf(running.harper, table, 'validation_equal')).length > 0);
	});

	test(`rows_that_were_deleted_by_hand_come_back_${table}`, async () => {
		const ids = await idsOf(running.harper, table);
		await remove(running.harper, table, [...ids.slice(0, 3), ...ids.slice(7_000, 7_040), ids[ROWS - 1]]);
		const { nodes } = await validate(running.harper, table, isEqual);
		assert.equal(nodes[0].rowsHere, ROWS);
		await assertEqual({ source, harper: running.harper }, { table, target: targetOf(table) });
		assert.ok((await auditOf(running.harper, table, 'validation_repaired')).length > 0);
	});
}

for (const type of Object.keys(CURSORS)) {
	test(`bigquery_and_the_core_digest_a_cursor_alike_${type}`, async () => {
		const { nodes } = await validate(running.harper, `by_${type}`, isEqual);
		assert.equal(nodes[0].rowsInBigQuery, CURSORS[/** @type {keyof typeof CURSORS} */ (type)].length);
	});
}

test('rows_that_come_a_day_late_are_found', async () => {
	const late = recent(vesselPositions({ rows: 20, seed: 9 }), { agoMs: 0 }).map((row, index) => {
		const at = Date.parse('2024-01-03T12:00:00Z') + index;
		return { ...row, timestamp: new Date(at).toISOString() };
	});
	await source.bigquery.loadRows(DATASET, 'days', late);
	await validate(running.harper, 'days', isEqual);
	await untilEqual({ source, harper: running.harper }, { table: 'days', target: 'Days' });
});

test('validation_is_billed_the_cursor_alone', async () => {
	source.proxy.accounting = true;
	const from = source.proxy.requests('jobs.query').length;
	await validate(running.harper, 'whole', isEqual);
	source.proxy.accounting = false;
	const counted = source.proxy.requests('jobs.query').slice(from);
	const bills = counted.filter(({ sql }) => /SHA256/.test(sql ?? '')).map(({ bytesBilled }) => bytesBilled);
	// First a dry run. A TIMESTAMP has 8 bytes; the minimum is 10 MB.
	assert.deepEqual(bills, [0, Math.max(8 * ROWS, 10 << 20)]);
});
