/** Nodes of a cluster that end one by one, and start again within seconds, have all rows afterwards. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { VESSEL_SCHEMA, randomFrom, size, until, vesselPositions } from '../support/index.mjs';
import { startComponents } from './support/cluster.mjs';
import { PATIENCE_MS, postControl, readControl, untilEqual } from './support/component.mjs';
import { KINDS, endAndStart, rationPages } from './support/endings.mjs';
import { tellLosses } from './support/losses.mjs';
import { startSource } from './support/source.mjs';

const ROWS = size(15_000, 150_000);
const SEED = Number(process.env.RESTART_SEED ?? Date.now() % 1_000_000);
const BY_DAY = { timePartitioning: { type: 'DAY', field: 'timestamp' } };
/** Of each node, in turn, and each of another kind than the one before. */
const ENDINGS_EACH = size(1, 14);
/** An ending comes when a node has written so many rows more. */
const ROWS_BETWEEN = [300, 1_000];
/** Of each batch, so that there are many. */
const PAGE_ROWS = 250;
/** From one ending to the next, the nodes together get so many pages at once, and further ones in some 20 or 40 seconds each. */
const RATION = { pages: 6, bytesPerSecond: size(2_000, 1_000) };

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/cluster.mjs').RunningCluster} */
let running;

before(async () => {
	source = await startSource();
	await source.fill('positions', VESSEL_SCHEMA, vesselPositions({ rows: ROWS, days: 20 }), BY_DAY);
	const bigquery = { ...source.connection(), table: 'positions', id: 'positions', timestampColumn: 'timestamp' };
	running = await startComponents({
		config: { bigquery: { ...bigquery, batchSize: PAGE_ROWS }, sync: { pollInterval: 2_000 } },
		threads: [1, 1, 1],
		start: false,
	});
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

/** @param {import('../support/harper.mjs').HarperNode} node */
async function status(node) {
	const control = await readControl(node).catch(() => undefined);
	return control?.tables.find((/** @type {any} */ { id }) => id === 'positions');
}

/** @param {import('../support/harper.mjs').HarperNode} node @param {number} more */
async function untilRowsMore(node, more) {
	const options = { deadlineMs: PATIENCE_MS, everyMs: 100 };
	const rows = await until(async () => (await status(node))?.rows, { ...options, what: 'the progress' });
	const isThere = async () => ((await status(node))?.rows ?? 0) >= rows + more;
	await until(isThere, { ...options, what: `${more} rows more on ${node.name}` });
	assert.ok((await status(node)).rows < ROWS, 'there is still something to read');
}

test('nodes_that_end_one_by_one_in_a_backfill_have_all_rows_when_they_are_back', async (context) => {
	context.diagnostic(`RESTART_SEED=${SEED}`);
	const random = randomFrom(SEED);
	const ration = rationPages(source, RATION);
	await postControl(running.nodes[0], { action: 'start', table: 'positions' });
	const endings = Array.from({ length: ENDINGS_EACH }, () => running.nodes).flat();
	for (const [number, node] of endings.entries()) {
		const [least, most] = ROWS_BETWEEN;
		await untilRowsMore(node, least + Math.floor(random() * (most - least)));
		const kind = KINDS[number % KINDS.length];
		await endAndStart(node, kind);
		ration.renew();
		context.diagnostic(`${kind} of ${node.name}, which left ${(await status(node))?.rows} rows`);
	}
	ration.remove();
	const isIdle = async (/** @type {import('../support/harper.mjs').HarperNode} */ node) => {
		const { workers = [] } = (await status(node)) ?? {};
		return workers.length === running.nodes.length && workers.every((/** @type {any} */ { state }) => state === 'idle');
	};
	for (const node of running.nodes) {
		await until(() => isIdle(node), { deadlineMs: PATIENCE_MS, what: `all to be read, as ${node.name} tells` });
	}
	await running.cluster.settled();
	for (const harper of running.nodes) {
		const equal = untilEqual({ source, harper }, { table: 'positions', target: 'BigQueryData' });
		const { targetRows } = await equal.catch(async (error) => {
			context.diagnostic(await tellLosses(running.nodes, 'BigQueryData'));
			throw error;
		});
		assert.equal(targetRows, ROWS);
	}
	const audit = await Promise.all(
		running.nodes.map((node) =>
			node.operation({ operation: 'sql', sql: "SELECT reason FROM data.SyncAudit WHERE kind = 'lost_between_nodes'" })
		)
	);
	context.diagnostic(`mended: ${JSON.stringify(audit[0])}`);
});
