/** Real clusters of Harper nodes that divide the work, through the trouble that clusters have. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { FAULT, VESSEL_SCHEMA, duplicated, until, vesselPositions } from '../support/index.mjs';
import { startComponents, holdings, untilDivided } from './support/cluster.mjs';
import { PATIENCE_MS, assertEqual, readControl, untilEqual } from './support/component.mjs';
import { startSource } from './support/source.mjs';

const PARTITIONS = 64;
const THREADS = [2, 1, 1];
const DAYS = 60;
const ROWS = 300_000;
const COPIES = 20_000;
const VESSELS = 5_000;
const VERSIONS = 60_000;
const BATCH_ROWS = 1_000;
/** Slows the backfill down, so that all of the trouble comes while it runs. */
const BYTES_PER_SECOND = 100_000;
/** Slower still while each node does all of the work. */
const BYTES_PER_SECOND_ALONE = 30_000;
/** A node is out when it was silent for 45 s, and its peers look every 5 s. */
const HAND_OVER_MS = 75_000;
/** Whoever joins or returns is seen with its next heartbeat; chunks under way are finished first. */
const JOIN_MS = 30_000;
const RETRY = { initialDelay: 200, backoffMultiplier: 1, maxAttempts: 100 };
const BY_DAY = { timePartitioning: { type: 'DAY', field: 'timestamp' } };

/** @typedef {import('../support/harper.mjs').HarperNode} HarperNode */

/** @type {import('./support/source.mjs').Source} */
let source;

before(async () => {
	source = await startSource();
});

after(() => source?.stop());

/** @param {HarperNode[]} nodes @param {number[]} threads */
function workersOf(nodes, threads) {
	return nodes.flatMap((node, n) => Array.from({ length: threads[n] }, (_, index) => `${node.name}-${index}`));
}

/**
 * Waits until every worker that any of the nodes tells of is up to date.
 * @param {HarperNode[]} nodes
 * @param {Record<string, number>} workers Of each table that is waited for.
 */
async function untilUpToDate(nodes, workers) {
	/** @type {any[]} */
	let last = [];
	for (const node of nodes) {
		const isDone = async () => {
			last = (await readControl(node)).tables.filter((/** @type {any} */ { id }) => id in workers);
			return last.every(({ id, workers: found }) => {
				const idle = found.filter((/** @type {any} */ one) => one.state === 'idle' && one.lagSeconds < 600);
				return idle.length === workers[id] && found.length === workers[id];
			});
		};
		await until(isDone, { deadlineMs: PATIENCE_MS, everyMs: 500, what: `${node.name} to be up to date` }).catch(
			(error) => {
				const story = last.flatMap(({ id, workers: found }) =>
					found.map(({ worker, state, watermark, lastError }) => [id, worker, state, watermark, lastError?.message])
				);
				assert.fail(`${error.message}: ${JSON.stringify(story)}`);
			}
		);
	}
}

describe('three nodes, of which one has two workers', () => {
	/** @type {import('./support/cluster.mjs').RunningCluster} */
	let running;
	/** @type {HarperNode[]} */
	let nodes;
	/** @type {string[]} */
	let workers;
	/** @type {import('../support/harper.mjs').HarperNode} */
	let joined;
	/** @type {import('../support/faults.mjs').ActiveRule} */
	let slow;
	/** @type {Map<string, Set<number>>} What each worker was ever seen to own. */
	const shares = new Map();

	const positions = { id: 'positions', partitions: PARTITIONS };

	before(async () => {
		await source.fill('positions', VESSEL_SCHEMA, positionRows(), BY_DAY);
		const versions = vesselPositions({ rows: VERSIONS, days: DAYS, vessels: VESSELS, seed: 5 });
		await source.fill('vessels', VESSEL_SCHEMA, versions, BY_DAY);
		slow = source.proxy.faults.add({
			route: ['jobs.query', 'getQueryResults'],
			fault: FAULT.slow({ bytesPerSecond: BYTES_PER_SECOND }),
		});
		const tables = [
			{ id: 'positions', table: 'positions', targetTable: 'Positions', batchSize: BATCH_ROWS },
			{ id: 'vessels', table: 'vessels', targetTable: 'Vessels', key: ['mmsi'], batchSize: BATCH_ROWS },
		];
		const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
		running = await startComponents({
			config: { bigquery, sync: { pollInterval: 2_000 }, retry: RETRY },
			threads: THREADS,
		});
		({ nodes } = running);
		workers = workersOf(nodes, THREADS);
	});

	after(() => running?.remove());

	async function noteShares() {
		for (const { worker, partitions } of await holdings(nodes[0], 'positions')) {
			const known = shares.get(worker) ?? new Set();
			for (const partition of partitions) known.add(partition);
			shares.set(worker, known);
		}
	}

	/** Fails unless rows are still to come, so that what happens now happens during the backfill. */
	async function assertUnderWay() {
		const { tables } = await readControl(nodes[0]);
		const behind = tables.find((/** @type {any} */ { id }) => id === 'positions').workers;
		const found = behind.map(({ worker, state, watermark, rows }) => [worker, state, watermark, rows]);
		assert.ok(
			behind.some(({ lagSeconds }) => lagSeconds === null || lagSeconds > 86_400),
			JSON.stringify(found)
		);
	}

	test('divide_a_table_among_all_of_their_workers', async () => {
		await untilDivided(nodes, { ...positions, workers });
		await noteShares();
		await assertUnderWay();
	});

	test('give_a_node_that_joins_its_share_within_seconds', async (context) => {
		joined = await running.add();
		const threads = nodes.map((node, n) => (node === joined ? 1 : THREADS[n]));
		const took = await untilDivided(nodes, { ...positions, workers: workersOf(nodes, threads) });
		context.diagnostic(`after the join: ${Math.round(took)} ms`);
		assert.ok(took < JOIN_MS, `${took} ms`);
		await noteShares();
		await assertUnderWay();
	});

	test('read_what_a_node_owned_that_was_killed_within_about_a_minute_and_tell_since_when_it_is_silent', async (context) => {
		const killed = nodes[1];
		await killed.kill('SIGKILL');
		const others = nodes.filter((node) => node !== killed);
		const left = [...workers, `${joined.name}-0`].filter((worker) => !worker.startsWith(`${killed.name}-`));
		const took = await untilDivided(others, { ...positions, workers: left });
		context.diagnostic(`after the kill: ${Math.round(took)} ms`);
		assert.ok(took < HAND_OVER_MS, `${took} ms`);
		const control = await readControl(nodes[0]);
		const silent = control.nodes.find((/** @type {any} */ { node }) => node === killed.name);
		assert.equal(silent.alive, false);
		const silentMs = Date.now() - Date.parse(silent.silentSince);
		assert.ok(silentMs > 40_000 && silentMs < took + 30_000, silent.silentSince);
		assert.ok(control.workers.some((/** @type {any} */ { node }) => node === killed.name));
		await noteShares();
		await assertUnderWay();
	});

	test('go_on_each_alone_while_they_are_cut_off_and_divide_the_work_again_after_that', async (context) => {
		slow.fault.bytesPerSecond = BYTES_PER_SECOND_ALONE;
		running.cluster.sever();
		// It finds nobody when it returns.
		await nodes[1].start();
		for (const node of nodes) {
			const alone = async () => {
				const own = (await holdings(node, 'positions')).filter(({ worker }) => worker.startsWith(`${node.name}-`));
				return own.flatMap(({ partitions }) => partitions).length === PARTITIONS;
			};
			await until(alone, { deadlineMs: HAND_OVER_MS, everyMs: 500, what: `${node.name} to be alone` });
		}
		await assertUnderWay();
		slow.fault.bytesPerSecond = BYTES_PER_SECOND;
		running.cluster.heal();
		const took = await untilDivided(nodes, { ...positions, workers: [...workers, `${joined.name}-0`] });
		context.diagnostic(`after the split: ${Math.round(took)} ms`);
		await assertUnderWay();
	});

	test('take_over_from_a_node_that_is_removed_within_about_a_minute', async (context) => {
		await nodes[0].operation({ operation: 'remove_node', hostname: joined.name });
		const others = nodes.filter((node) => node !== joined);
		const took = await untilDivided(others, { ...positions, workers });
		context.diagnostic(`after the removal: ${Math.round(took)} ms`);
		// Usually within seconds; where the news of it does not arrive, its silence tells.
		assert.ok(took < HAND_OVER_MS, `${took} ms`);
		await noteShares();
		await joined.stop();
	});

	test('hold_exactly_the_rows_of_the_source_in_the_end_each_of_them', async () => {
		slow.remove();
		const others = nodes.filter((node) => node !== joined);
		await untilUpToDate(others, { positions: workers.length, vessels: 1 });
		for (const worker of [...workers, `${joined.name}-0`]) {
			assert.ok(shares.get(worker)?.size, `${worker} had no share`);
		}
		for (const harper of others) {
			const sides = { source, harper };
			const counts = await assertEqual(sides, { table: 'positions', target: 'Positions' });
			assert.equal(counts.targetRows, ROWS);
			// Read once more a minute after the last change of the cluster.
			await untilEqual(sides, { table: 'vessels', target: 'Vessels', key: ['mmsi'] });
		}
	});
});

/** Of some of them there are two. */
function* positionRows() {
	yield* vesselPositions({ rows: ROWS - 2 * COPIES, days: DAYS });
	yield* duplicated(vesselPositions({ rows: COPIES, days: DAYS, seed: 3 }), 2);
}
