/** Reads tables again on command, and tells what came of it. */

import { until } from '../../support/index.mjs';
import { PATIENCE_MS, postControl, readControl } from './component.mjs';

/** @typedef {import('../../support/harper.mjs').HarperNode} HarperNode */

/** @param {HarperNode} harper @param {string} table @returns {Promise<any>} */
export async function resyncOf(harper, table) {
	const { tables } = await readControl(harper);
	return tables.find((/** @type {{id: string}} */ { id }) => id === table).resync;
}

/**
 * Waits until a command to read a table again has come to its end.
 * @param {HarperNode} harper
 * @param {string} table
 * @param {string} [state] The end that is expected.
 */
export async function untilResynced(harper, table, state = 'done') {
	/** @type {any} */
	let last;
	const isDone = async () => {
		last = await resyncOf(harper, table).catch(() => undefined);
		return last?.state === state;
	};
	await until(isDone, { deadlineMs: PATIENCE_MS, everyMs: 250, what: `${table} to be read again` }).catch((error) => {
		throw new Error(`${error.message}\nLast: ${JSON.stringify(last)}`, { cause: error });
	});
	return last;
}

/**
 * Has a table read again.
 * @param {HarperNode} harper
 * @param {string} table
 * @param {{from?: string, state?: string}} [more]
 */
export async function resync(harper, table, { from, state } = {}) {
	await postControl(harper, { action: 'resync', table, ...(from && { from }) });
	return untilResynced(harper, table, state);
}
