/** How far a table has been read again, for GET /SyncControl. */

/**
 * @param {{number: number, given: string, from: string | null} | null | undefined} command The operators' last one.
 * @param {any[]} checkpoints The table's rows of SyncCheckpoint.
 * @param {any[]} sweeps The table's rows of SyncSweep.
 * @param {any[]} workers The statuses of the workers that read the table.
 */
export function resyncOf(command, checkpoints, sweeps, workers) {
	if (!command) return null;
	const { number, given: since, from } = command;
	const rule = workers[0]?.partitionBy ?? checkpoints[0]?.rule;
	const partitions = Number(rule?.split('/').at(-1) ?? 1);
	const rereads = checkpoints
		.filter((row) => row.rule === rule && row.reread?.resync.number === number)
		.map(({ reread, lastTimestamp }) => ({ ...reread, lastTimestamp }));
	const sum = (name) => rereads.reduce((total, one) => total + one[name], 0);
	const done = rereads.filter(({ done: isDone }) => isDone).length;
	const open = rereads.filter(({ done: isDone }) => !isDone).map(({ lastTimestamp }) => lastTimestamp ?? null);
	const ended = sweeps.filter((sweep) => sweep.number === number);
	const nodes = [...new Set(workers.map(({ worker }) => worker.slice(0, worker.lastIndexOf('-'))))];
	const state = stateOf(done === partitions, ended, nodes);
	const found = {
		state,
		since,
		from,
		partitions,
		partitionsDone: done,
		upTo: open.includes(null) || open.length === 0 ? null : open.sort()[0],
		rowsRead: sum('rows'),
		bytesBilled: sum('bytesBilled'),
		removed: ended.reduce((total, sweep) => total + sweep.removed, 0),
		endedAt:
			state === 'done' || state === 'refused'
				? (ended
						.map(({ at }) => at)
						.sort()
						.at(-1) ?? null)
				: null,
	};
	return { ...found, text: sentence(found) };
}

function stateOf(isRead, ended, nodes) {
	if (ended.some(({ state }) => state === 'refused')) return 'refused';
	if (!isRead) return 'reading';
	const isDone = (node) => ended.some((sweep) => sweep.node === node && sweep.state === 'done');
	return nodes.length > 0 && nodes.every(isDone) ? 'done' : 'removing';
}

/** One sentence for people. */
function sentence({ state, from, partitions, partitionsDone, rowsRead, bytesBilled, removed }) {
	const what = from === null ? 'the whole table' : `the rows from ${from} on`;
	const rows = `${rowsRead.toLocaleString('en')} rows`;
	const billed = `${(bytesBilled / 1e6).toFixed(1)} MB billed`;
	if (state === 'reading') {
		const part = partitions > 1 ? `, ${partitionsDone} of ${partitions} partitions are done` : '';
		return `${what} is being read again: ${rows} so far${part}; ${billed}`.replace('on is', 'on are');
	}
	if (state === 'refused') {
		return `${rows} were read again, and the source had lost most of its rows or all: nothing was removed; ${billed}`;
	}
	const gone = `${removed.toLocaleString('en')} that are no longer in the source`;
	if (state === 'removing') return `${rows} were read again; ${gone} were removed so far; ${billed}`;
	return `${rows} were read again, and ${gone} were removed; ${billed}`;
}
