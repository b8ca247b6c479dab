/** Reads Harper's database, and Harper's descriptions of its tables. */

/** The database of the targets and of the component's own tables. */
export const DATABASE = 'data';

/** @param {string} name */
export function findTable(name) {
	return databases[DATABASE]?.[name];
}

/**
 * The number of the database's last transaction, whichever thread or node made it. Undefined if the store does not tell:
 * only LMDB does.
 * @returns {number | undefined}
 */
export function lastTransaction() {
	return findTable('SyncNode')?.primaryStore?.env?.info?.()?.lastTxnId;
}

/**
 * Reads a record as a plain object.
 * @param {string} table
 * @param {string} id
 */
export async function readRecord(table, id) {
	const record = await findTable(table).get(id);
	return record ? plainCopy(record) : null;
}

/**
 * Reads records of one of the component's small tables: those that meet the conditions, or all.
 * @param {string} table
 * @param {HarperCondition[]} [conditions]
 */
export async function readAll(table, conditions = []) {
	const records = [];
	for await (const record of findTable(table).search({ conditions })) records.push(plainCopy(record));
	return records;
}

/** The names of the cluster's nodes; none if Harper runs alone. */
export async function readMembers() {
	const nodes = databases.system?.hdb_nodes;
	const names = [];
	if (nodes) for await (const { name } of nodes.search({ conditions: [] })) names.push(name);
	return names;
}

/**
 * The workers of all nodes.
 * @returns {Promise<{node: string, name: string, isRemoved: boolean}[]>} Also those of nodes that were removed.
 */
export async function readWorkers() {
	const nodes = await readAll('SyncNode');
	const workersOf = ({ id, workers, removed }) =>
		Array.from({ length: workers }, (_, index) => ({ node: id, name: `${id}-${index}`, isRemoved: removed === true }));
	return nodes.flatMap(workersOf);
}

/** Harper's records are frozen views; the core wants plain objects. */
function plainCopy(record) {
	return JSON.parse(JSON.stringify(record));
}

/** Returns an error's message without its quotations, which may be values of rows. */
export function withoutValues(message) {
	return String(message).replace(/"[^"]*"|'[^']*'|`[^`]*`/g, '…');
}
