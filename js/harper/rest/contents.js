/** How far the values of a table's rows have been compared with the source, for GET /SyncControl. */

/**
 * Sums up what the workers that read the table now have compared.
 * @param {any[]} rows The table's rows of SyncContents.
 * @param {any[]} workers The statuses of the table's workers.
 * @param {number} asked How often the operators wanted that.
 */
export function contentsOf(rows, workers, asked) {
	const owners = new Set(workers.filter(({ partitions }) => partitions.length > 0).map(({ worker }) => worker));
	const valid = rows.filter(({ owner }) => owners.has(owner));
	const begun = valid.filter(({ began }) => began !== null);
	const isAsked = [...owners].some((owner) => (valid.find((row) => row.owner === owner)?.asked ?? 0) < asked);
	const refusal = valid.find((row) => row.refusal)?.refusal ?? null;
	if (begun.length === 0 && !isAsked && refusal === null) return null;
	const sum = (name) => begun.reduce((total, row) => total + row[name], 0);
	const times = (name) => begun.map((row) => row[name] ?? null);
	const isOpen = isAsked || times('ended').includes(null);
	const found = {
		state: refusal !== null ? 'refused' : isOpen ? 'comparing' : 'compared',
		since: times('began').sort()[0] ?? null,
		endedAt: isOpen ? null : times('ended').sort().at(-1),
		upTo: times('upTo').includes(null) ? null : (times('upTo').sort()[0] ?? null),
		rows: sum('rows'),
		changed: sum('changed'),
		bytesBilled: sum('bytesBilled'),
	};
	return { ...found, text: sentence(found, refusal) };
}

/** One sentence for people. */
function sentence({ state, upTo, rows, changed, bytesBilled }, refusal) {
	if (state === 'refused') return `the values are not compared: ${refusal}`;
	const count = `${rows.toLocaleString('en')} rows`;
	const billed = `${(bytesBilled / 1e6).toFixed(1)} MB billed`;
	const differed = changed === 0 ? 'none differed' : `${changed.toLocaleString('en')} differed and were written again`;
	if (state === 'compared') return `the values of ${count} were compared: ${differed}; ${billed}`;
	const far = upTo === null ? '' : ` up to ${upTo}`;
	return `the values of ${count}${far} were compared so far: ${differed}; ${billed}`;
}
