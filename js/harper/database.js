/** Reads Harper's database, and Harper's descriptions of its tables. */

/** The database of the targets and of the component's own tables. */
export const DATABASE = 'data';

/** Sorts behind all characters that ids have. */
const LAST = '\uffff';

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

/**
 * When this node stored a record, by its own clock, whichever node wrote it; undefined if the store does not tell.
 * @param {string} table
 * @param {string} id
 * @returns {number | undefined}
 */
export function localTimeOf(table, id) {
	return findTable(table).primaryStore?.getEntry?.(id)?.localTime;
}

/**
 * A record as it is stored, with the time of its writing; undefined if it does not exist. What Harper returns otherwise
 * cannot be compared: its nested values have no members of their own.
 * @param {any} table
 * @param {string | number} id
 * @returns {{value: any, version: number} | undefined}
 */
export function entryOf(table, id) {
	return table.primaryStore.getEntry(id);
}

/**
 * The time of writing of a record, in ms, by which Harper decides which of two versions it keeps; undefined if the record
 * does not exist, or if the store does not tell.
 * @param {any} table
 * @param {string | number} id
 * @returns {number | undefined}
 */
export function versionOf(table, id) {
	return table.primaryStore?.getEntry?.(id)?.version;
}

/**
 * Up to when Harper has removed deletions, in ms since 1970; undefined if the store does not tell, nor when records were
 * written.
 * @param {any} table
 * @returns {number | undefined}
 */
export function deletionsRemovedUntil(table) {
	if (!table.primaryStore?.env?.info) return undefined;
	const removed = table.auditStore?.get(Symbol.for('last-removed'));
	return removed?.length === 8 ? new DataView(new Uint8Array(removed).buffer).getFloat64(0, true) : undefined;
}

/** Whether the store tells the bytes of a table's records: only LMDB does. @param {string} table */
export function tellsBytes(table) {
	const store = findTable(table).primaryStore;
	return Boolean(store?.env?.info && store.getKeys && store.getBinary);
}

/**
 * The bytes in which a record is stored; undefined if it does not exist.
 * @param {string} table
 * @param {string} id
 * @returns {Uint8Array | undefined}
 */
export function bytesOf(table, id) {
	return findTable(table).primaryStore.getBinary(id);
}

/**
 * The bytes of the records whose ids start with a text.
 * @param {string} table
 * @param {string} prefix
 * @returns {Map<string, Uint8Array>}
 */
export function bytesOfAll(table, prefix) {
	const store = findTable(table).primaryStore;
	const ids = store.getKeys(prefix === '' ? {} : { start: prefix, end: `${prefix}${LAST}` });
	return new Map([...ids].map((id) => [id, store.getBinary(id) ?? new Uint8Array()]));
}

/** The names of the cluster's nodes; none if Harper runs alone. */
export async function readMembers() {
	const nodes = databases.system?.hdb_nodes;
	const names = [];
	if (nodes) for await (const { name } of nodes.search({ conditions: [] })) names.push(name);
	return names;
}

/** Harper's records are frozen views; the core wants plain objects. */
function plainCopy(record) {
	return JSON.parse(JSON.stringify(record));
}

/** Returns an error's message without its quotations, which may be values of rows. */
export function withoutValues(message) {
	return String(message).replace(/"[^"]*"|'[^']*'|`[^`]*`/g, '…');
}
