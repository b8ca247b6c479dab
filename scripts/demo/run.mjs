import { setTimeout as sleep } from 'node:timers/promises';
import { compareTables } from '../../tests/support/compare.mjs';
import { temporaryFolder } from '../../tests/support/processes.mjs';
import { busy, colour, formatBytes, formatSeconds, print, step } from '../terminal.mjs';
import { formatCount, lookAround, painter, StatusLine, statusText } from './display.mjs';
import { Ending } from './ending.mjs';
import { DemoFailure } from './failure.mjs';
import { livePositions, openSource, TABLE, writeHistory } from './source.mjs';
import { startSync, TARGET, Watch } from './sync.mjs';

const LOOK_EVERY_MS = 250;
/** Counting rows takes time that the sync then lacks: at most this part of it. */
const LOOK_SHARE_MAX = 0.05;
const LOOK_PAUSE_MAX_MS = 2_000;
const REFRESH_MS = 1_000;
const LIVE_ROWS_PER_S = 10;
const LIVE_TROUBLE_MAX_MS = 60_000;
/** The slowest copying that is still waited for. */
const ROWS_PER_S_MIN = 200;
const SYNC_DEADLINE_MS = 120_000;
const STANDSTILL_MS = 120_000;
/** After this time without a new row a sync that is idle has all that it will ever have. */
const IDLE_STANDSTILL_MS = 15_000;

/**
 * @typedef {object} Stage
 * @property {import('./options.mjs').DemoOptions} options
 * @property {import('./source.mjs').Source} source
 * @property {import('../../tests/support/harper.mjs').HarperNode} harper
 * @property {Watch} watch
 * @property {StatusLine} line
 * @property {Ending} ending
 */

/**
 * Runs the demo to its end and removes all that it has made.
 *
 * @param {import('./options.mjs').DemoOptions} options
 * @param {import('./choice.mjs').Choice} choice
 * @returns {Promise<number>} The exit code.
 */
export async function runDemo(options, choice) {
	// The first folder makes the bench listen to signals, which then are this program's.
	temporaryFolder('demo').remove();
	const ending = new Ending();
	const line = new StatusLine();
	const interrupted = ending.wished.then(() => 'interrupted');
	const work = perform(options, choice, ending, line);
	work.catch(() => {});
	/** @type {any} */
	let result;
	try {
		result = await Promise.race([work, interrupted]);
	} catch (error) {
		await busy('cleaning up', () => ending.cleanUp());
		throw error;
	}
	line.clear();
	const isClean = await busy('ending', () => ending.cleanUp());
	if (result === 'interrupted') {
		print(
			options.once ? '  Interrupted: nothing was compared. All was ended and removed.' : '  All was ended and removed.'
		);
		if (options.once) return 130;
		return isClean ? 0 : 1;
	}
	print(JSON.stringify(result.json));
	return result.isEqual && isClean ? 0 : 1;
}

async function perform(options, choice, ending, line) {
	const source = await openSource(choice, options, ending);
	await writeHistory(source, options.rows, (text) => line.show(`  ${text}`));
	const harper = await startSync(source, options.threads, ending);
	const stage = { options, source, harper, watch: new Watch(harper), line, ending };
	return options.once ? copyOnce(stage) : keepCopying(stage);
}

/** @param {Stage} stage */
async function copyOnce(stage) {
	const { source, harper, line } = stage;
	let copied = { rows: 0, duration_ms: 0, bytesBilled: 0 };
	await step('sync', async () => {
		copied = await waitForRows(stage);
		line.clear();
		return `${formatCount(copied.rows)} rows`;
	});
	/** @type {any} */
	let comparison;
	await step('comparison', async () => {
		comparison = await compareTables({
			bigquery: source.client,
			source: { dataset: source.dataset, table: TABLE, cursor: 'timestamp' },
			harper,
			target: { table: TARGET },
		});
		return 'every row of both sides';
	});
	printComparison(comparison, copied);
	const { rows, missing, duplicate, phantom, different, equal } = comparison;
	const seconds = Math.round(copied.duration_ms / 100) / 10;
	return { isEqual: equal, json: { rows, missing, duplicate, phantom, different, seconds } };
}

/**
 * Waits until Harper has the rows, or until it is clear that it will not get them all.
 * @param {Stage} stage
 */
async function waitForRows({ options, watch, line }) {
	line.clear();
	const started_ms = performance.now();
	const deadline_ms = SYNC_DEADLINE_MS + (options.rows / ROWS_PER_S_MIN) * 1000;
	let seen = { rows: -1, at_ms: started_ms };
	for (;;) {
		const asked_ms = performance.now();
		const snapshot = await watch.look();
		const now_ms = performance.now();
		if (snapshot.targetRows !== seen.rows) seen = { rows: snapshot.targetRows, at_ms: now_ms };
		const duration_ms = seen.at_ms - started_ms;
		const still_ms = now_ms - seen.at_ms;
		const isComplete = snapshot.targetRows >= options.rows;
		if (isComplete || (snapshot.isIdle && still_ms > IDLE_STANDSTILL_MS)) {
			return { rows: snapshot.targetRows, duration_ms, bytesBilled: snapshot.bytesBilled };
		}
		if (still_ms > STANDSTILL_MS || now_ms - started_ms > deadline_ms) {
			const done = `${formatCount(snapshot.targetRows)} of ${formatCount(options.rows)} rows`;
			throw new DemoFailure(
				'DEADLINE',
				`The sync does not get on: ${done} after ${formatSeconds(now_ms - started_ms)}.`
			);
		}
		line.show(statusText(snapshot, options.rows), painter(snapshot.label));
		const pause_ms = Math.min((now_ms - asked_ms) / LOOK_SHARE_MAX, LOOK_PAUSE_MAX_MS);
		await sleep(Math.max(LOOK_EVERY_MS, pause_ms));
	}
}

function printComparison(comparison, { duration_ms, bytesBilled }) {
	const { missing, duplicate, phantom, different, equal, sourceRows, targetRows, samples } = comparison;
	print();
	const verdict = equal ? colour('green', 'Both tables are equal.') : colour('red', 'The tables differ.');
	print(`  ${colour('bold', verdict)}`);
	print(
		`  BigQuery has ${formatCount(sourceRows)} rows, Harper has ${formatCount(targetRows)}, copied in ${formatSeconds(duration_ms)}:`
	);
	const counts = Object.entries({ missing, duplicate, phantom, different });
	print(`  ${counts.map(([name, count]) => `${formatCount(count)} ${name}`).join(', ')}.`);
	if (bytesBilled > 0) print(`  BigQuery billed ${formatBytes(bytesBilled)} for the sync's queries.`);
	for (const { kind, side, row } of samples) print(`  ${kind}, in the ${side}: ${JSON.stringify(row)}`);
	print();
}

/** @param {Stage} stage */
async function keepCopying(stage) {
	const { options, source, harper, watch, line } = stage;
	const { httpUrl: harperUrl, credentials } = harper;
	print();
	for (const text of lookAround({ harperUrl, credentials, target: TARGET, bigQueryUrl: source.page })) print(text);
	print();
	print(`  BigQuery gets ${LIVE_ROWS_PER_S} new rows a second. Each is in Harper some seconds later.`);
	print('  Ctrl-C ends everything and removes it.');
	print();
	const written = { rows: options.rows };
	const writing = keepWriting(stage, written);
	const watching = (async () => {
		while (!stage.ending.isWished) {
			const snapshot = await watch.look();
			if (!stage.ending.isWished) line.show(statusText(snapshot, written.rows), painter(snapshot.label));
			await sleep(REFRESH_MS);
		}
	})();
	await Promise.all([writing, watching]);
}

/**
 * @param {Stage} stage
 * @param {{rows: number}} written Counts the rows.
 */
async function keepWriting({ source, ending }, written) {
	const positions = livePositions();
	let well_ms = performance.now();
	for (let next_ms = performance.now(); !ending.isWished; next_ms = Math.max(next_ms + 1000, performance.now())) {
		await sleep(next_ms - performance.now());
		const rows = Array.from({ length: LIVE_ROWS_PER_S }, () => /** @type {object} */ (positions.next().value));
		try {
			await source.client.insertAll(source.dataset, TABLE, rows);
			written.rows += rows.length;
			well_ms = performance.now();
		} catch (error) {
			// A fresh table may stay unknown to streaming for a while.
			if (performance.now() - well_ms > LIVE_TROUBLE_MAX_MS) throw error;
		}
	}
}
