import { Source, fromSource, inHarper, told } from './syncing.mjs';

/** Evenly divided by each number of workers. */
const DAYS = 64;
const THREADS = [1, 2, 4];

/**
 * @typedef {object} WorkersRound
 * @property {number} threads
 * @property {import('./syncing.mjs').Measured} sync
 * @property {import('./syncing.mjs').Measured} ceiling
 * @property {import('./syncing.mjs').Bill} bill Of the sync.
 */

/**
 * Measures the sync of a table that is divided by day among the worker threads of one node, and bare loops on as many
 * threads, each in a Harper of its own.
 * @param {import('./syncing.mjs').Options & {rounds: number}} options
 * @returns {Promise<WorkersRound[][]>} By round.
 */
export function measureWorkers(options) {
	const open = (/** @type {number} */ rows) => Source.prepared(rows, DAYS);
	return fromSource('prepared pages', open, options.rows, async (source) => {
		const rounds = [];
		for (let round = 1; round <= options.rounds; round++) {
			const measured = [];
			for (const threads of THREADS) {
				measured.push(
					await inHarper(source, (harper) => measureOne(harper, { round, threads, options }), {
						threads,
						pace: options.pace,
					})
				);
			}
			rounds.push(measured);
		}
		return rounds;
	});
}

/** @returns {Promise<WorkersRound>} */
async function measureOne(harper, { round, threads, options }) {
	const profile = options.profile && `${options.profile}.${threads}`;
	const name = `${threads} worker${threads > 1 ? 's' : ''}, ${round}`;
	await harper.source.bill();
	const sync = await told(name, harper.sync({ ...options, profile }));
	const bill = await harper.source.bill();
	const ceiling = await told(`bare loops ${threads}, ${round}`, harper.ceiling({ ...options, profile }));
	return { threads, sync, ceiling, bill };
}
