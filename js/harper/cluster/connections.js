/** Asks Harper whether the databases of this node are connected to those of the other nodes. */

/** Harper 4.7 may never answer if several ask at the same time. */
const WAIT_MS = 1_000;

/** @typedef {{name?: string, database_sockets?: {database: string, connected: boolean}[]}} Connection */

/** @type {Promise<Map<string, string[]>> | undefined} The question that is under way. */
let asking;

/**
 * Returns the databases that are not connected, by the other node's name. It is empty if Harper does not tell.
 * @returns {Promise<Map<string, string[]>>}
 */
export function unconnectedDatabases() {
	asking ??= ask().finally(() => {
		asking = undefined;
	});
	return asking;
}

async function ask() {
	const told = server.operation?.({ operation: 'cluster_status' }, {}).catch(() => undefined);
	const silence = new Promise((resolve) => {
		setTimeout(resolve, WAIT_MS).unref();
	});
	/** @type {{connections?: Connection[]} | undefined} */
	const status = await Promise.race([told, silence]);
	const found = (status?.connections ?? []).map(({ name, database_sockets: sockets }) => {
		const broken = (sockets ?? []).filter(({ connected }) => !connected).map(({ database }) => database);
		return /** @type {[string, string[]]} */ ([name ?? '', broken]);
	});
	return new Map(found.filter(([, databases]) => databases.length > 0));
}
