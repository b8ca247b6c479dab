import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';

import {
	ALL_TYPES_SCHEMA,
	VESSEL_SCHEMA,
	allTypes,
	bigQueryClient,
	compareTables,
	duplicated,
	plainApplication,
	startEmulator,
	startHarper,
	vesselPositions,
} from '../support/index.mjs';

/** @typedef {Record<string, any>} Row */

const dataset = `compare_${process.pid}`;
/** The operations API rounds long integers in its requests, so exact rows go in by a resource. */
const PUT = `
export class PutExactly extends Resource {
	async post({ table, json }) {
		const rows = JSON.parse(json, (_, value) => /^BigInt-?\\d+$/.test(value) ? BigInt(value.slice(6)) : value);
		const context = {};
		await transaction(context, () => rows.forEach((row) => tables[table].put(row, context)));
		return rows.length;
	}
}
`;
const application = plainApplication({
	schema: `type Positions @table @export { id: ID @primaryKey }
		type Keyed @table @export { id: ID @primaryKey }
		type Types @table @export { id: ID @primaryKey }`,
	config: { jsResource: { files: 'put.js' } },
	files: { 'put.js': PUT },
});
/** @type {import('../support/emulator.mjs').Emulator} */
let emulator;
/** @type {import('../support/bigquery.mjs').BigQueryClient} */
let bigquery;
/** @type {import('../support/harper.mjs').HarperNode} */
let harper;

before(async () => {
	[emulator, harper] = await Promise.all([startEmulator(), startHarper({ application: application.path })]);
	bigquery = bigQueryClient(emulator);
	await bigquery.createDataset(dataset);
	await bigquery.createTable(dataset, 'positions', { schema: VESSEL_SCHEMA });
	const base = [...vesselPositions({ rows: 3000 })];
	await bigquery.loadRows(dataset, 'positions', base);
	await bigquery.loadRows(dataset, 'positions', duplicated(base.slice(0, 10), 2));
	await bigquery.createTable(dataset, 'keyed', { schema: VESSEL_SCHEMA });
	await bigquery.loadRows(dataset, 'keyed', vesselPositions({ rows: 3000, vessels: 300 }));
});

after(async () => {
	await harper?.remove();
	await emulator?.stop();
	application.remove();
});

/**
 * @param {string} table
 * @param {Row[]} records
 */
async function put(table, records) {
	for (let at = 0; at < records.length; at += 1000) {
		await harper.operation({ operation: 'upsert', table, records: records.slice(at, at + 1000) });
	}
}

/**
 * @param {string} table
 * @param {string[]} ids
 */
function remove(table, ids) {
	return harper.operation({ operation: 'delete', table, ids });
}

describe('without_a_key', () => {
	const options = () => ({
		bigquery,
		source: { dataset, table: 'positions', cursor: 'timestamp' },
		harper,
		target: { table: 'Positions' },
	});
	/** @type {Row[]} */
	let good;

	beforeEach(async () => {
		const rows = await bigquery.query(`SELECT * FROM ${dataset}.positions ORDER BY timestamp`);
		good = rows.map((row, i) => ({ id: `p${String(i).padStart(6, '0')}`, _syncedAt: i, ...row }));
		await put('Positions', good);
	});

	test('equal_tables_are_equal', async () => {
		const { samples, ...result } = await compareTables(options());
		const none = { missing: 0, duplicate: 0, phantom: 0, different: 0 };
		assert.deepEqual(result, { equal: true, rows: 3020, sourceRows: 3020, targetRows: 3020, ...none });
		assert.deepEqual(samples, []);
	});

	test('each_kind_of_difference_is_counted_and_sampled', async () => {
		await remove('Positions', [good[100].id, good[101].id]);
		await put('Positions', [
			{ ...good[200], id: 'x-copy' },
			{ ...good[0], id: 'x-fourth-copy' },
		]);
		await put('Positions', [{ ...good[300], id: 'x-phantom', timestamp: '1999-01-01T00:00:00.000000Z' }]);
		await put('Positions', [
			{ ...good[400], speed: -1 },
			{ ...good[401], extra: 'attribute' },
		]);
		const result = await compareTables({ ...options(), limitSamples: 9 });
		const { missing, duplicate, phantom, different, rows, equal } = result;
		assert.deepEqual(
			{ missing, duplicate, phantom, different },
			{ missing: 2, duplicate: 2, phantom: 1, different: 2 }
		);
		assert.deepEqual([equal, rows], [false, 3020 - 4]);
		const of = (/** @type {string} */ kind) => result.samples.filter((sample) => sample.kind === kind);
		assert.deepEqual(
			new Set(of('missing').map(({ row }) => row.timestamp)),
			new Set([good[100], good[101]].map((row) => row.timestamp))
		);
		assert.equal(of('phantom')[0].row.timestamp, '1999-01-01T00:00:00.000000Z');
		assert.ok(of('different').some(({ row }) => row.speed === -1));
		assert.ok(of('duplicate').length > 0);
		await remove('Positions', ['x-copy', 'x-fourth-copy', 'x-phantom']);
		await put('Positions', [good[100], good[101], good[400]]);
		await remove('Positions', [good[401].id]);
	});

	test('a_lost_copy_of_equal_rows_is_missing', async () => {
		await remove('Positions', [good[0].id]);
		const { missing, different, duplicate } = await compareTables(options());
		assert.deepEqual({ missing, different, duplicate }, { missing: 1, different: 0, duplicate: 0 });
	});

	test('where_and_columns_narrow_what_is_expected', async () => {
		const source = {
			dataset,
			table: 'positions',
			columns: ['mmsi'],
			cursor: 'timestamp',
			where: "vessel_type = 'TANKER'",
		};
		const { missing, phantom, different, sourceRows } = await compareTables({ ...options(), source });
		assert.ok(sourceRows > 100 && sourceRows < 1000);
		assert.deepEqual([missing, phantom, different], [0, 3020 - sourceRows, sourceRows]);
	});
});

describe('with_a_key', () => {
	const source = { dataset, table: 'keyed', key: ['mmsi'], cursor: 'timestamp' };
	const compare = () => compareTables({ bigquery, source, harper, target: { table: 'Keyed' }, limitSamples: 5 });
	/** @type {Map<string, Row>} */
	const latest = new Map();

	test('the_latest_version_of_each_key_is_right', async () => {
		const rows = await bigquery.query(`SELECT * FROM ${dataset}.keyed ORDER BY timestamp`);
		for (const row of rows) latest.set(row.mmsi, { id: row.mmsi, ...row });
		await put('Keyed', [...latest.values()]);
		const result = await compare();
		assert.deepEqual([result.equal, result.rows, result.sourceRows], [true, latest.size, 3000]);
	});

	test('each_kind_of_difference_is_counted', async () => {
		const [first, second, third, fourth] = [...latest.values()];
		await remove('Keyed', [first.id]);
		await put('Keyed', [
			{ ...second, course: 999 },
			{ ...third, id: 'again' },
			{ ...fourth, id: 'new', mmsi: 'new' },
		]);
		const { missing, different, duplicate, phantom, samples } = await compare();
		assert.deepEqual([missing, different, duplicate, phantom], [1, 1, 1, 1]);
		assert.deepEqual(samples.find((sample) => sample.kind === 'missing')?.row.mmsi, first.mmsi);
		assert.deepEqual(
			samples.find((sample) => sample.side === 'target' && sample.kind === 'different')?.row.course,
			999
		);
	});
});

describe('all_types', () => {
	const options = () => ({
		bigquery,
		source: { dataset, table: 'types', key: ['row_id'] },
		harper,
		target: { table: 'Types' },
	});

	test('every_type_is_compared_exactly', async () => {
		await bigquery.createTable(dataset, 'types', { schema: ALL_TYPES_SCHEMA });
		await bigquery.loadRows(dataset, 'types', allTypes({ rows: 42 }));
		const rows = await bigquery.query(`SELECT * FROM ${dataset}.types`);
		await putExactly(
			'Types',
			rows.map((row) => ({ id: `${row.row_id}`, ...row }))
		);
		const { equal, rows: right, samples } = await compareTables(options());
		assert.deepEqual([equal, right], [true, 42], JSON.stringify(samples, tagged));
	});

	test('a_small_difference_in_any_column_is_seen', async () => {
		const [row] = await bigquery.query(`SELECT * FROM ${dataset}.types WHERE row_id = 3`);
		const changes = { ts: '2024-01-01T00:01:51.000004Z', float64_value: 1.0000000000000002e300, numeric_value: 1.5 };
		Object.assign(changes, { bool_value: false, int64_value: 9007199254740992, tags: ['two'], json_value: ['12.5'] });
		Object.assign(changes, { string_value: 'quote', date_value: null, numbers: [9223372036854775807n], stops: [{}] });
		for (const [column, value] of Object.entries(changes)) {
			await putExactly('Types', [{ id: '3', ...row, [column]: value }]);
			assert.equal((await compareTables(options())).different, 1, column);
		}
	});
});

/**
 * @param {string} table
 * @param {Row[]} rows
 */
async function putExactly(table, rows) {
	const response = await harper.request('/PutExactly/', {
		method: 'POST',
		body: { table, json: JSON.stringify(rows, tagged) },
	});
	assert.ok(response.ok, await response.text());
}

/**
 * @param {string} _
 * @param {unknown} value
 */
function tagged(_, value) {
	return typeof value === 'bigint' ? `BigInt${value}` : value;
}
