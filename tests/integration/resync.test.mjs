/** Tables that are read again on command: what is gone from the source goes, and nothing else does. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { VESSEL_SCHEMA, duplicated, until, vesselPositions } from '../support/index.mjs';
import {
	PATIENCE_MS,
	assertEqual,
	postControl,
	readControl,
	startComponent,
	untilAllRest,
	untilEqual,
	untilStatus,
} from './support/component.mjs';
import { endAndStart, rationPages } from './support/endings.mjs';
import { resync, resyncOf, untilResynced } from './support/resync.mjs';
import { DATASET, startSource } from './support/source.mjs';
import { IN_HASTE, auditOf, idsOf, targetOf, upsert, validationOf } from './support/validation.mjs';

const ROWS = 6_000;
const DAYS = 10;
const VESSEL_KEY = ['mmsi'];
const POSITION_KEY = ['mmsi', 'timestamp'];
const FROM = '2024-01-06T00:00:00Z';
const POLL_MS = 500;

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/component.mjs').Running} */
let running;
/** @type {any[]} */
const tables = [
	{ table: 'plain', key: [] },
	{ table: 'divided', key: [] },
	{ table: 'numbered', key: [], idType: 'integer' },
	{ table: 'vessels', key: VESSEL_KEY },
	{ table: 'pairs', key: POSITION_KEY },
	{ table: 'since', key: [] },
	{ table: 'emptied', key: [] },
	{ table: 'rekeyed', key: [] },
	{ table: 'unkeyed', key: VESSEL_KEY },
	{ table: 'cut', key: [], idType: 'integer' },
	{ table: 'retyped', key: VESSEL_KEY },
	{ table: 'checked', key: [] },
	{ table: 'other', key: [] },
];

const configuration = (/** @type {any[]} */ list) => ({
	bigquery: { ...source.connection(), timestampColumn: 'timestamp', tables: list },
	sync: { pollInterval: POLL_MS, lateness: 60 },
	retry: { initialDelay: 50 },
});

before(async () => {
	source = await startSource();
	source.proxy.maintainsModification = true;
	const byDay = { timePartitioning: { type: 'DAY', field: 'timestamp' } };
	for (const [seed, { table }] of tables.entries()) {
		const more = table === 'divided' || table === 'pairs' ? byDay : {};
		await source.fill(table, VESSEL_SCHEMA, vesselPositions({ rows: ROWS, days: DAYS, seed }), more);
	}
	await source.bigquery.loadRows(DATASET, 'plain', duplicated(vesselPositions({ rows: 100, seed: 99 }), 3));
	running = await startComponent({ config: configuration(tables), threads: 3, env: IN_HASTE });
	for (const { table } of tables) await untilAllRest(running.harper, table);
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

/** Deletes rows of the source. @param {string} table @param {string} where */
const removeFromSource = (table, where) => source.bigquery.query(`DELETE FROM ${DATASET}.${table} WHERE ${where}`);

/** @param {string} table @param {string[]} [key] */
const check = (table, key) => assertEqual({ source, harper: running.harper }, { table, target: targetOf(table), key });

for (const { table, key } of tables.slice(0, 5)) {
	test(`rows_that_are_gone_from_the_source_go_and_all_others_stay_${table}`, async () => {
		const { harper } = running;
		const before = (await idsOf(harper, table)).length;
		// The last rows of all are among them.
		await removeFromSource(table, `CAST(mmsi AS INT64) < 200000040 OR timestamp > '2024-01-10 20:00:00'`);
		await upsert(harper, table, [{ id: table === 'numbered' ? 7 : 'mine', mmsi: 'mine' }]);
		const { text, rowsRead, removed } = await resync(harper, table);
		const keyColumns = key.length > 0 ? key : undefined;
		const { targetRows } = await check(table, keyColumns);
		assert.ok(targetRows > 0 && targetRows < before, `${before} rows before, ${targetRows} now`);
		assert.equal(removed, before + 1 - targetRows);
		assert.ok(rowsRead >= targetRows);
		assert.match(
			text,
			/^[\d,]+ rows were read again, and \d+ that are no longer in the source were removed; .* billed$/
		);
		const kinds = ['resync_begun', 'resync_ended', 'resync_refused'];
		const entries = await Promise.all(kinds.map((kind) => auditOf(harper, table, kind)));
		// Where the newest versions of some keys are gone, older ones take their place in a second round.
		const rounds = table === 'vessels' ? 2 : 1;
		assert.deepEqual([entries[0].length, entries[1].length, entries[2].length], [rounds, rounds, 0]);
		const last = entries[1].sort((one, other) => (one.at < other.at ? 1 : -1))[0];
		assert.match(last.reason, new RegExp(`removed ${removed} rows`));
	});
}

test('rows_that_come_meanwhile_and_afterwards_are_there', async () => {
	const { harper } = running;
	const [row] = vesselPositions({ rows: 1, start: '2024-02-01T00:00:00Z' });
	await postControl(harper, { action: 'resync', table: 'divided' });
	await source.bigquery.loadRows(DATASET, 'divided', [row]);
	await untilResynced(harper, 'divided');
	await source.bigquery.loadRows(DATASET, 'divided', [{ ...row, timestamp: '2024-02-02T00:00:00Z' }]);
	await untilEqual({ source, harper }, { table: 'divided', target: 'Divided' });
});

test('from_a_time_on_nothing_before_is_read_or_removed', async () => {
	const { harper } = running;
	const before = (await idsOf(harper, 'since')).length;
	await removeFromSource('since', `CAST(mmsi AS INT64) < 200000100`);
	const { rowsRead, removed, text, from } = await resync(harper, 'since', { from: FROM });
	assert.equal(Date.parse(from), Date.parse(FROM));
	assert.ok(rowsRead < ROWS * 0.6, text);
	const expected = await source.bigquery.query(
		`SELECT mmsi FROM ${DATASET}.since WHERE timestamp >= '2024-01-06 00:00:00'`
	);
	const stored = await harper.operation({
		operation: 'sql',
		sql: `SELECT id FROM data.Since WHERE timestamp >= '2024-01-06T00:00:00.000000Z'`,
	});
	assert.equal(stored.length, expected.length);
	assert.equal((await idsOf(harper, 'since')).length, before - removed);
	assert.ok(removed > 0);
	await resync(harper, 'since');
	await check('since');
});

test('of_a_source_without_rows_nothing_is_removed', async () => {
	const { harper } = running;
	const before = (await idsOf(harper, 'emptied')).length;
	await removeFromSource('emptied', 'TRUE');
	const { text } = await resync(harper, 'emptied', { state: 'refused' });
	assert.match(text, /nothing was removed/);
	assert.equal((await idsOf(harper, 'emptied')).length, before);
	assert.equal((await auditOf(harper, 'emptied', 'resync_refused')).length, 1);
	const { alarms } = await readControl(harper);
	assert.match(JSON.stringify(alarms), /emptied: .*nothing was removed/);
});

test('repair_mends_a_difference_at_first_sight', async () => {
	const { harper } = running;
	const ids = await idsOf(harper, 'checked');
	await harper.operation({ operation: 'delete', database: 'data', table: 'Checked', ids: ids.slice(10, 60) });
	await postControl(harper, { action: 'repair', table: 'checked' });
	const seen = new Set();
	const isEqual = async () => {
		const validation = await validationOf(harper, 'checked');
		seen.add(validation?.state);
		return validation?.state === 'equal';
	};
	await until(isEqual, { deadlineMs: PATIENCE_MS, everyMs: 50, what: 'the copy to be equal' });
	assert.ok(!seen.has('suspected'), [...seen].join());
	await check('checked');
	assert.equal((await auditOf(harper, 'checked', 'validation_repaired')).length, 1);
});

for (const [table, changes] of /** @type {[string, string[]][]} */ ([
	['cut', ['DROP COLUMN heading']],
	['retyped', ['ALTER COLUMN mmsi SET DATA TYPE INT64']],
])) {
	test(`columns_that_no_longer_tell_rows_as_before_are_followed_${table}`, async () => {
		const { harper } = running;
		for (const change of changes) await source.bigquery.query(`ALTER TABLE \`${DATASET}.${table}\` ${change}`);
		const isRefused = ({ lastError }) => lastError?.code === 'schema_changed';
		const { lastError } = await untilStatus(harper, table, isRefused, 'to be blocked');
		assert.match(lastError.message, /"action": "resync"/);
		await resync(harper, table);
		await untilStatus(harper, table, ({ state, lastError: left }) => state === 'idle' && left === null, 'to rest');
		const rows = await source.bigquery.query(
			table === 'cut' ? `SELECT mmsi FROM ${DATASET}.cut` : `SELECT DISTINCT mmsi FROM ${DATASET}.retyped`
		);
		assert.equal((await idsOf(harper, table)).length, rows.length);
	});
}

describe('after a change of the configuration', () => {
	before(async () => {
		const changed = tables.map((table) => {
			if (table.table === 'rekeyed') return { ...table, key: VESSEL_KEY };
			return table.table === 'unkeyed' ? { ...table, key: [] } : table;
		});
		running.application.configure(configuration(changed));
	});

	for (const [table, key] of /** @type {[string, string[] | undefined][]} */ ([
		['rekeyed', VESSEL_KEY],
		['unkeyed', undefined],
	])) {
		test(`a_table_with_another_key_gets_other_ids_and_the_former_ones_go_${table}`, async () => {
			const { harper } = running;
			const former = await idsOf(harper, table);
			const { lastError } = await untilStatus(harper, table, ({ state }) => state === 'failed', 'to give up');
			assert.equal(lastError.code, 'checkpoint_mismatch');
			assert.match(lastError.message, /"action": "resync"/);
			await resync(harper, table);
			await untilStatus(harper, table, ({ state }) => state === 'idle', 'to rest');
			await check(table, key);
			const ids = new Set(await idsOf(harper, table));
			assert.ok(former.every((id) => !ids.has(id)));
		});
	}
});

describe('in the middle of reading a table again', () => {
	for (const ending of /** @type {const} */ (['SIGKILL', 'SIGTERM'])) {
		test(`an_end_loses_nothing_and_what_is_gone_goes_${ending}`, async () => {
			const { harper } = running;
			await removeFromSource('other', `CAST(mmsi AS INT64) < ${ending === 'SIGKILL' ? 200000050 : 200000100}`);
			const config = configuration([{ table: 'other', batchSize: 500 }]);
			running.application.configure(config);
			await untilAllRest(harper, 'other');
			const ration = rationPages(source, { pages: 4 });
			await postControl(harper, { action: 'resync', table: 'other' });
			const isUnderWay = async () => {
				const { state, rowsRead } = (await resyncOf(harper, 'other')) ?? {};
				return state === 'reading' && rowsRead > 0;
			};
			await until(isUnderWay, { deadlineMs: PATIENCE_MS, everyMs: 50, what: 'some rows to be read again' });
			const before = (await idsOf(harper, 'other')).length;
			await endAndStart(harper, ending);
			assert.equal((await idsOf(harper, 'other')).length, before, 'nothing is taken away meanwhile');
			ration.remove();
			const { removed } = await untilResynced(harper, 'other');
			assert.ok(removed > 0);
			await check('other');
		});
	}
});
