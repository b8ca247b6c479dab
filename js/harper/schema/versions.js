/** Reads and stores the versions of a source table's schema. Their rows are never changed. */

import { findTable } from '../database.js';
import { KeptById } from '../kept-records.js';

/** @typedef {{id: string, tableId: string, version: number, era: number, fingerprint: string}} SchemaVersion */

const versions = new KeptById('SchemaVersion');

/** @param {string} tableId @param {number} version */
const idOf = (tableId, version) => `${tableId}:${version}`;

/**
 * Reads the newest version.
 * @param {string} tableId
 * @param {SchemaVersion | null} [known] The version that was the newest one before.
 * @returns {Promise<SchemaVersion | null>}
 */
export async function newestVersion(tableId, known = null) {
	let newest = null;
	for (let number = known?.version ?? 1; ; number++) {
		const found = await versions.read(idOf(tableId, number));
		if (found) newest = found;
		else if (newest === null && known !== null) return newestVersion(tableId);
		else return newest;
	}
}

/**
 * Whether there is a version that is newer than the known one and gives rows without a key other ids.
 * @param {SchemaVersion | null} known
 */
export async function hasNewerEra(known) {
	if (known === null) return false;
	const next = await findTable('SchemaVersion').get(idOf(known.tableId, known.version + 1));
	return Boolean(next) && ((await newestVersion(known.tableId, known))?.era ?? 0) > known.era;
}

/**
 * Stores a version and its notes, unless one with its number exists. All workers arrive at the same version.
 * @param {SchemaVersion} version
 * @param {{kind: string, reason: string}[]} notes
 * @param {string} nodeId
 */
export async function adoptVersion(version, notes, nodeId) {
	const context = {};
	await transaction(context, async () => {
		const table = findTable('SchemaVersion');
		if (await table.get(version.id, context)) return;
		const at = new Date().toISOString();
		for (const [index, { kind, reason }] of notes.entries()) {
			// All nodes use the same id, because several may do this at the same time.
			const id = `${version.tableId}:${kind}.${version.version}.${index}`;
			findTable('SyncAudit').put({ id, tableId: version.tableId, kind, rowId: null, reason, nodeId, at }, context);
		}
		// The version is the last write: a Harper that ends in the middle of a commit keeps the writes before.
		table.put(version, context);
	});
}
