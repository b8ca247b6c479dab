import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { FAULT, VESSEL_SCHEMA, duplicated, randomFrom, size, until, vesselPositions } from '../support/index.mjs';
import { PATIENCE_MS, assertEqual, startComponent, tableStatus, untilRows, untilStatus } from './support/component.mjs';
import { backfillQueries, startSource } from './support/source.mjs';

const CRASHES = size(4, 10);
const PAGE_ROWS = 1_000;
/** Each crash comes when so many rows more are in Harper, and then some milliseconds later. */
const ROWS_BETWEEN = [500, 4_500];
/** No life gets further than this beyond the one before; more than two pages and the rows between. */
const ROWS_EACH_LIFE_MAX = 6_500;
const ROWS = (CRASHES + 1) * ROWS_EACH_LIFE_MAX;
const EXTRA_MS_MAX = 100;
const SEED = Number(process.env.CRASH_SEED ?? Date.now() % 1_000_000);
const SMALL_ROWS = size(8_000, 20_000);

/** @type {import('./support/source.mjs').Source} */
let source;

before(async () => {
	source = await startSource();
});

after(() => source?.stop());

/**
 * Holds back what lies behind a row of the result, so that no sync can be done before its crash comes.
 * @param {() => number} row
 */
function holdBackFrom(row) {
	const when = (/** @type {{url: string}} */ { url }) => Number(/startIndex=(\d+)/.exec(url)?.[1]) >= row();
	return source.proxy.faults.add({ route: 'getQueryResults', fault: FAULT.hang(), when });
}

/** The progress that Harper holds, as the last commit left it; undefined between two windows. */
async function storedProgress(harper, id) {
	const search = { operation: 'search_by_id', table: 'SyncCheckpoint', ids: [`${id}:0`], get_attributes: ['*'] };
	const [checkpoint] = await harper.operation(search);
	return checkpoint?.window ?? undefined;
}

test('kills_in_mid_sync_lose_and_double_nothing_and_the_result_is_read_on', async (context) => {
	context.diagnostic(`CRASH_SEED=${SEED}`);
	const random = randomFrom(SEED);
	// Some rows are there twice or three times: their ids hang on how many of them came before.
	await source.fill('crashing', VESSEL_SCHEMA, crashingRows());
	const bigquery = { ...source.connection(), table: 'crashing', timestampColumn: 'timestamp', batchSize: PAGE_ROWS };
	let held = ROWS_EACH_LIFE_MAX;
	const barrier = holdBackFrom(() => held);
	const running = await startComponent({ config: { bigquery, sync: { pollInterval: 1000 } } });
	try {
		const { harper } = running;
		let offset = 0;
		for (let crash = 1; crash <= CRASHES; crash++) {
			const [least, most] = ROWS_BETWEEN;
			const wanted = offset + least + Math.floor(random() * (most - least));
			const extraMs = random() * EXTRA_MS_MAX;
			const enough = async () => (await tableStatus(harper, 'crashing'))?.windowProgress?.[0] >= wanted;
			await until(enough, { deadlineMs: PATIENCE_MS, everyMs: 50, what: `${wanted} rows` });
			await new Promise((resolve) => setTimeout(resolve, extraMs));
			await harper.kill('SIGKILL');
			held += ROWS_EACH_LIFE_MAX;
			await harper.start();
			const progress = await storedProgress(harper, 'crashing');
			assert.ok(progress, `crash ${crash} did not hit a sync under way`);
			assert.ok(progress.offset >= wanted && progress.offset < progress.totalRows, JSON.stringify(progress));
			context.diagnostic(`crash ${crash} after ${progress.offset} of ${progress.totalRows} rows`);
			({ offset } = progress);
		}
		barrier.remove();
		const status = await untilRows(harper, 'crashing', ROWS);
		assert.equal(backfillQueries(source.proxy).length, 1, 'the result of the first query was read to its end');
		assert.equal(status.rows, ROWS, 'nothing was written twice');
		const counts = await assertEqual({ source, harper }, { table: 'crashing', target: 'BigQueryData' });
		assert.equal(counts.targetRows, ROWS);
	} finally {
		await running.remove();
	}
});

function* crashingRows() {
	yield* vesselPositions({ rows: ROWS - 6_000 });
	yield* duplicated(vesselPositions({ rows: 1_000, seed: 3 }), 3);
	yield* duplicated(vesselPositions({ rows: 1_500, seed: 4 }), 2);
}

describe('a Harper that runs already', () => {
	/** @type {import('./support/component.mjs').Running} */
	let running;

	before(async () => {
		running = await startComponent({ config: { bigquery: { ...source.connection(), tables: [] } } });
	});

	after(() => running?.remove());

	/**
	 * Has it sync one table and nothing else.
	 * @param {string} table
	 * @param {{targetTable: string, batchSize: number}} more
	 */
	function sync(table, more) {
		const bigquery = { ...source.connection(), table, id: table, timestampColumn: 'timestamp', ...more };
		running.application.configure({ bigquery, sync: { pollInterval: 1000 }, retry: { initialDelay: 50 } });
	}

	test('queries_a_result_that_is_gone_again_without_harm', async () => {
		await source.fill('lost', VESSEL_SCHEMA, duplicated(vesselPositions({ rows: SMALL_ROWS / 2 }), 2));
		source.proxy.reset();
		const rule = source.proxy.faults.add({ route: 'getQueryResults', nth: 3, fault: FAULT.loseResult() });
		try {
			const { harper } = running;
			sync('lost', { targetTable: 'Lost', batchSize: 2000 });
			await untilRows(harper, 'lost', SMALL_ROWS);
			assert.equal(rule.injected, 1);
			assert.equal(backfillQueries(source.proxy).length, 2);
			const counts = await assertEqual({ source, harper }, { table: 'lost', target: 'Lost' });
			assert.equal(counts.targetRows, SMALL_ROWS);
			const { lastError } = await untilStatus(harper, 'lost', ({ state }) => state === 'idle', 'to rest');
			assert.equal(lastError, null);
		} finally {
			rule.remove();
		}
	});

	test('queries_a_result_that_went_with_a_crash_again_without_harm', async () => {
		await source.fill('expired', VESSEL_SCHEMA, duplicated(vesselPositions({ rows: SMALL_ROWS / 2 }), 2));
		const barrier = holdBackFrom(() => SMALL_ROWS / 2);
		try {
			const { harper } = running;
			source.proxy.reset();
			sync('expired', { targetTable: 'Expired', batchSize: 1000 });
			const begun = async () => (await tableStatus(harper, 'expired'))?.windowProgress?.[0] >= 2000;
			await until(begun, { deadlineMs: PATIENCE_MS, everyMs: 50, what: 'two thousand rows' });
			await harper.kill('SIGKILL');
			barrier.remove();
			// A day later, the result no longer exists.
			const requests = source.proxy.requests('getQueryResults');
			const jobs = requests.map(({ path }) => path.replace(/^.*\/queries\/|\?.*$/g, ''));
			for (const job of new Set(jobs)) source.proxy.loseResult(job);
			source.proxy.reset();
			await harper.start();
			await untilRows(harper, 'expired', SMALL_ROWS);
			assert.equal(backfillQueries(source.proxy).length, 1);
			const counts = await assertEqual({ source, harper }, { table: 'expired', target: 'Expired' });
			assert.equal(counts.targetRows, SMALL_ROWS);
		} finally {
			barrier.remove();
		}
	});
});
