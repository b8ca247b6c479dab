/** Reads which workers the nodes of the cluster have. */

import { KeptRecords } from '../kept-records.js';

const nodes = new KeptRecords('SyncNode');

/**
 * The workers of all nodes.
 * @returns {Promise<{node: string, name: string, isRemoved: boolean}[]>} Also those of nodes that were removed.
 */
export async function readWorkers() {
	const workersOf = ({ id, workers, removed }) =>
		Array.from({ length: workers }, (_, index) => ({ node: id, name: `${id}-${index}`, isRemoved: removed === true }));
	return (await nodes.read()).flatMap(workersOf);
}
