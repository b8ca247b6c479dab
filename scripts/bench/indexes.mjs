import { CEILING_TARGET, Source, TARGET, fromSource, inHarper, told } from './syncing.mjs';

/** The attributes that are indexed, in this order. */
const INDEXED = ['timestamp', 'mmsi', 'vessel_type'];
const COUNTS = [0, 1, 3];

/**
 * @typedef {{indexes: number, sync: import('./syncing.mjs').Measured, ceiling: import('./syncing.mjs').Measured}} IndexesRound
 */

/**
 * Measures the sync into tables that the application declares, with more and more indexes, and the bare loop into
 * tables of the same kind.
 * @param {import('./syncing.mjs').Options & {rounds: number}} options
 * @returns {Promise<IndexesRound[][]>} By round.
 */
export function measureIndexes(options) {
	return fromSource('prepared pages', Source.prepared, options.rows, async (source) => {
		const rounds = [];
		for (let round = 1; round <= options.rounds; round++) {
			const measured = [];
			for (const indexes of COUNTS) {
				const schema = [TARGET, CEILING_TARGET].map((table) => declaration(table, indexes)).join('');
				const measure = (harper) => measureOne(harper, { round, indexes, options });
				measured.push(await inHarper(source, measure, { schema, pace: options.pace }));
			}
			rounds.push(measured);
		}
		return rounds;
	});
}

/** @returns {Promise<IndexesRound>} */
async function measureOne(harper, { round, indexes, options }) {
	const profile = options.profile && `${options.profile}.${indexes}`;
	const sync = await told(`${indexes} indexes, ${round}`, harper.sync({ ...options, profile }));
	const ceiling = await told(`bare loop ${indexes}, ${round}`, harper.ceiling({ ...options, profile }));
	return { indexes, sync, ceiling };
}

function declaration(table, indexes) {
	const attributes = INDEXED.map((name, at) => `\t${name}: String${at < indexes ? ' @indexed' : ''}\n`);
	return `\ntype ${table} @table {\n\tid: ID @primaryKey\n${attributes.join('')}}\n`;
}
