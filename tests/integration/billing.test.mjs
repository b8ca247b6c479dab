/** What BigQuery bills for a sync, as the proxy's model of its prices tells: whole columns of the scanned partitions. */

import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { VESSEL_SCHEMA, bigQueryClient, size, until, vesselPositions } from '../support/index.mjs';
import {
	PATIENCE_MS,
	assertEqual,
	postControl,
	startComponent,
	tableStatus,
	untilRows,
	untilStatus,
} from './support/component.mjs';
import { DATASET, recent, startSource } from './support/source.mjs';

const DAY_MS = 86_400_000;
const DAYS = 10;
const ROWS = size(50_000, 200_000);
/** Two of the days fit into a window, three do not. */
const WINDOW_ROWS_MAX = ROWS / 4;
const WINDOWS = 5;
const SMALL_ROWS = 2_000;
const POLL_MS = 500;
const TIMESTAMP_BYTES = 8;
/** A query's bill is rounded to whole bytes, because the proxy takes texts as long as they are on average. */
const ROUNDING_BYTES = WINDOWS;
/** Steady attempts, and no circuit breaker, which would leave BigQuery alone for a minute. */
const RETRY = { initialDelay: 1_000, backoffMultiplier: 1, maxAttempts: 100 };
const BY_DAY = { timePartitioning: { type: 'DAY', field: 'timestamp' } };

/** Few columns, for it is the rows that matter. */
const NARROW_SCHEMA = VESSEL_SCHEMA.filter(({ name }) => ['mmsi', 'speed', 'timestamp'].includes(name));

/** @param {Parameters<typeof vesselPositions>[0]} options */
function* narrow(options) {
	for (const { mmsi, speed, timestamp } of vesselPositions(options)) yield { mmsi, speed, timestamp };
}

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('../support/index.mjs').FaultProxy} The meter: bills the very bytes, without the minimum per query. */
let meter;
/** @type {import('../support/index.mjs').FaultProxy} Answers what a query would bill, so that the meter is left alone. */
let estimator;
/** @type {any[]} The bodies of the queries since the test began. */
let queries = [];

before(async () => {
	source = await startSource();
	meter = await source.addProxy({ minimumBytes: 0 });
	meter.accounting = true;
	meter.maintainsModification = true;
	estimator = await source.addProxy({ minimumBytes: 0 });
	estimator.accounting = true;
	// Injects nothing: its condition only keeps what passes.
	meter.faults.add({ route: 'jobs.query', fault: { kind: 'hang' }, when: ({ body }) => void queries.push(body) });
});

after(() => source?.stop());

beforeEach(() => {
	meter.reset();
	queries = [];
});

/**
 * What a query would bill, by a dry run.
 * @param {string} sql
 * @returns {Promise<number>}
 */
async function costOf(sql) {
	const client = bigQueryClient({ url: estimator.url, project: source.emulator.project });
	const answer = await client.request('POST', '/queries', { body: { query: sql, useLegacySql: false, dryRun: true } });
	return Number(answer.totalBytesProcessed);
}

/** @param {string} table */
const nameOf = (table) => `\`${source.emulator.project}.${DATASET}.${table}\``;

/**
 * @param {string} table
 * @param {Record<string, any>} [more] Further keys of `bigquery`.
 * @param {Record<string, any>} [sections]
 */
function configuration(table, more = {}, sections = {}) {
	const bigquery = { ...source.connection(meter.url), table, timestampColumn: 'timestamp', ...more };
	return { bigquery, sync: { pollInterval: POLL_MS }, retry: RETRY, ...sections };
}

/**
 * Waits until a table has been polled some times more.
 * @param {string} table
 * @param {number} polls
 */
function untilPolled(table, polls) {
	const polled = () => meter.requests('tables.get').filter(({ path }) => path.endsWith(`/${table}`));
	const wanted = polled().length + polls;
	return until(() => polled().length >= wanted, { deadlineMs: PATIENCE_MS, what: `${polls} polls of ${table}` });
}

/**
 * Divides requests into those that fulfil a condition and the others.
 * @template T
 * @param {T[]} all
 * @param {(one: T) => boolean} condition
 */
const divide = (all, condition) => [all.filter(condition), all.filter((one) => !condition(one))];

/** @param {number} found @param {number} wanted */
function assertBytes(found, wanted) {
	assert.ok(Math.abs(found - wanted) <= ROUNDING_BYTES, `${found} bytes, ${wanted} expected`);
}

describe('a table that is partitioned by day', () => {
	/** @type {import('./support/component.mjs').Running} */
	let running;

	before(async () => {
		await source.fill('by_day', NARROW_SCHEMA, narrow({ rows: ROWS, days: DAYS }), BY_DAY);
		const limits = { maxRowsPerWindow: WINDOW_ROWS_MAX };
		// What is read before the test begins would be missing on its bill.
		const sync = { pollInterval: POLL_MS, autoStart: false };
		running = await startComponent({ config: configuration('by_day', {}, { limits, sync }) });
	});

	after(() => running?.remove());

	test('is_billed_once_in_a_backfill_of_several_windows_and_once_more_for_the_cursors_that_are_counted', async () => {
		const { harper } = running;
		await postControl(harper, { action: 'start' });
		const status = await untilRows(harper, 'by_day', ROWS);
		const ofNull = (/** @type {{sql?: string | null}} */ { sql }) => /IS NULL$/.test(sql ?? '');
		const isAsked = () => meter.requests('jobs.query').some(ofNull);
		await until(isAsked, { deadlineMs: PATIENCE_MS, what: 'the rows without a cursor to be counted' });
		const asked = meter.requests('jobs.query');
		// To cut the windows between partitions, their rows are counted: of all columns, this reads the cursor alone.
		const [counts, others] = divide(asked, ({ sql }) => /GROUP BY starts/.test(sql ?? ''));
		assert.equal(counts.length, 1);
		assert.equal(counts[0].bytesBilled, ROWS * TIMESTAMP_BYTES);
		// Rows without a cursor are in a partition of their own, which is empty.
		const [empty, windows] = divide(others, ofNull);
		assert.deepEqual(
			empty.map(({ bytesBilled }) => bytesBilled),
			[0]
		);
		assert.equal(windows.length, WINDOWS);
		const everything = await costOf(`SELECT * FROM ${nameOf('by_day')}`);
		for (const { bytesBilled } of windows) assertBytes(bytesBilled, everything / WINDOWS);
		const billed = windows.reduce((sum, one) => sum + one.bytesBilled, 0);
		assertBytes(billed, everything);
		assert.equal(meter.billing().total, billed + counts[0].bytesBilled);
		assert.equal(status.bytesBilled, meter.billing().total);
		assert.equal(status.rows, ROWS);
	});

	test('costs_nothing_as_long_as_nothing_changes', async () => {
		const { harper } = running;
		const before = await untilRows(harper, 'by_day', ROWS);
		meter.reset();
		await untilPolled('by_day', 5);
		assert.deepEqual(Object.keys(meter.counts()), ['tables.get']);
		assert.equal(meter.billing().total, 0);
		assert.equal((await tableStatus(harper, 'by_day')).bytesBilled, before.bytesBilled);
	});

	test('bills_the_partitions_of_the_late_range_alone_when_a_row_is_added', async () => {
		const { harper } = running;
		const before = await untilRows(harper, 'by_day', ROWS);
		meter.reset();
		await source.bigquery.loadRows(DATASET, 'by_day', recent(narrow({ rows: 1 }), { agoMs: 5_000 }));
		const status = await untilRows(harper, 'by_day', ROWS + 1);
		// The late range lies before the newest row of the backfill, in its last day.
		const lateFrom = new Date(Date.parse(before.watermark) - 600_000).toISOString();
		const late = await costOf(`SELECT * FROM ${nameOf('by_day')} WHERE timestamp > TIMESTAMP '${lateFrom}'`);
		const everything = await costOf(`SELECT * FROM ${nameOf('by_day')}`);
		assert.ok(late > 0 && late < everything / 5, `${late} of ${everything} bytes`);
		assertBytes(meter.billing().total, late);
		assert.equal(status.bytesBilled, before.bytesBilled + meter.billing().total);
		await assertEqual({ source, harper }, { table: 'by_day', target: 'BigQueryData' });
		meter.reset();
		await untilPolled('by_day', 3);
		assert.deepEqual(Object.keys(meter.counts()), ['tables.get']);
	});
});

describe('limits and columns', () => {
	/** @type {import('./support/component.mjs').Running} */
	let running;
	let everything = 0;

	before(async () => {
		await source.fill('small', VESSEL_SCHEMA, vesselPositions({ rows: SMALL_ROWS }));
		everything = await costOf(`SELECT * FROM ${nameOf('small')}`);
		assert.ok(everything > SMALL_ROWS * 10);
		running = await startComponent({
			config: configuration('small', { id: 'limited' }, { limits: { maxBytesBilledPerQuery: everything - 1 } }),
		});
	});

	after(() => running?.remove());

	test('a_query_above_the_limit_of_one_query_fails_free_of_charge_until_the_limit_is_raised', async () => {
		const { harper, application } = running;
		const refused = await untilStatus(harper, 'limited', ({ state }) => state === 'blocked', 'to be refused');
		assert.equal(refused.lastError.code, 'bytes_billed_limit');
		assert.match(refused.lastError.message, /maxBytesBilledPerQuery/);
		assert.equal(refused.bytesBilled, 0);
		assert.ok(queries.every(({ maximumBytesBilled }) => maximumBytesBilled === `${everything - 1}`));
		assert.equal(meter.billing().total, 0);
		application.configure(
			configuration('small', { id: 'limited' }, { limits: { maxBytesBilledPerQuery: everything } })
		);
		const { bytesBilled, lastError } = await untilRows(harper, 'limited', SMALL_ROWS);
		assert.equal(lastError, null);
		assert.equal(bytesBilled, everything);
		assert.equal(meter.billing().total, everything);
		await assertEqual({ source, harper }, { table: 'small', target: 'BigQueryData' });
	});

	test('a_large_table_is_asked_about_first_and_no_query_above_the_limit_is_even_sent', async () => {
		const { harper, application } = running;
		meter.pretences.set(`${DATASET}.large`, { numBytes: `${2 ** 30}` });
		await source.fill('large', VESSEL_SCHEMA, vesselPositions({ rows: SMALL_ROWS }));
		const large = { targetTable: 'Large' };
		application.configure(configuration('large', large, { limits: { maxBytesBilledPerQuery: everything - 1 } }));
		const refused = await untilStatus(harper, 'large', ({ state }) => state === 'blocked', 'to be refused');
		assert.equal(refused.lastError.code, 'bytes_billed_limit');
		assert.ok(queries.length > 0 && queries.every(({ dryRun }) => dryRun === true));
		application.configure(configuration('large', large, { limits: { maxBytesBilledPerQuery: everything } }));
		const { bytesBilled } = await untilRows(harper, 'large', SMALL_ROWS);
		assert.equal(bytesBilled, everything);
		assert.equal(meter.billing().total, everything);
		await assertEqual({ source, harper }, { table: 'large', target: 'Large' });
	});

	test('without_a_limit_none_is_sent', async () => {
		const { harper, application } = running;
		application.configure(configuration('small', { id: 'unlimited', targetTable: 'Unlimited' }));
		await untilRows(harper, 'unlimited', SMALL_ROWS);
		assert.ok(queries.length > 0 && queries.every((query) => !('maximumBytesBilled' in query)));
	});

	test('fewer_columns_bill_fewer_bytes', async () => {
		const { harper, application } = running;
		const columns = ['mmsi', 'speed'];
		application.configure(configuration('small', { id: 'narrow', targetTable: 'Narrow', columns }));
		const { bytesBilled } = await untilRows(harper, 'narrow', SMALL_ROWS);
		const wanted = await costOf(`SELECT mmsi, speed, timestamp FROM ${nameOf('small')}`);
		assert.ok(wanted < everything / 2);
		assert.equal(bytesBilled, wanted);
		assert.equal(meter.billing().total, wanted);
		await assertEqual({ source, harper }, { table: 'small', target: 'Narrow', columns: [...columns, 'timestamp'] });
	});

	test('a_table_that_used_up_its_day_pauses_until_midnight_and_bills_nothing_meanwhile', async () => {
		const { harper, application } = running;
		const leftMs = DAY_MS - (Date.now() % DAY_MS);
		if (leftMs < 60_000) await sleep(leftMs);
		const budget = { id: 'budget', targetTable: 'Budget' };
		application.configure(configuration('small', budget, { limits: { maxBytesBilledPerDay: everything } }));
		const filled = await untilRows(harper, 'budget', SMALL_ROWS);
		assert.equal(filled.bytesBilledToday, everything);
		await source.bigquery.loadRows(DATASET, 'small', recent(vesselPositions({ rows: 3 }), { agoMs: 5_000 }));
		const paused = await untilStatus(harper, 'budget', ({ state }) => state === 'blocked', 'to pause');
		assert.equal(paused.lastError.code, 'day_budget');
		meter.reset();
		await untilPolled('small', 3);
		assert.deepEqual(Object.keys(meter.counts()), ['tables.get']);
		assert.equal((await tableStatus(harper, 'budget')).bytesBilled, everything);
		assert.equal((await tableStatus(harper, 'budget')).rows, SMALL_ROWS);
		try {
			meter.clockSkewMs = DAY_MS - (Date.now() % DAY_MS) + 1_000;
			const { bytesBilled } = await untilRows(harper, 'budget', SMALL_ROWS + 3);
			assert.equal(bytesBilled, everything + meter.billing().total);
			await assertEqual({ source, harper }, { table: 'small', target: 'Budget' });
		} finally {
			meter.clockSkewMs = 0;
		}
	});
});
