/**
 * Timestamps for the component's own records. Of two versions of a record, Harper keeps the later one, by the clocks of
 * the nodes that wrote them, and drops the other one silently. So a node whose clock is behind, or was set back, could
 * not replace a record. Therefore each version is written with a time that is later than that of the previous version.
 * The record holds this time in `stampMs`.
 */

import { findTable } from './database.js';

/**
 * Returns a time for a transaction, in ms, that is later than those of the records that it replaces.
 * @param {({stampMs?: number} | null | undefined)[]} records
 */
export function timeAfter(records) {
	const last = Math.max(0, ...records.map((record) => record?.stampMs ?? 0));
	return Math.max(Date.now(), last + 1);
}

/**
 * Replaces a record.
 * @param {string} name The table's.
 * @param {Record<string, any>} record
 */
export function replace(name, record) {
	return write(name, record.id, (table, stamped) => table.put({ ...record, ...stamped.at }, stamped.context));
}

/**
 * Changes some attributes of a record, and leaves the others.
 * @param {string} name The table's.
 * @param {string} id
 * @param {Record<string, any>} attributes
 */
export function change(name, id, attributes) {
	return write(name, id, (table, stamped) => table.patch(id, { ...attributes, ...stamped.at }, stamped.context));
}

async function write(name, id, put) {
	const table = findTable(name);
	const stampMs = timeAfter([await table.get(id)]);
	const context = { timestamp: stampMs };
	await transaction(context, () => put(table, { context, at: { stampMs } }));
}
