/** What the nodes found when they compared their copies of a table with each other, for GET /SyncControl. */

/**
 * @param {any[]} summaries The table's rows of SyncCopy.
 * @param {string[]} names The nodes of the cluster.
 */
export function copiesOf(summaries, names) {
	const told = summaries
		.filter(({ node }) => names.includes(node))
		.sort((one, other) => (one.node < other.node ? -1 : 1));
	if (told.length === 0) return null;
	const state = told.some(({ stage, put }) => stage !== 'done' || put > 0) ? 'comparing' : 'compared';
	const rows = told.reduce((sum, { mended }) => sum + mended, 0);
	const upTo = isoOf(Math.min(...told.map(({ until }) => until)));
	const nodes = told.map(({ node, toldAt, mended }) => ({ node, comparedAt: isoOf(toldAt), rowsPutAgain: mended }));
	const text = `${state} with each other up to ${upTo}, ${rows.toLocaleString('en')} rows were put again`;
	return { state, upTo, text, nodes };
}

/** @param {number} ms */
function isoOf(ms) {
	return new Date(ms).toISOString();
}
