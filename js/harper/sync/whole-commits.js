/** Keeps Harper 4.7 from losing small transactions, both local ones and those from other nodes. */

/** Those of the component's own tables that a transaction of several records touches first. */
const OWN_TABLES = ['SyncBatch', 'SyncAudit', 'SchemaVersion'];

/**
 * Lets transactions that touch a table first be applied as a whole, with the records as they are then.
 *
 * Harper 4.7 nests a transaction of less than 100 writes into as many conditions: each record must be as it was read.
 * Where one has changed meanwhile and the innermost is of a new record, the store (lmdb 3) skips the writes and still
 * reports success: behind a condition that failed, one for a new record counts as fulfilled. So a small batch behind
 * another one vanished on its way to the other nodes. Harper itself chooses the other way after conflicts, by a measure
 * of their risk that it keeps for each table.
 * @param {any} table
 */
function commitAsWhole(table) {
	const store = table?.primaryStore;
	if (store && store.retryRisk !== Infinity) store.retryRisk = Infinity;
}

/** Does so for all transactions of the component, of this thread and those that arrive on it. */
export function commitOwnAsWhole() {
	for (const name of OWN_TABLES) commitAsWhole(databases.data?.[name]);
}
