/** Reads which workers the nodes of the cluster have. */

import { Changes } from '../changes.js';
import { KeptRecords } from '../kept-records.js';

/** @typedef {{node: string, name: string, isRemoved: boolean}} Worker */

const nodes = new KeptRecords('SyncNode');
const changes = new Changes();
/** @type {Worker[]} */
let workers = [];
/** @type {Promise<unknown>} The last reading; one follows the other. */
let reading = Promise.resolve();

/**
 * The workers of all nodes. Tables that are polled at the same time ask for them at the same time.
 * @returns {Promise<Worker[]>} Also those of nodes that were removed.
 */
export async function readWorkers() {
	const before = reading.catch(() => {});
	reading = before.then(() => changes.look(read));
	await reading;
	return workers;
}

async function read() {
	const workersOf = ({ id, workers: count, removed }) =>
		Array.from({ length: count }, (_, index) => ({ node: id, name: `${id}-${index}`, isRemoved: removed === true }));
	workers = (await nodes.read()).flatMap(workersOf);
}
