/** Every type in real Harper: by default, in other forms, and with ids that are integers. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { ALL_TYPES_SCHEMA, VESSEL_SCHEMA, allTypes, duplicated, until, vesselPositions } from '../support/index.mjs';
import { PATIENCE_MS, startComponent, untilEqual, untilStatus } from './support/component.mjs';
import { DATASET, startSource } from './support/source.mjs';

const ROWS = 120;

/** Tells what JSON cannot: of which JavaScript type the values are that Harper holds. */
const INSPECT = {
	section: { jsResource: { files: 'inspect.js' } },
	files: {
		'inspect.js': `
			function told(value) {
				if (typeof value === 'bigint') return value + 'n';
				if (typeof value === 'string') return JSON.stringify(value);
				if (value instanceof Date) return 'Date ' + value.toISOString();
				if (value instanceof Uint8Array) return 'bytes ' + Buffer.from(value).toString('hex');
				if (Array.isArray(value)) return '[' + value.map(told).join() + ']';
				return value !== null && typeof value === 'object' ? JSON.stringify(value) : String(value);
			}
			export class Inspect extends Resource {
				static loadAsInstance = false;
				async get(target) {
					const [table, ...columns] = String(target.id ?? target).split(',');
					const rows = [];
					for await (const record of databases.data[table].search({ conditions: [] }))
						rows.push(columns.map((column) => told(record[column])));
					return rows;
				}
			}`,
	},
};

/** What the columns of all types are wanted as, and what becomes of a value of the samples. */
const CHOSEN = /** @type {Record<string, [string, (value: any) => string]>} */ ({
	ts: ['Date', (value) => `Date ${new Date(value).toISOString()}`],
	int64_value: ['BigInt', (value) => (BigInt(value) === 0n ? '0' : `${BigInt(value)}n`)],
	float64_value: ['String', (value) => `"${String(value).replace('e+', 'e')}"`],
	numeric_value: ['String', (value) => `"${value}"`],
	bignumeric_value: ['Float', (value) => String(Number(value))],
	bool_value: ['String', (value) => `"${value}"`],
	// The emulator takes the base64 text that it is given for the bytes themselves.
	bytes_value: ['Bytes', (value) => `bytes ${Buffer.from(value).toString('hex')}`],
	date_value: ['Date', (value) => `Date ${value}T00:00:00.000Z`],
	datetime_value: ['Date', (value) => `Date ${`${value}.000`.replace(/(\.\d{3})\d*.*/, '$1')}Z`],
	tags: ['String', (value) => JSON.stringify(JSON.stringify(value))],
	numbers: ['String', (value) => JSON.stringify(`[${value.join()}]`)],
	stops: ['String', (value) => JSON.stringify(JSON.stringify(value))],
	row_id: ['Long', (value) => String(value)],
});

const VERSIONS_SCHEMA = [
	{ name: 'name', type: 'STRING' },
	{ name: 'state', type: 'STRING' },
	{ name: 'timestamp', type: 'TIMESTAMP' },
];

const NUMBERED_SCHEMA = [{ name: 'id', type: 'INT64' }, ...VERSIONS_SCHEMA.slice(1)];

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/component.mjs').Running} */
let running;
/** @type {{source: import('./support/source.mjs').Source, harper: import('../support/index.mjs').HarperNode}} */
let sides;

/** A second that late rows may still belong to. */
const SECOND = new Date(Date.now() - 60_000).toISOString().slice(0, 19);

/** @param {string} fraction @param {string} state */
const version = (fraction, state, name = 'ship') => ({ name, state, timestamp: `${SECOND}.${fraction}Z` });

before(async () => {
	source = await startSource();
	const vessels = [...vesselPositions({ rows: 600, vessels: 50 })];
	await source.fill('types', ALL_TYPES_SCHEMA, allTypes({ rows: ROWS }));
	await source.fill('vessels', VESSEL_SCHEMA, vessels);
	await source.fill('copies', VESSEL_SCHEMA, duplicated(vessels.slice(0, 200), 3));
	await source.fill('versions', VERSIONS_SCHEMA, [version('123400', 'older'), version('123456', 'newer')]);
	const numbered = [7, -8, 0, '9007199254740992', '9007199254740993', null].map((id, n) => ({
		id,
		...version('5', `state ${n}`),
		name: undefined,
	}));
	await source.fill('numbered', NUMBERED_SCHEMA, numbered);
	const schemaOverrides = Object.fromEntries(Object.entries(CHOSEN).map(([column, [type]]) => [column, { type }]));
	const tables = [
		{ id: 'types', table: 'types', timestampColumn: 'ts' },
		{ id: 'chosen', table: 'types', timestampColumn: 'ts', targetTable: 'Chosen', schemaOverrides },
		{ id: 'copies', table: 'copies', idType: 'integer' },
		{ id: 'vessels', table: 'vessels', idType: 'integer', key: ['mmsi'] },
		{ id: 'numbered', table: 'numbered', idType: 'integer', key: ['id'] },
		{ id: 'versions', table: 'versions', key: ['name'], schemaOverrides: { timestamp: { type: 'Long' } } },
		{ id: 'declared', table: 'copies', targetTable: 'Declared', idType: 'integer' },
		{ id: 'senseless', table: 'copies', targetTable: 'Senseless', schemaOverrides: { speed: { type: 'Date' } } },
	];
	const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
	running = await startComponent({
		config: { bigquery, sync: { pollInterval: 500 }, ...INSPECT.section },
		form: 'application',
		files: INSPECT.files,
		schema: 'type Declared @table { id: ID @primaryKey }',
	});
	sides = { source, harper: running.harper };
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

/** @param {string} table @param {string[]} columns @returns {Promise<string[][]>} */
async function inspect(table, columns) {
	const response = await running.harper.request(`/Inspect/${[table, ...columns].join(',')}`);
	assert.equal(response.status, 200);
	return response.json();
}

/** @param {string} path */
async function read(path) {
	const response = await running.harper.request(path);
	assert.equal(response.status, 200, path);
	return response.json();
}

/** @param {string} id */
const untilIdle = (id) => untilStatus(running.harper, id, ({ state }) => state === 'idle', 'to rest');

test('all_types_are_equal_by_default', async () => {
	const counts = await untilEqual(sides, { table: 'types', target: 'Types', cursor: 'ts' });
	assert.equal(counts.targetRows, ROWS);
});

test('columns_are_stored_as_is_wanted', async () => {
	await untilIdle('chosen');
	const columns = Object.keys(CHOSEN);
	const stored = await inspect('Chosen', columns);
	const expected = [...allTypes({ rows: ROWS })].map((row) =>
		columns.map((column) => (row[column] === null ? 'null' : CHOSEN[column][1](row[column])))
	);
	const sorted = (/** @type {string[][]} */ rows) => rows.map((row) => row.join('\n')).sort();
	assert.deepEqual(sorted(stored), sorted(expected));
	assert.deepEqual(
		(await inspect('Chosen', ['id'])).sort(),
		(await inspect('Types', ['id'])).sort(),
		'ids do not depend on forms'
	);
});

test('identical_rows_have_integer_ids_of_their_own', async () => {
	const counts = await untilEqual(sides, { table: 'copies', target: 'Copies' });
	assert.equal(counts.targetRows, 600);
	const ids = (await inspect('Copies', ['id'])).map(([id]) => Number(id));
	assert.ok(ids.every((id) => Number.isSafeInteger(id) && id > 0));
	const sorted = ids.toSorted((one, other) => one - other);
	assert.equal((await read(`/Copies/${sorted[5]}`)).id, sorted[5]);
	assert.deepEqual(
		(await read(`/Copies/?id=ge=${sorted[10]}&id=lt=${sorted[20]}&select(id)`)).map(Number),
		sorted.slice(10, 20)
	);
	assert.equal((await read(`/Copies/?id=${sorted[7]}`)).length, 1);
});

test('newer_versions_find_the_integer_id_of_older_ones', async () => {
	const table = { table: 'vessels', target: 'Vessels', key: ['mmsi'] };
	assert.equal((await untilEqual(sides, table)).targetRows, 50);
	const rows = [...vesselPositions({ rows: 100, vessels: 60, seed: 3 })];
	const later = rows.map((row, n) => ({ ...row, timestamp: new Date(Date.now() - 60_000 + n).toISOString() }));
	await source.bigquery.loadRows(DATASET, 'vessels', later);
	const keys = new Set([...vesselPositions({ rows: 600, vessels: 50 }), ...later].map(({ mmsi }) => mmsi));
	assert.equal((await untilEqual(sides, table)).targetRows, keys.size);
});

test('an_integer_column_id_is_the_id_itself_and_what_cannot_be_one_is_audited', async () => {
	const status = await untilIdle('numbered');
	assert.equal(status.rejectedRows, 3);
	const records = await inspect('Numbered', ['id', 'state']);
	assert.deepEqual(records.sort(), [
		['-8', '"state 1"'],
		['7', '"state 0"'],
		['9007199254740992', '"state 3"'],
	]);
	const audit = await running.harper.operation({ operation: 'sql', sql: 'SELECT * FROM data.SyncAudit' });
	const reasons = audit.filter((/** @type {any} */ { tableId }) => tableId === 'numbered');
	assert.equal(reasons.length, 3);
	assert.ok(reasons.every((/** @type {any} */ { reason }) => reason.startsWith('the value of id cannot be read as')));
});

test('a_cursor_stored_as_microseconds_tells_versions_of_one_millisecond_apart', async () => {
	const current = () => inspect('Versions', ['name', 'state', 'timestamp']);
	await untilIdle('versions');
	const ship = ['"ship"', '"newer"', `${Date.parse(`${SECOND}Z`) * 1000 + 123_456}`];
	assert.deepEqual(await current(), [ship]);
	// The first is a microsecond too old; the stranger tells when it has been read.
	await source.bigquery.loadRows(DATASET, 'versions', [version('123455', 'late'), version('123455', 'x', 'stranger')]);
	await until(async () => (await current()).length === 2, { deadlineMs: PATIENCE_MS, what: 'the late rows' });
	assert.deepEqual((await current()).sort()[0], ship);
});

test('what_does_not_fit_stops_the_table_with_a_reason', async () => {
	const declared = await untilStatus(running.harper, 'declared', ({ lastError }) => lastError !== null, 'to fail');
	assert.equal(declared.lastError.code, 'harper_table');
	assert.match(declared.lastError.message, /primary key of the table Declared is ID, .* declare it as Long/);
	const senseless = await untilStatus(running.harper, 'senseless', ({ state }) => state === 'failed', 'to fail');
	assert.equal(senseless.lastError.code, 'configuration');
	assert.match(senseless.lastError.message, /column speed as Date; it is FLOAT64, which can be stored as Int, Long/);
});
