/** Target tables make themselves: typed, with indexes, on every node; or are used as their owner declared them. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { ALL_TYPES_SCHEMA, VESSEL_SCHEMA, allTypes, until, vesselPositions } from '../support/index.mjs';
import { PATIENCE_MS, startComponent, untilEqual, untilStatus } from './support/component.mjs';
import { DATASET, recent, startSource } from './support/source.mjs';
import {
	INSPECT,
	OVERRIDES,
	POSITIONS,
	TYPES,
	attributesOf,
	indexedRows,
	untilIndexed,
	vesselCount,
} from './support/targets.mjs';
import { WHERE, connectToEach } from './support/worker-connection.mjs';

/** @type {import('./support/source.mjs').Source} */
let source;

before(async () => {
	source = await startSource();
	const vessels = [...vesselPositions({ rows: 2_000, vessels: 50 })];
	await source.fill('types', ALL_TYPES_SCHEMA, allTypes({ rows: 200 }));
	await source.fill('positions', VESSEL_SCHEMA, vessels, { clustering: ['vessel_type'] });
	await source.bigquery.query(
		`CREATE VIEW \`${DATASET}.positions_view\` AS SELECT * FROM \`${DATASET}.positions\` WHERE vessel_type = 'TANKER'`
	);
	const { type } = await source.bigquery.getTable(DATASET, 'positions_view');
	assert.equal(type, 'VIEW');
});

after(() => source?.stop());

/** Makes the thread that answers forget a table, as if Harper had not told it. */
const FORGET = {
	section: { jsResource: { files: ['index-of.js', 'where.js', 'forget.js'] } },
	files: {
		...INSPECT.files,
		...WHERE.files,
		'forget.js': `
			export class Forget extends Resource {
				static loadAsInstance = false;
				get(target) {
					const name = String(target.id ?? target);
					delete databases.data[name];
					return { attributes: databases.data[name]?.attributes.length ?? null };
				}
			}
			export class Knows extends Resource {
				static loadAsInstance = false;
				get(target) { return { attributes: databases.data[String(target.id ?? target)]?.attributes.length ?? null }; }
			}`,
	},
};

const TANKER_ROWS = [...vesselPositions({ rows: 2_000, vessels: 50 })].filter((row) => row.vessel_type === 'TANKER');
const TANKERS = TANKER_ROWS.length;
const MMSI = [...vesselPositions({ rows: 1, vessels: 50 })][0].mmsi;
const MMSI_ROWS = [...vesselPositions({ rows: 2_000, vessels: 50 })].filter(({ mmsi }) => mmsi === MMSI).length;

describe('a Harper without any schema', () => {
	/** @type {import('./support/component.mjs').Running} */
	let running;
	/** @type {(bigquery: any[], sections?: any) => any} */
	let config;

	before(async () => {
		config = (tables, sections) => ({
			bigquery: { ...source.connection(), timestampColumn: 'timestamp', tables },
			sync: { pollInterval: 500 },
			...FORGET.section,
			...sections,
		});
		const tables = [
			{ table: 'types', timestampColumn: 'ts', schemaOverrides: OVERRIDES },
			{ table: 'positions_view' },
			{ table: 'positions', schemaOverrides: { mmsi: { indexed: true } } },
		];
		running = await startComponent({ config: config(tables), form: 'application', threads: 2, files: FORGET.files });
	});
	after(() => running?.remove());

	test('gets_tables_of_all_types_with_their_indexes', async () => {
		const { harper } = running;
		await untilEqual({ source, harper }, { table: 'types', target: 'Types', cursor: 'ts' });
		await untilEqual({ source, harper }, { table: 'positions', target: 'Positions' });
		for (const id of ['types', 'positions']) await untilIndexed(harper, id);
		assert.deepEqual(await attributesOf(harper, 'Types'), TYPES);
		assert.deepEqual(await attributesOf(harper, 'Positions'), POSITIONS);
	});

	test('makes_the_target_readable_on_each_worker', async () => {
		for (const connection of await connectToEach(running.harper, 2)) {
			const isReadable = async () => (await connection.send('GET', '/Positions/?limit(1)')).status === 200;
			await until(isReadable, { deadlineMs: PATIENCE_MS, what: 'the target to be readable' });
			connection.close();
		}
	});

	test('answers_queries_by_its_indexes', async () => {
		const { harper } = running;
		assert.equal(await vesselCount(harper, MMSI), MMSI_ROWS);
		assert.equal(await indexedRows(harper, `Positions,mmsi,${MMSI}`), MMSI_ROWS);
		assert.equal(await indexedRows(harper, 'Positions,status,MOORED'), null);
		const largest = '9223372036854775807';
		const expected = [...allTypes({ rows: 200 })].filter(({ int64_value }) => int64_value === largest).length;
		const search = { search_attribute: 'int64_value', search_type: 'greater_than', search_value: 9.1e18 };
		const found = await harper.operation({
			operation: 'search_by_conditions',
			database: 'data',
			table: 'Types',
			get_attributes: ['int64_value'],
			conditions: [search],
		});
		assert.equal(found.length, expected);
	});

	test('finds_a_table_on_a_worker_that_was_not_told_of_it', async () => {
		const { harper } = running;
		for (const connection of await connectToEach(harper, 2)) {
			const known = async () => (await connection.send('GET', '/Knows/Positions')).body.attributes;
			const before = await known();
			// It may be found again at the next moment.
			assert.equal((await connection.send('GET', '/Forget/Positions')).body.attributes, null);
			await until(async () => (await known()) !== null, { deadlineMs: PATIENCE_MS, what: 'the table to be known' });
			assert.equal(await known(), before);
			connection.close();
		}
		assert.deepEqual(await attributesOf(harper, 'Positions'), POSITIONS);
		assert.equal(await vesselCount(harper, MMSI), MMSI_ROWS);
		assert.equal(await indexedRows(harper, `Positions,mmsi,${MMSI}`), MMSI_ROWS);
	});

	test('syncs_a_view_like_a_table_though_it_never_seems_to_change', async () => {
		const { harper } = running;
		const view = 'positions_view';
		await untilStatus(harper, view, ({ state, rows }) => state === 'idle' && rows === TANKERS, 'to be filled');
		const row = TANKER_ROWS.find(({ mmsi }) => mmsi !== MMSI);
		assert.ok(row);
		await source.bigquery.loadRows(DATASET, 'positions', recent([row], { agoMs: 10_000 }));
		await untilStatus(harper, view, ({ rows }) => rows === TANKERS + 1, 'to have the new row');
	});

	test('makes_a_dropped_table_anew_and_shows_it', async () => {
		const { harper } = running;
		await harper.operation({ operation: 'drop_table', database: 'data', table: 'Positions' });
		const [row] = vesselPositions({ rows: 1, vessels: 50 });
		await source.bigquery.loadRows(DATASET, 'positions', recent([row], { agoMs: 5_000 }));
		await untilEqual({ source, harper }, { table: 'positions', target: 'Positions' });
		assert.deepEqual(await attributesOf(harper, 'Positions'), POSITIONS);
		const all = async () => (await vesselCount(harper, MMSI).catch(() => 0)) === MMSI_ROWS + 1;
		await until(all, { deadlineMs: PATIENCE_MS, what: 'the new table over REST' });
	});
});

describe('a table that its owner declared', () => {
	const SCHEMA = `
		type Fit @table { id: ID @primaryKey  timestamp: Date @indexed  speed: Any  heading: Int }
		type Unfit @table { id: ID @primaryKey  speed: String }
		type Required @table { id: ID @primaryKey  captain: String! }
		type Sealed @table @sealed { id: ID @primaryKey  mmsi: String }
		type Blurred @table { id: ID @primaryKey  timestamp: Date @indexed }`;
	/** @type {import('./support/component.mjs').Running} */
	let running;

	before(async () => {
		const targets = ['Fit', 'Unfit', 'Required', 'Sealed', 'Missing'];
		const tables = targets.map((targetTable) => ({ id: targetTable, table: 'positions', targetTable }));
		const blurred = { id: 'Blurred', table: 'positions', targetTable: 'Blurred', key: ['mmsi'] };
		const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables: [...tables, blurred] };
		running = await startComponent({
			config: { bigquery, sync: { pollInterval: 500 }, schema: { create: false } },
			schema: SCHEMA,
		});
	});
	after(() => running?.remove());

	test('is_used_as_it_is', async () => {
		const { harper } = running;
		await untilStatus(harper, 'Fit', ({ state, rows }) => state === 'idle' && rows >= 2_000, 'to be filled');
		assert.deepEqual(await attributesOf(harper, 'Fit'), { timestamp: 'Date!', speed: 'Any', heading: 'Int' });
	});

	for (const [table, reason] of Object.entries({
		Unfit: /attribute speed of the table Unfit is String, which does not take .* declare it as Int or Long or Float/,
		Required: /table Required requires the attribute captain, which the source does not have/,
		Sealed: /table Sealed is sealed and has no attribute vessel_name/,
		Missing: /table Missing is missing, and schema.create is false/,
		Blurred: /timestamp of the table Blurred is Date, which has no microseconds: .* declare it as String or Any/,
	})) {
		test(`is_refused_before_anything_is_written_when_${table}`, async () => {
			const { harper } = running;
			const { lastError } = await untilStatus(harper, table, (status) => status.lastError !== null, 'to fail');
			assert.equal(lastError.code, 'harper_table');
			assert.match(lastError.message, reason);
			const checkpoints = await harper.operation({
				operation: 'search_by_value',
				database: 'data',
				table: 'SyncCheckpoint',
				search_attribute: 'tableId',
				search_value: table,
				get_attributes: ['id'],
			});
			assert.deepEqual(checkpoints, []);
		});
	}
});
