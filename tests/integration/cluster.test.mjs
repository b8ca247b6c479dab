/** Real clusters of Harper nodes that divide the work, through the trouble that clusters have. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import {
	FAULT,
	VESSEL_SCHEMA,
	duplicated,
	missingConnections,
	size,
	until,
	vesselPositions,
} from '../support/index.mjs';
import { startComponents, holdings, untilDivided } from './support/cluster.mjs';
import { PATIENCE_MS, assertEqual, readControl, untilEqual } from './support/component.mjs';
import { DATASET, recent, startSource } from './support/source.mjs';

const PARTITIONS = 64;
const THREADS = [2, 1, 1];
const DAYS = 60;
const ROWS = size(10_000, 300_000);
const COPIES = size(1_000, 20_000);
const VESSELS = 3_000;
const VERSIONS = size(2_500, 60_000);
const BATCH_ROWS = 1_000;
/** Slows the backfill down, so that trouble comes while it runs. */
const BYTES_PER_SECOND = size(6_500, 100_000);
/** Slower still while each node does all of the work. */
const BYTES_PER_SECOND_ALONE = size(3_500, 30_000);
/** Rows that are added all the time, so that there is work during all of the trouble. */
const ADDED_ROWS = 20;
const ADDED_EVERY_MS = 3_000;
const RETRY = { initialDelay: 200, backoffMultiplier: 1, maxAttempts: 100 };
const BY_DAY = { timePartitioning: { type: 'DAY', field: 'timestamp' } };

/** @typedef {import('../support/harper.mjs').HarperNode} HarperNode */

/** @type {import('./support/source.mjs').Source} */
let source;

before(async () => {
	source = await startSource();
});

after(() => source?.stop());

/** Rows of the backfill; of some of them there are two. */
function* positionRows() {
	yield* vesselPositions({ rows: ROWS - 2 * COPIES, days: DAYS });
	yield* duplicated(vesselPositions({ rows: COPIES, days: DAYS, seed: 3 }), 2);
}

/** Adds rows now and then until told to end. */
function keepAdding() {
	let adding = true;
	const done = (async () => {
		for (let seed = 1; adding; seed++) {
			const rows = recent(vesselPositions({ rows: ADDED_ROWS, seed }), { agoMs: 5_000 });
			await source.bigquery.loadRows(DATASET, 'added', rows);
			await new Promise((resolve) => setTimeout(resolve, ADDED_EVERY_MS));
		}
	})();
	done.catch(() => {});
	return async () => {
		adding = false;
		await done;
	};
}

/**
 * Waits until every worker that any of the nodes tells of rests.
 * @param {HarperNode[]} nodes
 * @param {Record<string, number>} workers Of each table that is waited for.
 */
async function untilAtRest(nodes, workers) {
	/** @type {any[]} */
	let last = [];
	for (const node of nodes) {
		const isDone = async () => {
			last = (await readControl(node)).tables.filter((/** @type {any} */ { id }) => id in workers);
			return last.every(({ id, workers: found }) => {
				const idle = found.filter((/** @type {any} */ one) => one.state === 'idle' && one.watermark !== null);
				return idle.length === workers[id] && found.length === workers[id];
			});
		};
		await until(isDone, { deadlineMs: PATIENCE_MS, what: `${node.name} to be at rest` }).catch((error) => {
			const story = last.flatMap(({ id, workers: found }) =>
				found.map(({ worker, state, watermark, lastError }) => [id, worker, state, watermark, lastError?.message])
			);
			assert.fail(`${error.message}: ${JSON.stringify(story)}`);
		});
	}
}

// Each test leaves the cluster in whatever state it may, and makes for itself the one that it needs.
describe('three nodes, of which one has two workers', () => {
	/** @type {import('./support/cluster.mjs').RunningCluster} */
	let running;
	/** How many workers the nodes have that belong to the cluster. @type {Map<HarperNode, number>} */
	const members = new Map();
	/** The fourth node, while it belongs to the cluster. @type {HarperNode | undefined} */
	let joined;
	/** @type {import('../support/faults.mjs').ActiveRule} */
	let slow;
	/** @type {() => Promise<void>} */
	let endAdding = async () => {};
	/** @type {Map<string, Set<number>>} What each worker was ever seen to own. */
	const shares = new Map();

	const positions = { id: 'positions', partitions: PARTITIONS };

	before(async () => {
		await source.fill('positions', VESSEL_SCHEMA, positionRows(), BY_DAY);
		const versions = vesselPositions({ rows: VERSIONS, days: DAYS, vessels: VESSELS, seed: 5 });
		await source.fill('vessels', VESSEL_SCHEMA, versions, BY_DAY);
		await source.fill('added', VESSEL_SCHEMA);
		slow = source.proxy.faults.add({
			route: ['jobs.query', 'getQueryResults'],
			fault: FAULT.slow({ bytesPerSecond: BYTES_PER_SECOND }),
		});
		const tables = [
			{ id: 'positions', table: 'positions', targetTable: 'Positions', batchSize: BATCH_ROWS },
			{ id: 'vessels', table: 'vessels', targetTable: 'Vessels', key: ['mmsi'], batchSize: BATCH_ROWS },
			{ id: 'added', table: 'added', targetTable: 'Added', partitionBy: 'timestamp' },
		];
		const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
		running = await startComponents({
			config: { bigquery, sync: { pollInterval: 2_000 }, retry: RETRY },
			threads: THREADS,
		});
		running.nodes.forEach((node, index) => members.set(node, THREADS[index]));
		endAdding = keepAdding();
	});

	after(async () => {
		await endAdding();
		await running?.remove();
	});

	/** Connects all nodes again, starts those that are down, and adds the fourth if it is wanted. */
	async function restore({ fourth = false } = {}) {
		running.cluster.heal();
		slow.fault.bytesPerSecond = BYTES_PER_SECOND;
		for (const node of members.keys()) if (!node.isAlive()) await node.start();
		if (fourth && !joined) {
			joined = await running.add();
			members.set(joined, 1);
		}
	}

	/** @param {HarperNode} [absent] */
	const nodesBut = (absent) => [...members.keys()].filter((node) => node !== absent);

	/** @param {HarperNode} [absent] */
	function workersBut(absent) {
		return nodesBut(absent).flatMap((node) =>
			Array.from({ length: members.get(node) ?? 0 }, (_, index) => `${node.name}-${index}`)
		);
	}

	async function noteShares() {
		for (const { worker, partitions } of await holdings(nodesBut()[0], 'positions')) {
			const known = shares.get(worker) ?? new Set();
			for (const partition of partitions) known.add(partition);
			shares.set(worker, known);
		}
	}

	test('divide_a_table_among_all_of_their_workers', async () => {
		await untilDivided(nodesBut(), { ...positions, workers: workersBut() });
		await noteShares();
	});

	test('give_a_node_that_joins_its_share', async () => {
		await restore({ fourth: true });
		assert.deepEqual(await missingConnections(nodesBut()), []);
		await untilDivided(nodesBut(), { ...positions, workers: workersBut() });
		await noteShares();
	});

	test('read_what_a_node_owned_that_was_killed_and_tell_since_when_it_is_silent', async () => {
		await restore();
		await untilDivided(nodesBut(), { ...positions, workers: workersBut() });
		const killed = nodesBut()[1];
		const heardAt = Date.now();
		await killed.kill('SIGKILL');
		const others = nodesBut(killed);
		await untilDivided(others, { ...positions, workers: workersBut(killed) });
		const control = await readControl(others[0]);
		const silent = control.nodes.find((/** @type {any} */ { node }) => node === killed.name);
		assert.equal(silent.alive, false);
		const silentSince = Date.parse(silent.silentSince);
		assert.ok(silentSince > heardAt - PATIENCE_MS && silentSince < Date.now(), silent.silentSince);
		assert.ok(control.workers.some((/** @type {any} */ { node }) => node === killed.name));
		await noteShares();
	});

	test('go_on_each_alone_while_they_are_cut_off_and_divide_the_work_again_after_that', async () => {
		await restore();
		slow.fault.bytesPerSecond = BYTES_PER_SECOND_ALONE;
		// It finds nobody when it returns.
		const returning = nodesBut()[1];
		await returning.kill('SIGKILL');
		running.cluster.sever();
		await returning.start();
		for (const node of nodesBut()) {
			const alone = async () => {
				const own = (await holdings(node, 'positions')).filter(({ worker }) => worker.startsWith(`${node.name}-`));
				return own.flatMap(({ partitions }) => partitions).length === PARTITIONS;
			};
			await until(alone, { deadlineMs: PATIENCE_MS, what: `${node.name} to be alone` });
		}
		await restore();
		await untilDivided(nodesBut(), { ...positions, workers: workersBut() });
	});

	test('take_over_from_a_node_that_is_removed', async () => {
		await restore({ fourth: true });
		const removed = /** @type {HarperNode} */ (joined);
		await untilDivided(nodesBut(), { ...positions, workers: workersBut() });
		members.delete(removed);
		joined = undefined;
		try {
			await nodesBut()[0].operation({ operation: 'remove_node', hostname: removed.name });
			await untilDivided(nodesBut(), { ...positions, workers: workersBut() });
			await noteShares();
		} finally {
			await removed.stop();
		}
	});

	test('hold_exactly_the_rows_of_the_source_in_the_end_each_of_them', async () => {
		await restore();
		slow.remove();
		await endAdding();
		const workers = workersBut();
		await untilDivided(nodesBut(), { ...positions, workers });
		await noteShares();
		for (const worker of workers) assert.ok(shares.get(worker)?.size, `${worker} had no share`);
		await untilAtRest(nodesBut(), { positions: workers.length, added: workers.length, vessels: 1 });
		for (const harper of nodesBut()) {
			const sides = { source, harper };
			await untilEqual(sides, { table: 'added', target: 'Added' });
			const counts = await assertEqual(sides, { table: 'positions', target: 'Positions' });
			assert.equal(counts.targetRows, ROWS);
			// Read once more a minute after the last change of the cluster.
			await untilEqual(sides, { table: 'vessels', target: 'Vessels', key: ['mmsi'] });
		}
	});
});
