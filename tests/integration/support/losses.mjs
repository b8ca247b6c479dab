/** Tells how rows came to be missing on one node of a cluster that are there on another. */

/** @typedef {import('../../support/harper.mjs').HarperNode} HarperNode */

/** Of the rows that a node lacks, so many are told. */
const TOLD_MAX = 20;

/** @param {HarperNode} node @param {string} text @returns {Promise<any[]>} */
const sql = (node, text) => node.operation({ operation: 'sql', sql: text });

/**
 * Describes for each node which rows of a table it lacks that others have, which of the rows that were committed together
 * those are, and what the node knows of all commits.
 * @param {HarperNode[]} nodes
 * @param {string} target The table's name in Harper.
 */
export async function tellLosses(nodes, target) {
	/** @type {Map<string, string>[]} When each row was committed, by its id, of each node. */
	const held = [];
	for (const node of nodes) {
		const rows = await sql(node, `SELECT id, _syncedAt AS written FROM data.${target}`);
		held.push(new Map(rows.map(({ id, written }) => [id, written])));
	}
	const all = new Map(held.flatMap((rows) => [...rows]));
	const ids = [...all.keys()].toSorted();
	const lines = [];
	for (const [place, node] of nodes.entries()) {
		const lacking = [...all].filter(([id]) => !held[place].has(id));
		lines.push(`${node.name} lacks ${lacking.length} rows`);
		for (const [id, written] of lacking.slice(0, TOLD_MAX)) {
			const holders = nodes.filter((_, other) => held[other].has(id)).map(({ name }) => name);
			const together = ids.filter((one) => all.get(one) === written);
			const order = `row ${together.indexOf(id) + 1} of ${together.length} of ${written}`;
			lines.push(`  ${id}, ${order}, is on ${holders.join(' and ')}`);
		}
		for (const table of ['SyncProof', 'SyncBatch']) {
			const commits = await sql(node, `SELECT * FROM data.${table}`);
			for (const { id, number, stamp, rows } of commits.toSorted((one, other) => one.number - other.number)) {
				lines.push(`  ${table} ${id}: ${number} at ${stamp}, rows ${rows?.from} to ${rows?.to} of ${rows?.totalRows}`);
			}
		}
	}
	return lines.join('\n');
}
