/** The component on a cluster of real Harper nodes. */

import assert from 'node:assert/strict';

import { pluginApplication, startCluster, startHarper, until } from '../../support/index.mjs';
import { COMPONENT, PATIENCE_MS, postControl, readControl } from './component.mjs';

/** Nodes wait for each other for a third of the usual times: a silent one is missed after 15 seconds. */
export const IN_HASTE = { BIGQUERY_SYNC_CLUSTER_HASTE: '3' };

/**
 * @typedef {import('../../support/harper.mjs').HarperNode} HarperNode
 * @typedef {{worker: string, partitions: number[]}} Holding What a worker says that it owns of a table.
 *
 * @typedef {object} RunningCluster
 * @property {HarperNode[]} nodes
 * @property {import('../../support/harper.mjs').Cluster} cluster
 * @property {() => Promise<HarperNode>} add Starts one more node and joins it.
 * @property {() => Promise<void>} remove
 */

/**
 * Starts nodes with the component, which can be cut off from one another. The tables wait until the nodes have joined:
 * in Harper 4.7 nodes that write much while they join may never hear of each other.
 * @param {{config: Record<string, any>, threads: number[], start?: boolean, files?: Record<string, string>}} options
 *   Threads of each node; whether all tables are started then (default true); more files of the application.
 * @returns {Promise<RunningCluster>}
 */
export async function startComponents({ config, threads, start = true, files }) {
	const sync = { ...config.sync, autoStart: false };
	const application = pluginApplication({ component: COMPONENT, config: { ...config, sync }, files });
	const options = { application: application.path, severable: true, env: IN_HASTE };
	const cluster = await startCluster({ ...options, nodes: threads.length, threads });
	const { configurationErrors } = await readControl(cluster.nodes[0]);
	if (configurationErrors.length > 0) {
		await cluster.remove();
		assert.fail(JSON.stringify(configurationErrors));
	}
	if (start) await postControl(cluster.nodes[0], { action: 'start' });
	return {
		nodes: cluster.nodes,
		cluster,
		async add() {
			const node = await startHarper({ ...options, replication: true });
			try {
				await cluster.join(node);
				return node;
			} catch (error) {
				await cluster.nodes[0].operation({ operation: 'remove_node', hostname: node.name }).catch(() => {});
				await node.remove();
				throw error;
			}
		},
		async remove() {
			await cluster.remove();
			application.remove();
		},
	};
}

/**
 * What each live worker owns of a table, as one node tells.
 * @param {HarperNode} node
 * @param {string} id
 * @returns {Promise<Holding[]>}
 */
export async function holdings(node, id) {
	const { tables } = await readControl(node);
	const table = tables.find((/** @type {{id: string}} */ one) => one.id === id);
	return table.workers.map((/** @type {Holding} */ { worker, partitions }) => ({ worker, partitions }));
}

/**
 * Waits until exactly the given workers own a table's partitions, each of them once, as every node tells.
 * @param {HarperNode[]} nodes Who is asked.
 * @param {{id: string, workers: string[], partitions: number}} wanted
 */
export async function untilDivided(nodes, { id, workers, partitions }) {
	/** @type {Holding[]} */
	let last = [];
	for (const node of nodes) {
		const divided = async () => {
			last = await holdings(node, id);
			const owned = last.flatMap((one) => one.partitions);
			const holders = last.filter((one) => one.partitions.length > 0).map(({ worker }) => worker);
			return (
				holders.sort().join() === [...workers].sort().join() &&
				owned.length === partitions &&
				new Set(owned).size === partitions
			);
		};
		const what = `${node.name} to see ${id} divided among ${workers.join(', ')}`;
		await until(divided, { deadlineMs: PATIENCE_MS, what }).catch((error) => {
			assert.fail(`${error.message}: ${JSON.stringify(last)}`);
		});
	}
}
