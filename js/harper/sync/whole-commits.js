/** Keeps Harper 4.7 from losing small transactions, both local ones and those from other nodes. */

/** The component's tables that a transaction of several records may touch first. */
const OWN_TABLES = ['SyncBatch', 'SyncAudit', 'SchemaVersion'];

/**
 * Makes Harper apply a transaction as a whole, without conditions, if it touches this table first.
 *
 * Harper 4.7 nests a transaction of fewer than 100 writes into as many conditions: each record must still be as it was
 * read. If one has changed meanwhile, and the innermost condition is that a record does not exist yet, the store
 * (lmdb 3) skips all writes and still reports success: inside a condition that failed, a condition for a new record
 * counts as fulfilled. So a small batch behind another one vanished on its way to other nodes. After conflicts, Harper
 * itself does without conditions: it keeps a measure of their risk for each table, which is set here.
 * @param {any} table
 */
function commitAsWhole(table) {
	const store = table?.primaryStore;
	if (store && store.retryRisk !== Infinity) store.retryRisk = Infinity;
}

/** Does so for the component's transactions: those of this thread, and those that arrive from other nodes. */
export function commitOwnAsWhole() {
	for (const name of OWN_TABLES) commitAsWhole(databases.data?.[name]);
}
