/** Deletes rows that the source no longer has. */

import { findTable } from '../database.js';
import { noteOf } from './notes.js';

/** The most records that one transaction deletes. */
const RECORDS_AT_A_TIME = 200;

/**
 * Deletes records of which the core has found that the source no longer has them. What was stored later stays, and so
 * does what another node writes meanwhile: Harper keeps the later of two writes.
 * @param {string} tableId
 * @param {any} table
 * @param {{ids: string[], storedBefore: string}} deletion
 * @param {string} node
 * @param {() => boolean} isOver
 */
export async function deleteRows(tableId, table, { ids, storedBefore }, node, isOver) {
	const areIntegers = hasIntegers(table);
	/** @param {string} id */
	const keyOf = (id) => (areIntegers ? Number(id) : id);
	for (let from = 0; from < ids.length && !isOver(); from += RECORDS_AT_A_TIME) {
		const keys = ids.slice(from, from + RECORDS_AT_A_TIME).map(keyOf);
		for (const [version, same] of byVersion(table, keys, Date.parse(storedBefore))) {
			const context = { timestamp: version + 1 };
			await transaction(context, () => {
				tell(tableId, node, same.length, context);
				for (const key of same) table.delete(key, context);
			});
		}
	}
}

/** The type of ids is that of the primary key. */
function hasIntegers(table) {
	return ['Int', 'Long'].includes(table.attributes.find(({ isPrimaryKey }) => isPrimaryKey)?.type);
}

/**
 * The records that were stored before a time, by their versions: a write counts as later if its version is higher.
 * @returns {Map<number, (string | number)[]>}
 */
function byVersion(table, keys, beforeMs) {
	const found = new Map();
	for (const key of keys) {
		const { value, version, localTime = version } = table.primaryStore.getEntry(key) ?? {};
		if (!value || !(localTime < beforeMs)) continue;
		if (found.has(version)) found.get(version).push(key);
		else found.set(version, [key]);
	}
	return found;
}

/** Tells the audit, in the same transaction. */
function tell(tableId, node, rows, context) {
	const note = { kind: 'rows_deleted', reason: `${rows} rows that the source no longer has were deleted` };
	findTable('SyncAudit').put(noteOf(tableId, node, note, `.${context.timestamp}`), context);
}
