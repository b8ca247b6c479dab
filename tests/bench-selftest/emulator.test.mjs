import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import {
	ALL_TYPES_SCHEMA,
	VESSEL_SCHEMA,
	allTypes,
	bigQueryClient,
	duplicated,
	emulatorUrl,
	startEmulator,
	tiedPositions,
	until,
	vesselPositions,
} from '../support/index.mjs';

/** @type {import('../support/emulator.mjs').Emulator} */
let emulator;
/** @type {import('../support/bigquery.mjs').BigQueryClient} */
let client;
const dataset = `emulator_${process.pid}`;

before(async () => {
	emulator = await startEmulator();
	client = bigQueryClient(emulator);
	await client.createDataset(dataset);
});

after(async () => emulator?.stop());

test('a_table_can_be_created_loaded_and_queried', async () => {
	const timePartitioning = { type: 'DAY', field: 'timestamp' };
	const definition = { schema: VESSEL_SCHEMA, timePartitioning, clustering: ['mmsi'], primaryKey: ['mmsi'] };
	await client.createTable(dataset, 'positions', definition);
	assert.equal(await client.loadRows(dataset, 'positions', vesselPositions({ rows: 30_000 })), 30_000);
	const table = await client.getTable(dataset, 'positions');
	assert.deepEqual(table.tableConstraints.primaryKey.columns, ['mmsi']);
	assert.deepEqual([table.numRows, table.timePartitioning.field], ['30000', 'timestamp']);
	const [row] = await client.query(`SELECT COUNT(*) AS n, COUNT(DISTINCT mmsi) AS v FROM ${dataset}.positions`);
	assert.deepEqual(row, { n: 30_000, v: 500 });
	let read = 0;
	for await (const page of client.readAll(dataset, 'positions', { pageRows: 7000 })) read += page.rows.length;
	assert.equal(read, 30_000);
});

test('ties_duplicates_and_all_types_arrive_as_made', async () => {
	await client.createTable(dataset, 'ties', { schema: VESSEL_SCHEMA });
	await client.loadRows(dataset, 'ties', duplicated(tiedPositions({ rows: 100, perSecond: 10 }), 3));
	const sql = `SELECT timestamp, COUNT(*) AS n FROM ${dataset}.ties GROUP BY timestamp`;
	assert.deepEqual(new Set((await client.query(sql)).map((row) => row.n)), new Set([30]));
	await client.createTable(dataset, 'types', { schema: ALL_TYPES_SCHEMA });
	await client.loadRows(dataset, 'types', allTypes({ rows: 60 }));
	const rows = await client.query(`SELECT * FROM ${dataset}.types ORDER BY row_id`);
	assert.equal(rows.length, 60);
	assert.deepEqual(rows[4].int64_value, 9223372036854775807n);
	assert.deepEqual(rows[1].numeric_value, 1.5);
	assert.deepEqual(rows[3].numeric_value, '-12345678901234567890.123456789');
	assert.deepEqual(rows[2].string_value, 'Zürich 東京 🚢');
	assert.deepEqual(rows[0].json_value, { a: 1, b: [1, 'two', null, { c: true }] });
	assert.equal(rows[1].ts, '2024-01-01T00:00:37.000001Z');
});

test('streamed_rows_are_there_and_refusals_carry_status_and_reason', async () => {
	await client.createTable(dataset, 'streamed', { schema: [{ name: 'a', type: 'INT64' }] });
	await client.insertAll(dataset, 'streamed', [{ a: 9007199254740993n }]);
	assert.deepEqual(await client.query(`SELECT a FROM ${dataset}.streamed`), [{ a: 9007199254740993n }]);
	await assert.rejects(client.insertAll(dataset, 'streamed', [{ b: 1 }]), { reason: 'invalid' });
	await assert.rejects(client.getTable(dataset, 'absent'), { status: 404, reason: 'notFound' });
	await assert.rejects(client.query('SELEC 1'), { status: 400, reason: 'invalidQuery' });
});

test('a_taken_port_is_named', { skip: Boolean(process.env.BIGQUERY_EMULATOR_HOST) }, async () => {
	const port = Number(new URL(emulator.url).port);
	await assert.rejects(startEmulator({ port }), { code: 'PORT_TAKEN' });
});

test('an_emulator_host_may_be_written_in_three_ways', () => {
	for (const host of ['localhost:9050', 'http://localhost:9050', 'http://localhost:9050/bigquery/v2']) {
		assert.equal(emulatorUrl(host), 'http://localhost:9050');
	}
});

test('nothing_outlives_a_killed_test_process', { skip: Boolean(process.env.BIGQUERY_EMULATOR_HOST) }, async () => {
	const support = fileURLToPath(new URL('../support/index.mjs', import.meta.url));
	const script = `const { startEmulator } = await import(${JSON.stringify(support)});
		const { pid, url } = await startEmulator();
		console.log(JSON.stringify({ pid, url }));
		setInterval(() => {}, 1000);`;
	const child = execFile(process.execPath, ['--input-type=module', '-e', script]);
	let text = '';
	child.stdout?.on('data', (data) => (text += data));
	const { url } = JSON.parse(
		await until(() => text.includes('\n') && text, { deadlineMs: 240_000, what: 'the child' })
	);
	assert.ok((await fetch(`${url}/bigquery/v2/projects/test-project/datasets`)).ok);
	child.kill('SIGKILL');
	const gone = () =>
		fetch(url).then(
			() => false,
			() => true
		);
	assert.ok(await until(gone, { deadlineMs: 240_000, what: 'the end of the orphan' }));
});
