/** Columns that come, go and change while a table is in sync: nothing is lost, nothing is doubled, nothing restarts. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { ALL_TYPES_SCHEMA, allTypes, until } from '../support/index.mjs';
import { PATIENCE_MS, problemsIn, readControl, startComponent, untilStatus } from './support/component.mjs';
import { DATASET, startSource } from './support/source.mjs';

/** @typedef {import('../support/index.mjs').HarperNode} HarperNode */

const LATENESS_S = 86_400;
const EVENTS = [
	{ name: 'timestamp', type: 'TIMESTAMP' },
	{ name: 'name', type: 'STRING' },
	{ name: 'n', type: 'INTEGER' },
	{ name: 'doomed', type: 'STRING' },
	{ name: 'place', type: 'RECORD', fields: [{ name: 'port', type: 'STRING' }] },
];
const SHIPS = [
	{ name: 'timestamp', type: 'TIMESTAMP' },
	{ name: 'ship_id', type: 'STRING' },
	{ name: 'captain', type: 'STRING' },
	{ name: 'speed', type: 'FLOAT' },
];

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/component.mjs').Running} */
let running;
/** @type {HarperNode} */
let harper;
/** Milliseconds since 1970 of the next row; all rows are read again and again, for a day is the late range. */
let next_ms = Date.now() - 120_000;

/** @param {string} sql */
const alter = (sql) => source.bigquery.query(sql);

/** Makes a table anew from its own rows, with a column replaced. @param {string} table @param {string} replacement */
const remake = (table, replacement) => {
	const name = `\`${DATASET}.${table}\``;
	return source.bigquery.query(`CREATE OR REPLACE TABLE ${name} AS SELECT * REPLACE (${replacement}) FROM ${name}`);
};

/** Rows that differ in their cursors; those with a `copy` are alike but for that. @param {Record<string, any>[]} rows */
const timed = (rows) =>
	rows.map(({ copy, ...row }) => {
		if (!copy) next_ms += 250;
		return { timestamp: new Date(next_ms).toISOString(), ...row };
	});

/** @param {string} table @param {Record<string, any>[]} rows */
const load = (table, rows) => source.bigquery.loadRows(DATASET, table, timed(rows));

/** @param {string} table @returns {Promise<any[]>} In the order of time. */
async function recordsOf(table) {
	const search = { search_attribute: 'id', search_value: '*', get_attributes: ['*'] };
	const found = await harper.operation({ operation: 'search_by_value', database: 'data', table, ...search });
	return found.sort((/** @type {any} */ one, /** @type {any} */ other) => (one.id < other.id ? -1 : 1));
}

/** @param {string} table @param {(records: any[]) => boolean} condition @param {string} what */
async function untilRecords(table, condition, what) {
	/** @type {any[]} */
	let records = [];
	const fulfilled = async () => condition((records = await recordsOf(table)));
	await until(fulfilled, { deadlineMs: PATIENCE_MS, what }).catch((error) => {
		throw new Error(`${error.message}\n${JSON.stringify(records)}\n${problemsIn(harper)}`, { cause: error });
	});
	return records;
}

/** Has the late range read again, and then finds as many records as the source has rows. */
async function readAgain() {
	for (const name of ['tick', 'tock']) {
		await load('events', [{ name }]);
		const [{ expected }] = await source.bigquery.query(`SELECT COUNT(*) AS expected FROM \`${DATASET}.events\``);
		const records = await untilRecords('Events', (all) => all.length >= expected, `${expected} events`);
		assert.equal(records.length, expected);
	}
}

/** @param {string} kind @param {string} tableId */
async function auditsOf(kind, tableId) {
	const conditions = [
		{ search_attribute: 'kind', search_type: 'equals', search_value: kind },
		{ search_attribute: 'tableId', search_type: 'equals', search_value: tableId },
	];
	const search = { operation: 'search_by_conditions', database: 'data', table: 'SyncAudit', get_attributes: ['*'] };
	return (await harper.operation({ ...search, conditions })).map((/** @type {any} */ { reason }) => reason);
}

/** @param {string} table */
async function typesOf(table) {
	const { attributes } = await harper.tableOperation({ operation: 'describe_table', database: 'data', table });
	return Object.fromEntries(attributes.map((/** @type {any} */ one) => [one.attribute, one.type]));
}

before(async () => {
	source = await startSource();
	await source.fill('events', EVENTS, [
		...timed([1, 2, 3, 4].map((n) => ({ name: `e${n}`, n, doomed: `d${n}`, place: { port: 'Rostock' } }))),
		// Alike but for what will be gone.
		...timed([{ name: 'twin', n: 5, doomed: 'left' }]),
		...timed([{ copy: true, name: 'twin', n: 5, doomed: 'right' }]),
		...timed([{ copy: true, name: 'twin', n: 5, doomed: 'right' }]),
	]);
	await source.fill('ships', SHIPS, timed([{ ship_id: 's1', captain: 'Ann', speed: 1.5 }]));
	await source.fill('lost', SHIPS, timed([{ ship_id: 's1', captain: 'Ann', speed: 1.5 }]));
	const at = (/** @type {number} */ index) => new Date(Date.now() - 60_000 + Math.floor(index / 3)).toISOString();
	const types = [...allTypes({ rows: 200 })].map((row, index) => ({ ...row, ts: at(index) }));
	await source.fill('types', ALL_TYPES_SCHEMA, types);
	const schemaOverrides = {
		date_value: { type: 'Date' },
		bytes_value: { type: 'Bytes' },
		int64_value: { type: 'BigInt' },
	};
	const tables = [
		{ table: 'events' },
		{ table: 'types', timestampColumn: 'ts', schemaOverrides },
		{ table: 'ships', key: ['ship_id'], columns: ['captain', 'speed'] },
		{ table: 'lost', key: ['ship_id'] },
	];
	const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
	running = await startComponent({
		config: { bigquery, sync: { pollInterval: 300, lateness: LATENESS_S }, schema: { pollMin: 1, pollMax: 2 } },
	});
	harper = running.harper;
	await untilRecords('Events', (records) => records.length === 7, 'the first seven events');
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

describe('a table without key', () => {
	/** With the ids of before. @type {any[]} */
	let former;

	test('gets_a_new_column_in_the_middle_of_everything', async () => {
		const ids = (await recordsOf('Events')).map(({ id }) => id);
		await alter(`ALTER TABLE \`${DATASET}.events\` ADD COLUMN depth FLOAT64`);
		await load('events', [{ name: 'deep', n: 6, doomed: 'd6', depth: 12.5 }]);
		const records = await untilRecords('Events', (all) => all.some(({ depth }) => depth === 12.5), 'the new column');
		await readAgain();
		// Rows that were read again under the new schema are the same rows.
		assert.deepEqual(records.map(({ id }) => id).slice(0, 7), ids);
		assert.equal((await typesOf('Events')).depth, 'Float');
	});

	test('gets_new_fields_of_a_record', async () => {
		const grown = 'STRUCT(place.port AS port, CAST(NULL AS INT64) AS berth)';
		await remake('events', `IF(place IS NULL, NULL, ${grown}) AS place`);
		await load('events', [{ name: 'berthed', n: 7, doomed: 'd7', place: { port: 'Kiel', berth: 3 } }]);
		const all = await untilRecords('Events', (records) => records.some(({ place }) => place?.berth === 3), 'the field');
		await readAgain();
		assert.equal(all.filter(({ place }) => place?.port === 'Rostock').length, 4);
	});

	test('keeps_old_values_of_a_column_that_is_dropped_and_doubles_nothing', async () => {
		former = await recordsOf('Events');
		await alter(`ALTER TABLE \`${DATASET}.events\` DROP COLUMN doomed`);
		await load('events', [{ name: 'after', n: 8 }]);
		await untilRecords('Events', (records) => records.some(({ name }) => name === 'after'), 'the row without it');
		await readAgain();
		const records = await recordsOf('Events');
		const kept = records.filter(({ doomed }) => doomed).map(({ name, doomed }) => `${name} ${doomed}`);
		const twins = ['twin left', 'twin right', 'twin right'];
		assert.deepEqual(kept.sort(), ['berthed d7', 'deep d6', 'e1 d1', 'e2 d2', 'e3 d3', 'e4 d4', ...twins]);
		const { warning } = await untilStatus(harper, 'events', ({ state }) => state === 'idle', 'to rest');
		assert.match(warning, /column doomed is no longer read: the attribute doomed keeps its values/);
		assert.match((await auditsOf('schema_changed', 'events')).join('\n'), /doomed is gone from the source/);
	});

	test('writes_a_column_of_another_type_to_an_attribute_of_its_own', async () => {
		await remake('events', 'CAST(n AS STRING) AS n');
		await load('events', [{ name: 'worded', n: 'nine' }]);
		await untilRecords('Events', (records) => records.some(({ n_v2 }) => n_v2 === 'nine'), 'the new attribute');
		await readAgain();
		const records = await recordsOf('Events');
		assert.deepEqual(
			records.filter(({ name }) => name === 'e1').map(({ n, n_v2, doomed }) => ({ n, n_v2, doomed })),
			[{ n: 1, n_v2: '1', doomed: 'd1' }]
		);
		assert.equal((await typesOf('Events')).n_v2, 'String');
		const { warning } = await untilStatus(harper, 'events', ({ state }) => state === 'idle', 'to rest');
		assert.match(warning, /column n is STRING now: its values go to n_v2, and n keeps the old ones/);
		await remake('events', 'CAST(n AS BYTES) AS n');
		await load('events', [{ name: 'bytes' }]);
		await untilRecords('Events', (all) => all.some(({ n_v3 }) => n_v3 === 'MQ=='), 'a third attribute');
		await readAgain();
	});

	test('reads_late_rows_after_all_of_that_and_after_the_process_was_killed', async () => {
		await harper.kill();
		const agoMs = 100_000;
		const late = { timestamp: new Date(next_ms - agoMs).toISOString(), name: 'late' };
		await source.bigquery.loadRows(DATASET, 'events', [late]);
		await harper.start();
		await untilRecords('Events', (records) => records.some(({ name }) => name === 'late'), 'the late row');
		await readAgain();
	});

	test('has_each_row_once_after_a_node_was_removed_while_it_gave_rows_other_ids', async () => {
		const put = (/** @type {string} */ table, /** @type {any} */ record) =>
			harper.operation({ operation: 'upsert', database: 'data', table, records: [record] });
		const { id, timestamp, name, n, doomed, place } = former[0];
		await put('Events', { id, timestamp, name, n, doomed, place });
		const rows = (await recordsOf('Events')).length;
		await load('events', [{ name: 'usual' }]);
		// What is read again in the usual way does not tell that one is there twice.
		const doubled = await untilRecords('Events', (all) => all.some((one) => one.name === 'usual'), 'a new row');
		assert.equal(doubled.length, rows + 1);
		await put('SyncNode', { id: 'gone', workers: 1, beat: 1, removed: true });
		const head = { number: 0, rows: { totalRows: 0, from: 0, to: 0 }, result: 0, began: 0 };
		const mending = { number: 1, after: null };
		await put('SyncBatch', { id: 'events:gone-0', tableId: 'events', owner: 'gone-0', ...head, mending });
		const records = await untilRecords('Events', (all) => all.length <= rows, 'the former id to go');
		assert.ok(!records.some((one) => one.id === id));
		await readAgain();
	});

	test('has_a_history_of_its_schema', async () => {
		const search = { search_attribute: 'tableId', search_value: 'events', get_attributes: ['*'] };
		const versions = await harper.operation({
			operation: 'search_by_value',
			database: 'data',
			table: 'SchemaVersion',
			...search,
		});
		versions.sort((/** @type {any} */ one, /** @type {any} */ other) => one.version - other.version);
		const kinds = versions.map(({ changes }) => changes.map((/** @type {any} */ { kind }) => kind).join());
		assert.deepEqual(kinds, ['', 'added', 'field_added', 'removed', 'type_changed', 'type_changed']);
		assert.equal(new Set(versions.map(({ fingerprint }) => fingerprint)).size, 6);
		assert.ok(versions.every(({ at, by }) => Date.parse(at) > 0 && by.length > 0));
	});
});

describe('a table of all types', () => {
	test('has_each_row_once_after_a_column_is_gone', async () => {
		await untilRecords('Types', (records) => records.length === 200, 'the rows');
		await alter(`ALTER TABLE \`${DATASET}.types\` DROP COLUMN row_id`);
		const [row] = allTypes({ rows: 1 });
		await source.bigquery.loadRows(DATASET, 'types', [{ ...row, row_id: undefined, ts: new Date().toISOString() }]);
		const isRenewed = (/** @type {any} */ { id }) => id.endsWith('~1');
		const records = await untilRecords('Types', (all) => all.filter(isRenewed).length >= 201, 'rows with new ids');
		assert.equal(records.length, 201);
		const kept = records.map(({ row_id }) => row_id).filter((id) => id !== undefined && id !== null);
		assert.equal(new Set(kept).size, 200);
	});
});

describe('a table with a key', () => {
	test('keeps_old_values_when_a_listed_column_is_gone_and_rows_change', async () => {
		await alter(`ALTER TABLE \`${DATASET}.ships\` DROP COLUMN captain`);
		await load('ships', [
			{ ship_id: 's1', speed: 9.5 },
			{ ship_id: 's2', speed: 2.5 },
		]);
		const records = await untilRecords('Ships', (all) => all.some(({ speed }) => speed === 9.5), 'the newer version');
		const seen = records.map(({ id, captain, speed }) => ({ id, captain, speed }));
		assert.deepEqual(seen, [
			{ id: 's1', captain: 'Ann', speed: 9.5 },
			{ id: 's2', captain: undefined, speed: 2.5 },
		]);
	});

	test('stops_when_its_cursor_is_gone_while_others_go_on', async () => {
		await alter(`ALTER TABLE \`${DATASET}.lost\` RENAME COLUMN timestamp TO seen_at`);
		const { lastError, state } = await untilStatus(harper, 'lost', ({ lastError }) => lastError !== null, 'to stop');
		assert.equal(state, 'blocked');
		assert.equal(lastError.code, 'column_missing');
		assert.match(lastError.message, /column timestamp, which tells rows apart, is gone from the source/);
		await load('ships', [{ ship_id: 's3', speed: 3.5 }]);
		await untilRecords('Ships', (all) => all.length === 3, 'another ship');
		const { tables } = await readControl(harper);
		assert.equal(tables.find((/** @type {any} */ { id }) => id === 'ships').workers[0].lastError, null);
		await alter(`ALTER TABLE \`${DATASET}.lost\` RENAME COLUMN seen_at TO timestamp`);
		await untilStatus(harper, 'lost', ({ state: now }) => now === 'idle', 'to go on');
	});

	test('stops_when_its_key_changes_its_type', async () => {
		await remake('lost', 'CAST(ship_id AS BYTES) AS ship_id');
		const { lastError } = await untilStatus(harper, 'lost', (status) => status.lastError !== null, 'to stop');
		assert.equal(lastError.code, 'schema_changed');
		assert.match(lastError.message, /column ship_id, which tells rows apart, has changed from STRING to BYTES/);
	});
});
