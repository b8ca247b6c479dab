/** What workers of several nodes write at the same time arrives on all nodes, small batches too. */

import { after, before, test } from 'node:test';

import { VESSEL_SCHEMA, size, until, vesselPositions } from '../support/index.mjs';
import { startComponents } from './support/cluster.mjs';
import { PATIENCE_MS, assertEqual, postControl, readControl } from './support/component.mjs';
import { startSource } from './support/source.mjs';

/** Harper 4.7 by itself lost some of the small batches in more than every other run of 120,000 rows. */
const ROUNDS = 2;
const ROWS = size(12_000, 120_000);
const DAYS = 40;
const THREADS = [2, 2];
const BY_DAY = { timePartitioning: { type: 'DAY', field: 'timestamp' } };

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/cluster.mjs').RunningCluster} */
let running;

before(async () => {
	source = await startSource();
	await source.fill('positions', VESSEL_SCHEMA, vesselPositions({ rows: ROWS, days: DAYS }), BY_DAY);
	const tables = Array.from({ length: ROUNDS }, (_, round) => ({
		id: `round${round}`,
		table: 'positions',
		targetTable: `Round${round}`,
	}));
	const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
	running = await startComponents({
		config: { bigquery, sync: { pollInterval: 2_000 } },
		threads: THREADS,
		start: false,
	});
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

/** @param {import('../support/harper.mjs').HarperNode} node @param {string} id */
async function isDone(node, id) {
	const { tables } = await readControl(node);
	const { workers, rows } = tables.find((/** @type {{id: string}} */ table) => table.id === id);
	const idle = workers.filter((/** @type {any} */ { state }) => state === 'idle');
	return idle.length === THREADS[0] + THREADS[1] && workers.length === idle.length && rows >= ROWS;
}

for (let round = 0; round < ROUNDS; round++) {
	test(`each_batch_of_each_worker_arrives_on_both_nodes_in_round_${round}`, async () => {
		const id = `round${round}`;
		await postControl(running.nodes[0], { action: 'start', table: id });
		for (const node of running.nodes) {
			await until(() => isDone(node, id), { deadlineMs: PATIENCE_MS, what: `${id} to be read` });
		}
		await running.cluster.settled();
		for (const harper of running.nodes) {
			await assertEqual({ source, harper }, { table: 'positions', target: `Round${round}` });
		}
	});
}
