/** Commands to a cluster of real Harper nodes: told to one, followed by all, also by those that come later. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { VESSEL_SCHEMA, until, vesselPositions } from '../support/index.mjs';
import { startComponents, untilDivided } from './support/cluster.mjs';
import { PATIENCE_MS, assertEqual, postControl, readControl } from './support/component.mjs';
import { startSource } from './support/source.mjs';

const THREADS = [2, 1, 1];
const ROWS = 12_000;
const DAYS = 30;
const ROW_BYTES = 16;
const CURSOR_BYTES = 8;
/** How often what nodes agreed upon is looked at again. */
const LOOKS = 20;
const BY_DAY = { timePartitioning: { type: 'DAY', field: 'timestamp' } };
const NARROW_SCHEMA = VESSEL_SCHEMA.filter(({ name }) => ['heading', 'timestamp'].includes(name));

/** @typedef {import('../support/harper.mjs').HarperNode} HarperNode */

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('../support/index.mjs').FaultProxy} Bills the very bytes, without the minimum per query. */
let meter;
/** @type {import('./support/cluster.mjs').RunningCluster} */
let running;
/** @type {HarperNode[]} */
let nodes;
/** @type {string[]} */
let workers;

function* narrow() {
	for (const { heading, timestamp } of vesselPositions({ rows: ROWS, days: DAYS })) yield { heading, timestamp };
}

before(async () => {
	source = await startSource();
	await source.fill('positions', NARROW_SCHEMA, narrow(), BY_DAY);
	await source.fill('others', NARROW_SCHEMA, narrow());
	meter = await source.addProxy({ minimumBytes: 0 });
	meter.accounting = true;
	meter.maintainsModification = true;
	const tables = [
		{ id: 'positions', table: 'positions', targetTable: 'Positions' },
		{ id: 'others', table: 'others', targetTable: 'Others' },
	];
	const bigquery = { ...source.connection(meter.url), timestampColumn: 'timestamp', tables };
	running = await startComponents({
		config: { bigquery, sync: { pollInterval: 2_000 } },
		threads: THREADS,
		start: false,
	});
	({ nodes } = running);
	await postControl(nodes[0], { action: 'start', table: 'others' });
	workers = nodes.flatMap((node, n) => Array.from({ length: THREADS[n] }, (_, index) => `${node.name}-${index}`));
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

/**
 * @param {HarperNode} node
 * @param {string} id
 */
async function tableOn(node, id) {
	return (await readControl(node)).tables.find((/** @type {any} */ one) => one.id === id);
}

/**
 * Waits until nodes tell that a table is wanted so, and that its workers do so.
 * @param {HarperNode[]} asked
 * @param {{id: string, desired: 'started' | 'stopped'}} wanted
 */
async function untilFollowed(asked, { id, desired }) {
	/** @type {any} */
	let last;
	for (const node of asked) {
		const followed = async () => {
			last = await tableOn(node, id);
			const states = last.workers.map((/** @type {any} */ { state }) => state);
			return (
				last.desired === desired &&
				states.every((/** @type {string} */ one) => (one === 'stopped') === (desired === 'stopped'))
			);
		};
		await until(followed, {
			deadlineMs: PATIENCE_MS,
			what: `${id} to be ${desired} on ${node.name}`,
		}).catch((error) => {
			const states = last.workers.map((/** @type {any} */ { worker, state }) => [worker, state]);
			assert.fail(`${error.message}: ${last.desired} ${JSON.stringify(states)}`);
		});
	}
}

test('a_table_that_is_started_on_one_node_is_read_by_all_and_billed_once', async (context) => {
	const idle = async () =>
		(await tableOn(nodes[0], 'others')).workers.some((/** @type {any} */ one) => one.state === 'idle');
	await until(idle, { deadlineMs: PATIENCE_MS, what: 'the other table to be read' });
	meter.reset();
	await postControl(nodes[2], { action: 'start', table: 'positions' });
	await untilFollowed(nodes, { id: 'positions', desired: 'started' });
	await untilDivided(nodes, { id: 'positions', workers, partitions: 64 });
	const done = async () => {
		const { workers: found, rows } = await tableOn(nodes[1], 'positions');
		const isIdle = found.every((/** @type {any} */ { state }) => state === 'idle');
		return found.length === workers.length && isIdle && rows >= ROWS;
	};
	await until(done, { deadlineMs: PATIENCE_MS, what: 'all workers to be done' });
	for (const harper of nodes) await assertEqual({ source, harper }, { table: 'positions', target: 'Positions' });
	const bill = meter.billing().byTable['d.positions'];
	context.diagnostic(`${bill} bytes, the table has ${ROWS * ROW_BYTES}`);
	// The cursors are read once to count the rows, and perhaps once more for those that have none.
	const dayBytes = Math.ceil((ROWS * ROW_BYTES) / DAYS) + DAYS;
	const most = ROWS * (ROW_BYTES + 2 * CURSOR_BYTES) + workers.length * dayBytes;
	assert.ok(bill >= ROWS * ROW_BYTES && bill <= most, `${bill} bytes`);
});

test('a_command_to_one_node_is_followed_by_all', async () => {
	for (const [node, action, desired] of /** @type {const} */ ([
		[nodes[1], 'stop', 'stopped'],
		[nodes[0], 'start', 'started'],
		[nodes[2], 'stop', 'stopped'],
	])) {
		await postControl(node, { action, table: 'positions' });
		await untilFollowed(nodes, { id: 'positions', desired });
	}
	assert.equal((await tableOn(nodes[0], 'others')).desired, 'started');
});

test('commands_given_at_once_on_two_nodes_end_in_one_state_everywhere', async () => {
	for (let round = 0; round < 4; round++) {
		await Promise.all([
			postControl(nodes[round % 3], { action: 'start', table: 'positions' }),
			postControl(nodes[(round + 1) % 3], { action: 'stop', table: 'positions' }),
		]);
		const agreed = async () => {
			const found = await Promise.all(nodes.map((node) => tableOn(node, 'positions')));
			const stopped = found.map(({ workers: all }) => all.map((/** @type {any} */ { state }) => state === 'stopped'));
			const wishes = new Set(found.map(({ desired }) => desired));
			return wishes.size === 1 && stopped.flat().every((one) => one === wishes.has('stopped'));
		};
		await until(agreed, { deadlineMs: PATIENCE_MS, what: `all nodes to agree in round ${round}` });
		// What is agreed upon stays.
		for (let look = 0; look < LOOKS; look++) assert.ok(await agreed(), `round ${round}, look ${look}`);
	}
});

test('a_node_that_was_down_is_shown_and_follows_the_commands_that_it_missed', async () => {
	await postControl(nodes[0], { action: 'start', table: 'positions' });
	await untilFollowed(nodes, { id: 'positions', desired: 'started' });
	const [, down] = nodes;
	const others = nodes.filter((node) => node !== down);
	const heardAt = Date.now();
	await down.kill('SIGKILL');
	try {
		await postControl(nodes[0], { action: 'stop' });
		const told = async () => {
			const control = await readControl(nodes[2]);
			const silent = control.nodes.find((/** @type {any} */ { node }) => node === down.name);
			return silent?.alive === false && silent;
		};
		const wait = { deadlineMs: PATIENCE_MS, what: 'the node to be missed' };
		const silentSince = Date.parse((await until(told, wait)).silentSince);
		assert.ok(silentSince > heardAt - PATIENCE_MS && silentSince < Date.now(), new Date(silentSince).toISOString());
		const shown = (await readControl(nodes[0])).workers.map((/** @type {any} */ { id }) => id);
		assert.deepEqual(shown, [...workers].sort());
	} finally {
		await down.start();
	}
	for (const id of ['positions', 'others']) {
		await untilFollowed([down], { id, desired: 'stopped' });
		await untilFollowed(others, { id, desired: 'stopped' });
	}
	const back = async () => (await readControl(nodes[2])).nodes.every((/** @type {any} */ { alive }) => alive);
	await until(back, { deadlineMs: PATIENCE_MS, what: 'the node to be heard again' });
});

test('what_was_wanted_is_wanted_still_after_all_nodes_were_restarted', async () => {
	await postControl(nodes[1], { action: 'stop', table: 'positions' });
	await postControl(nodes[1], { action: 'start', table: 'others' });
	await untilFollowed(nodes, { id: 'positions', desired: 'stopped' });
	await untilFollowed(nodes, { id: 'others', desired: 'started' });
	await Promise.all(nodes.map((node) => node.stop()));
	await Promise.all(nodes.map((node) => node.start()));
	await untilFollowed(nodes, { id: 'others', desired: 'started' });
	await untilFollowed(nodes, { id: 'positions', desired: 'stopped' });
	// The nodes hear of each other one after the other.
	const isOwnedOnce = async () => {
		const { workers: all } = await tableOn(nodes[0], 'others');
		const owners = all.filter((/** @type {any} */ { partitions }) => partitions.length > 0);
		return owners.length === 1 && owners[0].state === 'idle';
	};
	await until(isOwnedOnce, { deadlineMs: PATIENCE_MS, what: 'the started table to be read again, by one' });
});
