/** What costs something although nothing happens: what is written, and what BigQuery is asked. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { VESSEL_SCHEMA, until, vesselPositions } from '../support/index.mjs';
import { PATIENCE_MS, readControl, startComponent, untilEqual } from './support/component.mjs';
import { DATASET, recent, startSource } from './support/source.mjs';

const TABLES = 20;
const THREADS = 3;
const POLL_MS = 5_000;
const OBSERVED_MS = 20_000;
const HOUR_MS = 3_600_000;
const BYTES_PER_HOUR_MAX = 1_000_000;
/** An entry of the audit log is the record and some more. */
const ENTRY_BYTES = 64;
const SYSTEM_TABLES = [
	'SyncCheckpoint',
	'SchemaVersion',
	'SchemaLock',
	'SyncAudit',
	'SyncControlState',
	'SyncNode',
	'SyncRoster',
	'SyncQuestion',
	'SyncReport',
	'SyncCounts',
	'SyncTarget',
];

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/component.mjs').Running} */
let running;

before(async () => {
	source = await startSource();
	const names = Array.from({ length: TABLES }, (_, number) => `table_${number}`);
	for (const name of names) await source.fill(name, VESSEL_SCHEMA, vesselPositions({ rows: 10 }));
	const bigquery = {
		...source.connection(),
		timestampColumn: 'timestamp',
		tables: names.map((table) => ({ table, partitionBy: 'timestamp' })),
	};
	running = await startComponent({ config: { bigquery, sync: { pollInterval: POLL_MS } }, threads: THREADS });
	const isIdle = async () => {
		const { tables, configurationErrors } = await readControl(running.harper);
		assert.deepEqual(configurationErrors, []);
		return tables.every(
			(/** @type {any} */ { workers }) =>
				workers.length === THREADS && workers.every((/** @type {any} */ { state }) => state === 'idle')
		);
	};
	await until(isIdle, { deadlineMs: PATIENCE_MS, everyMs: 500, what: 'all tables to rest' });
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

/** The bytes of what was written since, in the tables and in the audit log. @param {number} since */
async function writtenSince(since) {
	let bytes = 0;
	let entries = 0;
	for (const table of SYSTEM_TABLES) {
		const operation = { operation: 'read_audit_log', schema: 'data', table, search_type: 'timestamp' };
		const found = await running.harper.operation({ ...operation, search_values: [since] });
		for (const { records } of found) {
			entries += 1;
			// Once in the table, once in the audit log.
			bytes += 2 * (JSON.stringify(records ?? []).length + ENTRY_BYTES);
		}
	}
	return { bytes, entries };
}

test('an_idle_node_with_twenty_tables_writes_less_than_a_megabyte_an_hour', async (context) => {
	const measure = async () => {
		const since = Date.now();
		await sleep(OBSERVED_MS);
		const { bytes, entries } = await writtenSince(since);
		const perHour = Math.round((bytes * HOUR_MS) / (Date.now() - since));
		context.diagnostic(`${entries} records of ${bytes} bytes: ${perHour} bytes an hour`);
		assert.ok(entries > 0, 'signs of life were written');
		return perHour < BYTES_PER_HOUR_MAX;
	};
	// The last polls that had something to tell may come late on a busy machine.
	await until(measure, { deadlineMs: PATIENCE_MS, what: `less than ${BYTES_PER_HOUR_MAX} bytes an hour` });
});

test('three_threads_ask_bigquery_for_a_table_as_often_as_one_would', async (context) => {
	const from = source.proxy.requests().length;
	const started = performance.now();
	await sleep(OBSERVED_MS);
	const asked = source.proxy.requests().slice(from);
	const described = asked.filter(({ route }) => route === 'tables.get').length;
	const polls = (performance.now() - started) / POLL_MS;
	context.diagnostic(`${described} requests for ${TABLES} tables in ${polls.toFixed(1)} polls`);
	assert.ok(described > TABLES, 'the tables are polled');
	// Each thread by itself would make three times as many.
	assert.ok(described < 1.5 * TABLES * (polls + 1), `${described} requests`);
});

test('a_row_that_any_thread_has_to_read_comes_though_only_one_asks', async () => {
	const rows = recent(vesselPositions({ rows: 100, seed: 7 }), { agoMs: 60_000 });
	await source.bigquery.loadRows(DATASET, 'table_3', rows);
	await untilEqual({ source, harper: running.harper }, { table: 'table_3', target: 'Table3' });
});
