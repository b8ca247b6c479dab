/** What is known of how equal a table and its source are, for GET /SyncControl. */

/** From the best to the worst. */
const STATES = ['equal', 'extra', 'suspected', 'repairing', 'different', 'refused'];

/**
 * Sums up the checks of a table: for each node those against the leaves of the workers that read the table now.
 * @param {any[]} checks Rows of SyncCheck.
 * @param {any[]} workers The statuses of the table's workers.
 * @param {number} asked How often the operators wanted it to be validated.
 */
export function validationOf(checks, workers, asked) {
	const owners = new Set(workers.filter(({ partitions }) => partitions.length > 0).map(({ worker }) => worker));
	const valid = checks.filter(({ owner }) => owners.has(owner));
	if (valid.length === 0) return null;
	const nodes = [...new Set(valid.map(({ node }) => node))].sort();
	const byNode = nodes.map((node) => ({ node, ...together(valid.filter((check) => check.node === node)) }));
	const isPending = valid.some((check) => check.asked < asked) || valid.length < owners.size * nodes.length;
	if (isPending) return { state: 'running', upTo: null, text: 'it is being validated', nodes: byNode };
	const state = worst(byNode);
	const upTo = byNode.map((one) => one.upTo).sort()[0];
	const different = byNode.filter((one) => one.state !== 'equal');
	const [first] = different.length > 0 ? different : byNode;
	return { state, upTo, text: sentence(first, nodes.length), nodes: byNode };
}

/** Sums up what one node found for several workers. */
function together(checks) {
	const sum = (name) => checks.reduce((total, check) => total + check[name], 0);
	return {
		state: worst(checks),
		upTo: checks.map(({ until }) => until).sort()[0],
		checkedAt: checks.map(({ checkedAt }) => checkedAt).sort()[0],
		rowsInBigQuery: sum('counted'),
		rowsHere: sum('stored'),
		missing: sum('missing'),
		extra: sum('extra'),
		bytesBilled: sum('bytesBilled'),
		refusal: checks.find(({ refusal }) => refusal)?.refusal ?? null,
	};
}

function worst(all) {
	return all.map(({ state }) => state).sort((one, other) => STATES.indexOf(other) - STATES.indexOf(one))[0];
}

/** One sentence for people. */
function sentence({ node, state, upTo, rowsInBigQuery, rowsHere, missing, extra, bytesBilled, refusal }, nodes) {
	if (state === 'refused') return `it could not be validated: ${refusal}`;
	const rows = rowsInBigQuery.toLocaleString('en');
	const billed = `${(bytesBilled / 1e6).toFixed(1)} MB billed`;
	if (state === 'equal') {
		const where = nodes > 1 ? ` on ${nodes} nodes` : '';
		return `equal up to ${upTo}${where}, ${rows} rows, 0 differences, ${billed}`;
	}
	if (state === 'extra') {
		const more = `${extra.toLocaleString('en')} more on ${node} that BigQuery no longer has`;
		return `all rows up to ${upTo} are there, ${rows} rows, and ${more}, ${billed}`;
	}
	const counts = `${rows} rows in BigQuery, ${rowsHere.toLocaleString('en')} on ${node}`;
	const least = `at least ${missing.toLocaleString('en')} missing and ${extra.toLocaleString('en')} only in Harper`;
	const next = {
		suspected: 'it is compared once more, because rows may be on their way',
		repairing: 'that is being mended',
		different: 'reading the rows again did not help',
	};
	return `different up to ${upTo}: ${counts}, ${least}; ${next[state]}; ${billed}`;
}
