/** Ways in which a Harper ends in the middle of its work, again and again, until all rows are there. */

import assert from 'node:assert/strict';

import { FAULT, until } from '../../support/index.mjs';
import { PATIENCE_MS, assertEqual, readControl, startComponent, untilAllRest } from './component.mjs';

const PAGE_ROWS = 500;
/** A life of Harper gets so many new pages at once, and further ones so slowly that each takes seconds. */
const PAGES_EACH_LIFE = 8;
const BYTES_PER_SECOND = 15_000;
/** An ending comes when so many rows more are in Harper, and then some milliseconds later. */
const ROWS_BETWEEN = [300, 2_000];
const EXTRA_MS_MAX = 60;

/**
 * @typedef {'SIGKILL' | 'SIGTERM' | 'SIGINT' | 'restart'} Ending `restart` is Harper's operation.
 * @typedef {import('../../support/harper.mjs').HarperNode} HarperNode
 * @typedef {import('./source.mjs').Source} Source
 */

/** All of them. @type {Ending[]} */
export const KINDS = ['SIGTERM', 'SIGKILL', 'restart', 'SIGINT'];

/**
 * Ends a Harper, and starts it again.
 * @param {HarperNode} harper
 * @param {Ending} ending
 */
export async function endAndStart(harper, ending) {
	if (ending === 'restart') return harper.restart();
	await harper.kill(ending);
	return harper.start();
}

/**
 * Slows pages down beyond so many, so that no sync is done before its ending comes. What was sent before is sent again
 * as fast as it can be, for a life begins by reading again what the one before had read of a result.
 * @param {Source} source
 * @param {{pages?: number, bytesPerSecond?: number}} [options] Fast pages of a life, and the speed of further ones.
 */
export function rationPages(source, { pages = PAGES_EACH_LIFE, bytesPerSecond = BYTES_PER_SECOND } = {}) {
	const sent = new Set();
	let left = pages;
	const when = (/** @type {{url: string}} */ { url }) => {
		if (sent.has(url)) return false;
		sent.add(url);
		left -= 1;
		return left < 0;
	};
	const fault = FAULT.slow({ bytesPerSecond });
	const rule = source.proxy.faults.add({ route: 'getQueryResults', fault, when });
	return {
		/** Another ration is due. */
		renew() {
			left = pages;
		},
		remove: rule.remove,
	};
}

/**
 * How many rows of a table are in Harper, as its stored progress tells; undefined while nobody answers.
 * @param {HarperNode} harper
 * @param {string} id
 * @returns {Promise<number | undefined>}
 */
export async function rowsIn(harper, id) {
	const control = await readControl(harper).catch(() => undefined);
	return control?.tables.find((/** @type {any} */ table) => table.id === id)?.rows;
}

/**
 * Syncs a table while Harper ends in the given ways, each time before all rows are there, and compares both sides.
 * @param {object} options
 * @param {Source} options.source
 * @param {string} options.table It has the same name as its sync.
 * @param {number} options.tableRows
 * @param {Record<string, unknown>} [options.more] Keys of the table's configuration.
 * @param {Ending[]} options.endings
 * @param {() => number} options.random
 * @param {number} [options.threads]
 * @param {any[]} [options.expected] The rows that the target is to have, unless they are the source's.
 * @param {(line: string) => void} options.tell
 */
export async function syncThroughEndings({ source, table, tableRows, more, endings, random, threads, expected, tell }) {
	const bigquery = { ...source.connection(), table, id: table, timestampColumn: 'timestamp', batchSize: PAGE_ROWS };
	const ration = rationPages(source);
	const running = await startComponent({
		config: { bigquery: { ...bigquery, ...more }, sync: { pollInterval: 1_000 } },
		threads,
	});
	const { harper } = running;
	let rows = 0;
	try {
		for (const [number, ending] of endings.entries()) {
			const [least, most] = ROWS_BETWEEN;
			const wanted = rows + least + Math.floor(random() * (most - least));
			const wait = { deadlineMs: PATIENCE_MS, everyMs: 100, what: `${wanted} rows before ending ${number + 1}` };
			await until(async () => ((await rowsIn(harper, table)) ?? 0) >= wanted, wait);
			await new Promise((resolve) => setTimeout(resolve, random() * EXTRA_MS_MAX));
			await endAndStart(harper, ending);
			const told = { deadlineMs: PATIENCE_MS, what: 'the stored progress' };
			rows = await until(() => rowsIn(harper, table), told);
			assert.ok(rows < tableRows, `ending ${number + 1} did not hit a sync under way`);
			ration.renew();
			tell(`${ending} after ${wanted} rows, which left ${rows}`);
		}
		ration.remove();
		await untilAllRest(harper, table);
		return await assertEqual({ source, harper }, { table, target: 'BigQueryData', expected, ...more });
	} finally {
		ration.remove();
		await running.remove();
	}
}
