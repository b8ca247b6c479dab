import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { FAULT, VESSEL_SCHEMA, until, vesselPositions } from '../support/index.mjs';
import {
	PATIENCE_MS,
	assertEqual,
	compare,
	postControl,
	readControl,
	startComponent,
	tableStatus,
	untilEqual,
	untilStatus,
} from './support/component.mjs';
import { OPERATOR, PEOPLE, addPeople } from './support/people.mjs';
import { DATASET, recent, startSource } from './support/source.mjs';
import { WHERE, connectToEach } from './support/worker-connection.mjs';

const ROWS = 2_000;
const POLL_MS = 500;
/** After this the component gives up a request by itself. */
const REQUEST_LIMIT_MS = 60_000;
/** Longer than anybody waits for the answer to a command. */
const RETRY_AFTER_S = 3_600;

/** @type {import('./support/source.mjs').Source} */
let source;

before(async () => {
	source = await startSource();
});

after(() => source?.stop());

describe('who may look at and control the sync', () => {
	/** @type {import('./support/component.mjs').Running} */
	let running;
	before(async () => {
		await source.fill('guarded', VESSEL_SCHEMA, vesselPositions({ rows: 10 }));
		const bigquery = { ...source.connection(), table: 'guarded', timestampColumn: 'timestamp' };
		const config = { bigquery, control: { roles: ['sync_operators'] } };
		running = await startComponent({ config, authorizeLocal: false });
		const { harper } = running;
		await addPeople(harper);
	});

	after(() => running?.remove());

	for (const [who, auth, expected] of PEOPLE) {
		test(`${who}_gets_${expected}`, async () => {
			for (const path of ['/SyncControl', '/SyncControl/']) {
				const response = await running.harper.request(path, { auth });
				const text = await response.text();
				assert.equal(response.status, expected, `GET ${path}: ${text}`);
				assert.equal(text.includes('guarded'), expected === 200, text);
			}
			for (const action of ['start', 'repair', 'resync']) {
				const body = { action, table: 'guarded' };
				const post = await running.harper.request('/SyncControl', { auth, method: 'POST', body });
				assert.equal(post.status, expected, `POST ${action}: ${await post.text()}`);
			}
		});
	}

	test('nobody_can_put_or_delete_it', async () => {
		for (const method of ['PUT', 'PATCH', 'DELETE']) {
			const body = method === 'DELETE' ? undefined : { action: 'stop' };
			const { status } = await running.harper.request('/SyncControl', { method, body });
			assert.ok(status >= 400 && status < 500, `${method}: ${status}`);
		}
		assert.equal((await readControl(running.harper)).tables[0].desired, 'started');
	});

	test('who_gave_a_command_is_recorded', async () => {
		const options = { auth: OPERATOR, method: 'POST', body: { action: 'start', table: 'guarded' } };
		assert.equal((await running.harper.request('/SyncControl', options)).status, 200);
		const search = { operation: 'search_by_id', table: 'SyncControlState', ids: ['guarded'], get_attributes: ['*'] };
		const [{ desired, changedBy }] = await running.harper.operation(search);
		assert.deepEqual({ desired, changedBy }, { desired: 'started', changedBy: 'operator' });
	});
});

describe('one worker', () => {
	/** @type {import('./support/component.mjs').Running} */
	let running;
	/** @type {{source: import('./support/source.mjs').Source, harper: import('../support/index.mjs').HarperNode}} */
	let sides;
	const stopped = { table: 'stopped', target: 'Stopped' };

	before(async () => {
		for (const table of ['stopped', 'running', 'hanging']) {
			await source.fill(table, VESSEL_SCHEMA, vesselPositions({ rows: ROWS }));
		}
		const tables = [{ table: 'stopped' }, { table: 'running' }, { table: 'hanging', sync: { autoStart: false } }];
		const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
		const sync = { pollInterval: POLL_MS, initialBatchSize: 200 };
		running = await startComponent({ config: { bigquery, sync, retry: { initialDelay: 50 } } });
		sides = { source, harper: running.harper };
	});

	after(() => running?.remove());

	/** @type {[string, any, RegExp][]} */
	const REFUSED = [
		['an_unknown_action', { action: 'dance' }, /start, stop, validate, repair, resync/],
		['a_missing_action', { table: 'stopped' }, /start, stop, validate, repair, resync/],
		['an_action_that_is_no_text', { action: { stop: true } }, /start, stop, validate, repair, resync/],
		['the_name_of_an_inherited_property', { action: 'constructor' }, /start, stop, validate, repair, resync/],
		['resync_without_a_table', { action: 'resync' }, /table is missing, allowed is stopped, running, hanging, \*/],
		['all_tables_of_another_action', { action: 'start', table: '*' }, /stopped, running, hanging/],
		['resync_from_no_time', { action: 'resync', table: 'stopped', from: 'monday' }, /2026-01-31T00:00:00Z/],
		['resync_from_the_future', { action: 'resync', table: '*', from: '2999-01-01T00:00:00Z' }, /has passed/],
		['a_start_from_a_time', { action: 'start', from: '2024-01-01T00:00:00Z' }, /for the action resync alone/],
		['an_unknown_table', { action: 'stop', table: 'stoped' }, /stopped, running, hanging/],
		['a_table_that_is_no_text', { action: 'stop', table: 5 }, /stopped, running, hanging/],
		['a_null_table', { action: 'stop', table: null }, /stopped, running, hanging/],
		['an_empty_object', {}, /start, stop, validate, repair, resync/],
		['a_list', [], /start, stop, validate, repair, resync/],
		['a_number', 5, /start, stop, validate, repair, resync/],
		['nothing', null, /start, stop, validate, repair, resync/],
		['an_empty_body', undefined, /start, stop, validate, repair, resync/],
		['broken_json', '{"action": "sto', /start","stop","validate","repair","resync/],
		['a_text', '"stop"', /start, stop, validate, repair, resync/],
	];
	for (const [what, body, allowed] of REFUSED) {
		test(`${what}_is_refused_with_what_is_allowed`, async () => {
			const response = await running.harper.request('/SyncControl', { method: 'POST', body });
			const text = await response.text();
			assert.ok(response.status >= 400 && response.status < 500, `${response.status}: ${text}`);
			assert.match(text, allowed);
			const { tables } = await readControl(running.harper);
			const desired = tables.map((/** @type {any} */ table) => table.desired);
			assert.deepEqual(desired, ['started', 'started', 'stopped']);
		});
	}

	/** Waits for polls of the table that runs, and tells what was asked about the other one meanwhile. */
	async function requestsDuringPolls() {
		const from = source.proxy.requests().length;
		const news = () => source.proxy.requests().slice(from);
		const polls = () => news().filter(({ route, path }) => route === 'tables.get' && path.includes('/running'));
		await until(() => polls().length >= 5, { deadlineMs: PATIENCE_MS, what: 'five polls of the other table' });
		return news().filter(({ path, sql }) => path.includes('/stopped') || sql?.includes('`stopped`'));
	}

	test('a_stopped_table_is_left_alone_also_after_a_restart_until_it_is_started_again', async () => {
		const { harper } = running;
		await untilEqual(sides, stopped);
		assert.ok((await requestsDuringPolls()).length > 0);
		await postControl(harper, { action: 'stop', table: 'stopped' });
		assert.equal((await tableStatus(harper, 'stopped')).state, 'stopped');
		// A request that was on its way may end later than that.
		const isLeftAlone = async () => (await requestsDuringPolls()).length === 0;
		await until(isLeftAlone, { deadlineMs: PATIENCE_MS, what: 'the table to be left alone' });
		await source.bigquery.loadRows(
			DATASET,
			'stopped',
			recent(vesselPositions({ rows: 20, seed: 4 }), { agoMs: 60_000 })
		);
		assert.deepEqual(await requestsDuringPolls(), []);
		await harper.kill('SIGKILL');
		await harper.start();
		assert.deepEqual(await requestsDuringPolls(), []);
		assert.equal((await compare(sides, stopped)).missing, 20);
		assert.equal((await readControl(harper)).tables[0].desired, 'stopped');
		await postControl(harper, { action: 'start', table: 'stopped' });
		assert.equal((await untilEqual(sides, stopped)).targetRows, ROWS + 20);
	});

	test('a_command_without_a_table_is_for_all_tables', async () => {
		const { harper } = running;
		const { tables } = await postControl(harper, { action: 'stop' });
		assert.deepEqual(tables, ['stopped', 'running', 'hanging']);
		for (const id of ['stopped', 'running']) assert.equal((await tableStatus(harper, id)).state, 'stopped');
		for (const id of ['stopped', 'running']) await postControl(harper, { action: 'start', table: id });
		for (const id of ['stopped', 'running']) await untilStatus(harper, id, ({ state }) => state === 'idle', 'to rest');
	});

	for (const route of /** @type {const} */ (['tables.get', 'jobs.query', 'getQueryResults'])) {
		test(`a_stop_does_not_wait_while_${route.replace('.', '_')}_hangs`, async () => {
			const when = (/** @type {any} */ { url, body }) =>
				route === 'getQueryResults' || /hanging/.test(body?.query ?? url);
			const hang = source.proxy.faults.add({ route, fault: FAULT.hang(), when });
			try {
				// On a machine that stands still meanwhile one cannot tell: it is tried again.
				const isPrompt = () => stopsWhileHanging(running.harper);
				await until(isPrompt, { deadlineMs: PATIENCE_MS, what: 'a stop before the request is given up by itself' });
			} finally {
				hang.remove();
			}
		});
	}

	/** Whether a request that hangs ends by a stop. @param {import('../support/index.mjs').HarperNode} harper */
	async function stopsWhileHanging(harper) {
		const before = source.proxy.requests().length;
		const hanging = () =>
			source.proxy
				.requests()
				.slice(before)
				.find(({ fault }) => fault?.kind === 'hang');
		await postControl(harper, { action: 'start', table: 'hanging' });
		const request = await until(hanging, { deadlineMs: PATIENCE_MS, what: 'a request that hangs' });
		await postControl(harper, { action: 'stop', table: 'hanging' });
		assert.equal((await tableStatus(harper, 'hanging')).state, 'stopped');
		return Date.now() - request.at < REQUEST_LIMIT_MS;
	}

	test('a_stop_does_not_wait_until_it_is_time_to_try_again', async () => {
		const { harper } = running;
		const when = (/** @type {any} */ { url }) => /hanging/.test(url);
		const fault = FAULT.rateLimited({ retryAfterS: RETRY_AFTER_S });
		const refusal = source.proxy.faults.add({ route: 'tables.get', fault, when });
		try {
			await postControl(harper, { action: 'start', table: 'hanging' });
			await untilStatus(harper, 'hanging', ({ state }) => state === 'retrying', 'to wait');
			await postControl(harper, { action: 'stop', table: 'hanging' });
			assert.equal((await tableStatus(harper, 'hanging')).state, 'stopped');
		} finally {
			refusal.remove();
		}
	});

	test('a_table_that_was_stopped_in_mid_request_is_equal_after_a_start', async () => {
		await postControl(running.harper, { action: 'start', table: 'hanging' });
		await untilEqual(sides, { table: 'hanging', target: 'Hanging' });
	});
});

test('a_command_to_any_worker_reaches_the_one_that_runs_the_table', async () => {
	const workers = 3;
	// By their ids, each of them goes to another worker.
	const names = ['dealt_a', 'dealt_b', 'dealt_d'];
	for (const name of names) await source.fill(name, VESSEL_SCHEMA, vesselPositions({ rows: 100 }));
	const tables = names.map((table) => ({ table }));
	const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
	const config = { bigquery, sync: { pollInterval: POLL_MS }, ...WHERE.section };
	const running = await startComponent({ config, form: 'application', threads: workers, files: WHERE.files });
	const { harper } = running;
	/** @type {import('./support/worker-connection.mjs').WorkerConnection[]} */
	let connections = [];
	try {
		for (const name of names) await untilStatus(harper, name, ({ state }) => state === 'idle', 'to rest');
		const owners = await Promise.all(names.map(async (name) => (await tableStatus(harper, name)).worker));
		assert.equal(new Set(owners).size, workers, `each worker runs one table: ${owners}`);
		connections = await connectToEach(harper, workers);
		for (const [index, connection] of connections.entries()) {
			assert.equal((await connection.send('POST', '/SyncControl', { action: 'stop' })).status, 200);
			for (const name of names) {
				await untilStatus(harper, name, ({ state }) => state === 'stopped', `to stop, told to worker ${index}`);
			}
			const isQuiet = async () => {
				const asked = source.proxy.requests().length;
				for (const other of connections) {
					const { body } = await other.send('GET', '/SyncControl');
					const desired = body.tables.map((/** @type {any} */ table) => table.desired);
					assert.deepEqual(desired, ['stopped', 'stopped', 'stopped']);
				}
				return source.proxy.requests().length === asked;
			};
			// The workers that stand by follow a moment later.
			await until(isQuiet, { deadlineMs: PATIENCE_MS, what: 'all workers to leave BigQuery alone' });
			assert.equal((await connection.send('POST', '/SyncControl', { action: 'start' })).status, 200);
			for (const name of names) await untilStatus(harper, name, ({ state }) => state === 'idle', 'to start again');
		}
		const added = recent(vesselPositions({ rows: 10, seed: 2 }), { agoMs: 60_000 });
		await source.bigquery.loadRows(DATASET, 'dealt_d', added);
		await untilEqual({ source, harper }, { table: 'dealt_d', target: 'DealtD' });
		await assertEqual({ source, harper }, { table: 'dealt_a', target: 'DealtA' });
	} finally {
		for (const connection of connections) connection.close();
		await running.remove();
	}
});
