/** Ways in which a Harper ends in the middle of its work, again and again, until all rows are there. */

import { FAULT, until } from '../../support/index.mjs';
import { PATIENCE_MS, assertEqual, startComponent, tableStatus, untilStatus } from './component.mjs';

/** Rows of a page, of which a life of Harper gets so many. */
const PAGE_ROWS = 500;
const PAGES_EACH_LIFE = 12;
/** An ending comes when so many rows more are in Harper, and then some milliseconds later. */
const ROWS_BETWEEN = [300, 3_000];
const EXTRA_MS_MAX = 60;

/**
 * @typedef {'SIGKILL' | 'SIGTERM' | 'SIGINT' | 'restart'} Ending `restart` is Harper's operation.
 * @typedef {import('../../support/harper.mjs').HarperNode} HarperNode
 * @typedef {import('./source.mjs').Source} Source
 */

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
 * Holds pages back beyond so many, so that no sync can be done before its ending comes.
 * @param {Source} source
 */
export function rationPages(source) {
	let served = 0;
	const when = () => ++served > PAGES_EACH_LIFE;
	const rule = source.proxy.faults.add({ route: 'getQueryResults', fault: FAULT.hang(), when });
	return {
		/** Another ration is due. */
		renew() {
			served = 0;
		},
		remove: rule.remove,
	};
}

/**
 * Syncs a table while Harper ends in the given ways, and compares both sides.
 * @param {object} options
 * @param {Source} options.source
 * @param {string} options.table It has the same name as its sync.
 * @param {Record<string, unknown>} [options.more] Keys of the table's configuration.
 * @param {Ending[]} options.endings
 * @param {() => number} options.random
 * @param {number} [options.threads]
 * @param {any[]} [options.expected] The rows that the target is to have, unless they are the source's.
 * @param {(line: string) => void} options.tell
 */
export async function syncThroughEndings({ source, table, more, endings, random, threads = 1, expected, tell }) {
	const bigquery = { ...source.connection(), table, id: table, timestampColumn: 'timestamp', batchSize: PAGE_ROWS };
	const ration = rationPages(source);
	const running = await startComponent({
		config: { bigquery: { ...bigquery, ...more }, sync: { pollInterval: 1_000 } },
		threads,
	});
	const { harper } = running;
	try {
		for (const [number, ending] of endings.entries()) {
			const rows = async () => (await tableStatus(harper, table).catch(() => undefined))?.rows ?? 0;
			const [least, most] = ROWS_BETWEEN;
			const wanted = (await rows()) + least + Math.floor(random() * (most - least));
			const wait = { deadlineMs: PATIENCE_MS, everyMs: 10, what: `${wanted} rows before ending ${number + 1}` };
			await until(async () => (await rows()) >= wanted, wait);
			await new Promise((resolve) => setTimeout(resolve, random() * EXTRA_MS_MAX));
			ration.renew();
			await endAndStart(harper, ending);
			tell(`${ending} after ${wanted} rows`);
		}
		ration.remove();
		const isDone = (/** @type {any} */ { state, watermark }) => state === 'idle' && watermark !== null;
		await untilStatus(harper, table, isDone, 'to be up to date');
		return await assertEqual({ source, harper }, { table, target: 'BigQueryData', expected, ...more });
	} finally {
		ration.remove();
		await running.remove();
	}
}
