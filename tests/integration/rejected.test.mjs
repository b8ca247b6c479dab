/** Rows that Harper refuses, and a target that disappears: nothing else suffers, and no value is told. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { until } from '../support/index.mjs';
import {
	PATIENCE_MS,
	assertEqual,
	postControl,
	readControl,
	startComponent,
	untilStatus,
} from './support/component.mjs';
import { DATASET, recent, startSource } from './support/source.mjs';

/** More than the 32 bits of an Int. */
const SECRET = '98765432109';
const SCHEMA = [
	{ name: 'name', type: 'STRING' },
	{ name: 'measure', type: 'STRING' },
	{ name: 'timestamp', type: 'TIMESTAMP' },
];

const STRICT_SCHEMA = SCHEMA.map((field) => (field.name === 'measure' ? { ...field, type: 'INT64' } : field));

/** @type {import('./support/source.mjs').Source} */
let source;

/** @type {import('./support/component.mjs').Running} */
let running;

before(async () => {
	source = await startSource();
	const declared = (/** @type {string} */ name) =>
		`type ${name} @table { id: ID @primaryKey  measure: Int  name: String }`;
	running = await startComponent({
		threads: 2,
		config: { bigquery: { ...source.connection(), tables: [] } },
		schema: ['Strict', 'Spoilt'].map(declared).join('\n'),
	});
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

/**
 * Has Harper sync one table and nothing else, into a target of its own.
 * @param {string} table
 * @param {{bigquery?: object, limits?: object, audit?: object}} [more]
 */
async function sync(table, { bigquery: keys, ...sections } = {}) {
	const { harper, application } = running;
	const targetTable = table[0].toUpperCase() + table.slice(1);
	const bigquery = { ...source.connection(), table, timestampColumn: 'timestamp', targetTable, ...keys };
	application.configure({ bigquery, sync: { pollInterval: 500 }, retry: { initialDelay: 50 }, ...sections });
	if (!harper.isAlive()) await harper.start();
	const isAlone = async () => (await readControl(harper)).tables.map(({ id }) => id).join() === table;
	await until(isAlone, { deadlineMs: PATIENCE_MS, what: `the configuration of ${table}` });
	return harper;
}

test('rows_that_harper_refuses_are_audited_without_their_value_and_the_others_arrive', async () => {
	const rows = Array.from({ length: 50 }, (_, n) => ({ name: `n${n}`, measure: n % 20 === 7 ? SECRET : null }));
	await source.fill('strict', STRICT_SCHEMA, recent(rows, { agoMs: 60_000 }));
	const harper = await sync('strict', { bigquery: { key: ['name'] } });
	const status = await untilStatus(harper, 'strict', ({ rows: count }) => count === 47, 'to have the good rows');
	assert.equal(status.rejectedRows, 3);
	assert.equal(status.lastError, null);
	const audit = await harper.operation({
		operation: 'sql',
		sql: "SELECT * FROM data.SyncAudit WHERE tableId = 'strict'",
	});
	assert.deepEqual(audit.map(({ rowId }) => rowId).sort(), ['n27', 'n47', 'n7']);
	assert.ok(audit.every(({ reason }) => reason === 'Harper refused the value of measure'));
	assert.ok(!JSON.stringify(status).includes(SECRET));
	assert.ok(!(await harper.log()).includes(SECRET), 'the log tells a value');
});

test('a_table_with_too_many_refused_rows_stays_stopped_on_all_workers_until_it_is_started_by_hand', async () => {
	const rows = Array.from({ length: 50 }, (_, n) => ({ name: `n${n}`, measure: n % 20 === 7 ? SECRET : null }));
	await source.fill('spoilt', STRICT_SCHEMA, recent(rows, { agoMs: 60_000 }));
	const harper = await sync('spoilt', { limits: { maxRejectedRows: 2 } });
	const isGivenUp = async () => {
		const [{ workers, unread }] = (await readControl(harper)).tables;
		const codes = workers.map((/** @type {any} */ { state, lastError }) => `${state} ${lastError?.code}`);
		return unread && codes.length > 0 && codes.every((code) => code === 'failed too_many_rejected_rows');
	};
	const untilGivenUp = () => until(isGivenUp, { deadlineMs: PATIENCE_MS, what: 'all workers to give up' });
	await untilGivenUp();
	await harper.stop();
	await harper.start();
	await untilGivenUp();
	await postControl(harper, { action: 'start', table: 'spoilt' });
	const status = await untilStatus(harper, 'spoilt', ({ state }) => state === 'idle', 'to go on');
	assert.equal(status.rejectedRows, 3);
	await source.bigquery.loadRows(DATASET, 'spoilt', recent([{ name: 'new', measure: SECRET }], { agoMs: 3_000 }));
	const hasNews = ({ rejectedRows }) => rejectedRows === 4;
	await untilStatus(harper, 'spoilt', hasNews, 'to have refused one more row');
	// The late range is read again by each run.
	await harper.stop();
	await harper.start();
	const again = await untilStatus(harper, 'spoilt', ({ state }) => state === 'idle', 'to be read again');
	assert.equal(again.rejectedRows, 4);
});

test('entries_of_the_audit_are_removed_when_they_are_old', async () => {
	await source.fill('audited', SCHEMA, recent([{ name: 'n', measure: 'x' }], { agoMs: 60_000 }));
	const harper = await sync('audited', { audit: { retentionDays: 30 } });
	const daysAgo = (/** @type {number} */ days) => new Date(Date.now() - days * 86_400_000).toISOString();
	const entry = (/** @type {string} */ id, /** @type {string} */ at) => ({ id, tableId: 'audited', kind: 'x', at });
	const old = Array.from({ length: 250 }, (_, n) => entry(`old${n}`, daysAgo(31 + n)));
	const records = [...old, entry('young', daysAgo(29))];
	await harper.operation({ operation: 'insert', database: 'data', table: 'SyncAudit', records });
	await harper.stop();
	await harper.start();
	const ids = async () => {
		const found = await harper.operation({ operation: 'sql', sql: 'SELECT id FROM data.SyncAudit' });
		return found.map((/** @type {{id: string}} */ { id }) => id);
	};
	const isClean = async () => !(await ids()).some((id) => id.startsWith('old'));
	await until(isClean, { deadlineMs: PATIENCE_MS, what: 'old entries to be removed' });
	assert.ok((await ids()).includes('young'));
});

test('a_target_that_is_dropped_is_made_and_filled_again_at_the_next_poll', async () => {
	const table = 'dropped';
	const rows = Array.from({ length: 500 }, (_, n) => ({ name: `n${n}`, measure: 'x' }));
	await source.fill(table, SCHEMA, recent(rows, { agoMs: 60_000 }));
	const harper = await sync(table);
	const target = { database: 'data', table: 'Dropped' };
	const count = () =>
		harper.operation({ operation: 'describe_table', ...target, exact_count: true }).then(
			({ record_count: found }) => found,
			() => 0
		);
	const untilCount = (wanted, what) => until(async () => (await count()) === wanted, { deadlineMs: PATIENCE_MS, what });
	await untilStatus(harper, table, ({ state, rows: written }) => state === 'idle' && written === 500, 'to be filled');
	await harper.operation({ operation: 'drop_table', ...target });
	await untilCount(500, 'the target to be filled again though no row is new');
	await harper.operation({ operation: 'drop_table', ...target });
	await source.bigquery.loadRows(DATASET, table, recent([{ name: 'new', measure: 'x' }], { agoMs: 3_000 }));
	await untilCount(501, 'the target to be filled again, and with the new row');
	await assertEqual({ source, harper }, { table, target: 'Dropped' });
});
