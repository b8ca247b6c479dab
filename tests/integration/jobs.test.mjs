/** Queries that may bill much: each runs as a job whose id Harper holds before it is made, so that none is billed twice. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { FAULT, VESSEL_SCHEMA, duplicated, until, vesselPositions } from '../support/index.mjs';
import { PATIENCE_MS, assertEqual, startComponent, untilRows, untilStatus } from './support/component.mjs';
import { DATASET, startSource } from './support/source.mjs';

const ROWS = 3_000;
const RETRY = { initialDelay: 50, backoffMultiplier: 1, maxAttempts: 100 };

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('../support/index.mjs').FaultProxy} Bills the very bytes, without the minimum per query. */
let meter;

before(async () => {
	source = await startSource();
	meter = await source.addProxy({ minimumBytes: 0 });
	meter.accounting = true;
	meter.maintainsModification = true;
});

after(() => source?.stop());

/** Makes a table that BigQuery says to be large. @param {string} table */
async function makeLarge(table) {
	meter.reset();
	await source.fill(table, VESSEL_SCHEMA, duplicated(vesselPositions({ rows: ROWS / 2 }), 2));
	meter.pretences.set(`${DATASET}.${table}`, { numBytes: `${2 ** 30}` });
}

/** Starts a Harper that copies a table. @param {string} table */
function startWith(table) {
	const bigquery = { ...source.connection(meter.url), table, timestampColumn: 'timestamp', batchSize: 500 };
	return startComponent({ config: { bigquery, sync: { pollInterval: 500 }, retry: RETRY } });
}

/** The jobs that were made; what was refused as a duplicate is none. */
const made = () => meter.requests('jobs.insert').filter(({ status }) => status === 200);

/** Queries that read rows, without a job of their own. */
const others = () => meter.requests('jobs.query').filter(({ sql }) => /^SELECT \*/.test(sql ?? ''));

/**
 * The window that Harper holds.
 * @param {import('../support/index.mjs').HarperNode} harper
 * @param {string} id
 */
async function storedWindow(harper, id) {
	const search = { operation: 'search_by_id', table: 'SyncCheckpoint', ids: [`${id}:0`], get_attributes: ['*'] };
	const [checkpoint] = await harper.operation(search);
	return checkpoint?.window ?? undefined;
}

/**
 * Starts a Harper that copies a table, and kills it when its job was made, and before the first row is there.
 * @param {string} table
 */
async function killBeforeTheFirstBatch(table) {
	await makeLarge(table);
	const barrier = meter.faults.add({ route: 'getQueryResults', fault: FAULT.hang() });
	const running = await startWith(table);
	await until(() => barrier.injected > 0, { deadlineMs: PATIENCE_MS, what: 'the result to be asked for' });
	await running.harper.kill('SIGKILL');
	barrier.remove();
	assert.equal(made().length, 1);
	return running;
}

/**
 * Waits until all is there and at rest, and the bill that Harper holds is that of BigQuery.
 * @param {import('../support/index.mjs').HarperNode} harper
 * @param {string} table
 */
async function untilCopiedAndBilled(harper, table) {
	await untilRows(harper, table, ROWS);
	const isWhole = ({ state, bytesBilled, lastError }) =>
		state === 'idle' && !lastError && bytesBilled === meter.billing().total;
	await untilStatus(harper, table, isWhole, `to have a bill of ${meter.billing().total} bytes`);
	await assertEqual({ source, harper }, { table, target: 'BigQueryData' });
}

test('a_kill_before_the_first_batch_makes_no_second_job_and_bills_nothing_twice', async () => {
	const { harper, remove } = await killBeforeTheFirstBatch('killed');
	try {
		await harper.start();
		const { job, totalRows } = (await storedWindow(harper, 'killed')) ?? {};
		assert.ok(job === undefined || /^bigquery-sync_killed_[0-9a-f]{32}$/.test(job.jobId), JSON.stringify(job));
		assert.ok(totalRows === undefined || totalRows === null || totalRows === ROWS);
		await untilCopiedAndBilled(harper, 'killed');
		assert.equal(made().length, 1);
		assert.deepEqual(others(), []);
		assert.ok(made()[0].bytesBilled > 0);
		const counted = meter.requests('jobs.query').reduce((sum, { bytesBilled }) => sum + bytesBilled, 0);
		assert.equal(meter.billing().total, made()[0].bytesBilled + counted);
	} finally {
		await remove();
	}
});

test('a_job_that_was_made_though_the_answer_got_lost_is_found_by_its_id', async () => {
	await makeLarge('unanswered');
	const lost = meter.faults.add({ route: 'jobs.insert', limit: 1, fault: FAULT.backendError({ executed: true }) });
	const { harper, remove } = await startWith('unanswered');
	try {
		await untilRows(harper, 'unanswered', ROWS);
		assert.equal(lost.injected, 1);
		assert.deepEqual(
			meter.requests('jobs.insert').map(({ status }) => status),
			[503, 409]
		);
		assert.deepEqual(others(), []);
		await assertEqual({ source, harper }, { table: 'unanswered', target: 'BigQueryData' });
	} finally {
		lost.remove();
		await remove();
	}
});

test('a_job_whose_columns_have_changed_is_cancelled_once_and_stays_on_the_bill', async () => {
	const { harper, remove } = await killBeforeTheFirstBatch('altered');
	try {
		await source.bigquery.query(`ALTER TABLE ${DATASET}.altered ADD COLUMN berth STRING`);
		await harper.start();
		await untilCopiedAndBilled(harper, 'altered');
		assert.equal(made().length, 2);
		assert.equal(meter.requests('jobs.cancel').length, 1);
		assert.deepEqual(others(), []);
	} finally {
		await remove();
	}
});
