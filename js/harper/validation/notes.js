/** What SyncAudit is told of this node's copies, and what it tells about the rows of a table. */

import { findTable } from '../database.js';

/** @typedef {{kind: string, reason: string}} Note */

/**
 * An entry of SyncAudit about a table on this node.
 * @param {string} tableId
 * @param {string} node
 * @param {Note} note
 * @param {string} [which] Which one of several of the same time it is.
 */
export function noteOf(tableId, node, { kind, reason }, which = '') {
	const at = new Date().toISOString();
	return { id: `${tableId}:${kind}.${node}.${at}${which}`, tableId, kind, rowId: null, reason, nodeId: node, at };
}

/** The ids of rows that the source has and that cannot be written. @param {string} tableId @returns {Promise<string[]>} */
export async function rejectedIds(tableId) {
	const ids = [];
	for await (const { rowId } of entriesOf(tableId, 'rejected_row')) if (rowId) ids.push(rowId);
	return ids;
}

/**
 * When a node last read rows again that had got lost.
 * @param {string} tableId
 * @param {string} node
 * @returns {Promise<string | null>}
 */
export async function mendedAt(tableId, node) {
	let last = null;
	for await (const { nodeId, at } of entriesOf(tableId, 'lost_between_nodes')) {
		if (nodeId === node && (last === null || at > last)) last = at;
	}
	return last;
}

/** @param {string} tableId @param {string} kind */
function entriesOf(tableId, kind) {
	const conditions = [
		{ attribute: 'tableId', value: tableId },
		{ attribute: 'kind', value: kind },
	];
	return findTable('SyncAudit').search({ conditions });
}
