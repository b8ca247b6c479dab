import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';

import {
	FAULT,
	VESSEL_SCHEMA,
	bigQueryClient,
	startEmulator,
	startFaultProxy,
	until,
	vesselPositions,
} from '../support/index.mjs';

/** @type {import('../support/emulator.mjs').Emulator} */
let emulator;
/** @type {import('../support/fault-proxy.mjs').FaultProxy} */
let proxy;
/** @type {import('../support/bigquery.mjs').BigQueryClient} */
let client;
const dataset = `proxy_${process.pid}`;
const SELECT = `SELECT \`mmsi\`, \`speed\` FROM \`${dataset}.positions\``;

before(async () => {
	emulator = await startEmulator();
	proxy = await startFaultProxy({ target: emulator.url, minimumBytes: 0 });
	client = bigQueryClient(proxy);
	await client.createDataset(dataset);
	const timePartitioning = { type: 'DAY', field: 'timestamp' };
	await client.createTable(dataset, 'positions', { schema: VESSEL_SCHEMA, timePartitioning });
	assert.equal(await client.loadRows(dataset, 'positions', vesselPositions({ rows: 1000, days: 10 })), 1000);
});

after(async () => {
	await proxy?.stop();
	await emulator?.stop();
});

afterEach(() => {
	proxy.faults.clear();
	proxy.reset();
	proxy.clockSkewMs = 0;
	proxy.gzip = false;
	proxy.network.set({});
});

/** @param {object} body */
function post(body, headers = {}) {
	return fetch(`${proxy.url}/bigquery/v2/projects/test-project/queries`, {
		method: 'POST',
		headers: { 'content-type': 'application/json', ...headers },
		body: JSON.stringify({ useLegacySql: false, ...body }),
		signal: AbortSignal.timeout(30_000),
	});
}

describe('faults', () => {
	test('error_answers_have_the_status_the_reason_and_retry_after_of_the_service', async () => {
		const wanted = /** @type {const} */ ([
			['rateLimited', 429, 'rateLimitExceeded'],
			['internalError', 500, 'internalError'],
			['backendError', 503, 'backendError'],
			['accessDenied', 403, 'accessDenied'],
			['quotaExceeded', 403, 'quotaExceeded'],
			['tokenExpired', 401, 'authError'],
			['notFound', 404, 'notFound'],
		]);
		for (const [name, status, reason] of wanted) {
			proxy.faults.add({ route: 'jobs.query', fault: FAULT[name]({ retryAfterS: 7 }), limit: 1 });
			const response = await post({ query: SELECT });
			const { error } = await response.json();
			assert.deepEqual([response.status, error.errors[0].reason, error.code], [status, reason, status]);
			assert.equal(response.headers.get('retry-after'), '7');
			assert.equal((await post({ query: SELECT })).status, 200, `${name} happens once`);
		}
	});

	test('what_the_service_would_refuse_is_refused_though_the_emulator_takes_it', async () => {
		const refused = [
			{ query: SELECT, requestId: 'x'.repeat(37) },
			{ query: SELECT, requestId: 'Zürich' },
			{ query: SELECT, maxRows: 5 },
			{ query: SELECT, maxResults: 0 },
		];
		for (const body of refused) assert.equal((await post(body)).status, 400, JSON.stringify(body));
		assert.equal((await post({ query: SELECT, requestId: 'x'.repeat(36), maxResults: 5 })).status, 200);
	});

	test('jobs_that_the_service_would_refuse_are_refused_and_others_are_made_once_cancelled_and_billed', async () => {
		const send = (/** @type {string} */ path, /** @type {any} */ body) =>
			fetch(`${proxy.url}/bigquery/v2/projects/test-project${path}`, {
				method: 'POST',
				headers: { 'content-type': 'application/json' },
				body: body === undefined ? undefined : JSON.stringify(body),
				signal: AbortSignal.timeout(30_000),
			});
		const configuration = { query: { query: SELECT, useLegacySql: false } };
		const jobId = `own_${process.pid}`;
		const refused = [
			{ jobReference: { jobId: 'a.b' }, configuration },
			{ jobReference: { jobId: 'x'.repeat(1025) }, configuration },
			{ jobId, configuration },
			{ jobReference: { jobId }, configuration: { query: { ...configuration.query, maxResults: 5 } } },
		];
		for (const body of refused) assert.equal((await send('/jobs', body)).status, 400, JSON.stringify(body));
		const own = { jobReference: { projectId: 'test-project', jobId, location: 'US' }, configuration };
		assert.equal((await send('/jobs', own)).status, 200);
		const { total } = proxy.billing();
		assert.ok(total > 0);
		assert.equal((await send('/jobs', own)).status, 409);
		assert.equal((await send(`/jobs/${jobId}/cancel`, {})).status, 400);
		const { job } = await (await send(`/jobs/${jobId}/cancel`, undefined)).json();
		assert.equal(job.status.state, 'DONE');
		const { statistics } = await client.request('GET', `/jobs/${jobId}`);
		assert.equal(Number(statistics.query.totalBytesBilled), total);
		assert.equal(proxy.billing().total, total);
	});

	test('rules_choose_by_route_nth_every_rate_and_limit', async () => {
		const nth = proxy.faults.add({ route: 'tables.get', fault: FAULT.backendError(), nth: 2 });
		const statuses = async (/** @type {number} */ count) => {
			const seen = [];
			for (let i = 0; i < count; i++) {
				seen.push(
					await client.getTable(dataset, 'positions').then(
						() => 200,
						(error) => error.status
					)
				);
			}
			return seen;
		};
		assert.deepEqual(await statuses(3), [200, 503, 200]);
		assert.deepEqual([nth.seen, nth.injected], [3, 1]);
		nth.remove();
		proxy.faults.add({ route: ['tables.get', 'tables.list'], fault: FAULT.rateLimited(), every: 3, limit: 1 });
		assert.deepEqual(await statuses(6), [200, 200, 429, 200, 200, 200]);
		proxy.faults.clear();
		const rate = { route: /** @type {const} */ ('tables.get'), fault: FAULT.backendError(), rate: 1 / 3, seed: 5 };
		proxy.faults.add(rate);
		const first = await statuses(12);
		proxy.faults.clear();
		proxy.faults.add(rate);
		assert.deepEqual(await statuses(12), first, 'the same seed gives the same faults');
		assert.ok(first.includes(200) && first.includes(503));
		assert.equal((await client.query(SELECT)).length, 1000, 'other routes are left alone');
	});

	test('a_hanging_request_waits_until_the_client_gives_up', async () => {
		proxy.faults.add({ fault: FAULT.hang() });
		const request = fetch(`${proxy.url}/bigquery/v2/projects/test-project/datasets`, {
			signal: AbortSignal.timeout(300),
		});
		await assert.rejects(request, { name: 'TimeoutError' });
	});

	test('a_reset_and_a_truncated_body_break_the_connection', async () => {
		const reset = proxy.faults.add({ route: 'jobs.query', fault: FAULT.reset() });
		await assert.rejects(post({ query: SELECT }), (/** @type {any} */ error) => error.cause?.code === 'ECONNRESET');
		reset.remove();
		proxy.faults.add({ route: 'jobs.query', fault: FAULT.truncate() });
		const response = await post({ query: SELECT });
		assert.ok(Number(response.headers.get('content-length')) > 1000);
		await assert.rejects(response.text());
	});

	test('a_cut_json_text_arrives_whole_as_far_as_http_can_tell', async () => {
		proxy.faults.add({ route: 'jobs.query', fault: FAULT.cutJson() });
		const response = await post({ query: SELECT });
		const text = await response.text();
		assert.equal(Number(response.headers.get('content-length')), Buffer.byteLength(text));
		assert.throws(() => JSON.parse(text), SyntaxError);
	});

	test('an_endless_body_tells_no_length_and_comes_until_the_client_hangs_up', async () => {
		proxy.faults.add({ route: 'jobs.query', fault: FAULT.endless() });
		const response = await post({ query: SELECT });
		assert.equal(response.headers.get('content-length'), null);
		let bytes = 0;
		for await (const part of /** @type {any} */ (response.body)) {
			bytes += part.length;
			if (bytes > 20_000_000) break;
		}
		assert.ok(bytes > 20_000_000);
	});

	test('a_slow_body_takes_its_time', async () => {
		proxy.faults.add({ route: 'tables.get', fault: FAULT.slow({ bytesPerSecond: 4000 }) });
		const start = performance.now();
		await client.getTable(dataset, 'positions');
		assert.ok(performance.now() - start > 200);
	});

	test('a_lost_result_stays_lost', async () => {
		const { jobReference } = await (await post({ query: SELECT })).json();
		proxy.faults.add({ route: 'getQueryResults', fault: FAULT.loseResult(), limit: 1 });
		const result = client.request('GET', `/queries/${jobReference.jobId}`);
		await assert.rejects(result, { status: 404, reason: 'notFound' });
		const { status } = await client.request('GET', `/jobs/${jobReference.jobId}`);
		assert.equal(status.state, 'DONE', 'the job itself is known for longer');
		assert.equal((await client.query(SELECT)).length, 1000, 'a new job is fine');
	});

	test('an_executed_request_may_lose_only_its_answer', async () => {
		const ddl = `CREATE TABLE \`${dataset}.made\` (a INT64)`;
		proxy.faults.add({ route: 'jobs.query', fault: FAULT.backendError({ executed: true }), limit: 1 });
		await assert.rejects(client.query(ddl), { status: 503 });
		assert.equal((await client.getTable(dataset, 'made')).tableReference.tableId, 'made');
	});

	test('every_request_is_counted_and_logged', async () => {
		await client.query(SELECT);
		proxy.faults.add({ route: 'tables.list', fault: FAULT.rateLimited() });
		await assert.rejects(client.request('GET', `/datasets/${dataset}/tables`), { status: 429 });
		assert.deepEqual(proxy.counts(), { 'jobs.query': 1, 'tables.list': 1 });
		const [query, list] = proxy.requests();
		assert.deepEqual([query.status, query.sql, query.method], [200, SELECT, 'POST']);
		assert.deepEqual([list.status, list.fault?.reason], [429, 'rateLimitExceeded']);
	});
});

describe('the network', () => {
	/** @param {() => Promise<unknown>} action */
	const duration_ms = async (action) => {
		const began_ms = performance.now();
		await action();
		return performance.now() - began_ms;
	};
	/** @param {AbortSignal} [signal] */
	const describeTable = async (signal) => {
		const url = `${proxy.url}/bigquery/v2/projects/test-project/datasets/${dataset}/tables/positions`;
		return (await (await fetch(url, { signal: signal ?? null })).arrayBuffer()).byteLength;
	};

	test('delays_the_answers_of_some_routes_and_lets_them_wait_side_by_side', async () => {
		proxy.network.set({ delaysMs: { 'tables.get': 400 } });
		// Timers may be a little early.
		assert.ok((await duration_ms(describeTable)) >= 390);
		proxy.reset();
		proxy.network.set({ delaysMs: { 'tables.get': 3_600_000 } });
		const patience = new AbortController();
		const waiting = [1, 2, 3].map(() => describeTable(patience.signal).catch(() => 'given up'));
		await until(() => proxy.requests('tables.get').length === 3, { what: 'all requests to wait' });
		assert.equal((await client.query(SELECT)).length, 1000);
		patience.abort();
		assert.deepEqual(await Promise.all(waiting), ['given up', 'given up', 'given up']);
	});

	test('shares_one_line_among_all_answers', async () => {
		const bytes = await describeTable();
		proxy.network.set({ bytesPerSecond: bytes * 5 });
		const both_ms = await duration_ms(() => Promise.all([describeTable(), describeTable()]));
		// Two answers of a fifth of a second each.
		assert.ok(both_ms >= 390, `${both_ms} ms`);
	});
});

describe('billing', () => {
	const columnsOf = `SELECT * FROM \`${dataset}.positions\``;
	/** @param {string} query */
	const bytes = async (query, more = {}) => (await (await post({ query, ...more })).json()).totalBytesProcessed;

	test('one_day_of_ten_costs_a_tenth', async () => {
		const all = Number(await bytes(columnsOf));
		assert.ok(all > 1000 * 50, `${all} bytes`);
		const ts = '`timestamp`';
		const oneDay = `${ts} >= TIMESTAMP '2024-01-03' AND ${ts} < TIMESTAMP '2024-01-04 00:00:00+00'`;
		assert.equal(Number(await bytes(`${columnsOf} WHERE ${oneDay}`)), Math.round(all / 10));
		const window = `${ts} > TIMESTAMP '2024-01-02T23:59:59.999999Z' AND ${ts} <= TIMESTAMP '2024-01-03T12:00:00Z'`;
		assert.equal(Number(await bytes(`${columnsOf} WHERE ${window}`)), Math.round(all / 10));
		const twoDays = `(${oneDay}) OR (${ts} >= TIMESTAMP_MICROS(1704844800000000) AND speed > 1)`;
		assert.equal(Number(await bytes(`${columnsOf} WHERE mmsi IS NOT NULL AND (${twoDays})`)), Math.round(all / 5));
		const unpruned = `TIMESTAMP_ADD(${ts}, INTERVAL 1 DAY) > TIMESTAMP '2024-01-03'`;
		assert.equal(Number(await bytes(`${columnsOf} WHERE ${unpruned}`)), all);
		assert.equal(Number(await bytes(`SELECT COUNT(*) FROM \`${dataset}.positions\``)), 0);
	});

	test('only_the_columns_that_are_read_cost', async () => {
		assert.equal(Number(await bytes(`SELECT \`speed\` FROM \`${dataset}.positions\``)), 8000);
		assert.equal(Number(await bytes(`SELECT speed FROM ${dataset}.positions WHERE mmsi > ''`)), 8000 + 11_000);
	});

	test('the_bill_adds_up_per_table_and_paging_is_free', async () => {
		let pages = 0;
		for await (const page of client.queryPages(SELECT, { pageRows: 300 })) pages += page.rows.length > 0 ? 1 : 0;
		assert.equal(pages, 4);
		const expected = 1000 * (8 + 11);
		assert.deepEqual(proxy.billing(), { total: expected, queries: 1, byTable: { [`${dataset}.positions`]: expected } });
		assert.equal(proxy.requests('getQueryResults').length, 3);
	});

	test('the_minimum_is_billed_for_each_query', async () => {
		const dear = await startFaultProxy({ target: emulator.url });
		await bigQueryClient(dear).query(SELECT);
		assert.equal(dear.billing().total, 10 * 1024 * 1024);
		await dear.stop();
	});

	test('maximum_bytes_billed_refuses_free_of_charge', async () => {
		const response = await post({ query: SELECT, maximumBytesBilled: '18999' });
		assert.equal(response.status, 400);
		assert.equal((await response.json()).error.errors[0].reason, 'bytesBilledLimitExceeded');
		assert.equal(proxy.billing().total, 0);
		assert.equal((await post({ query: SELECT, maximumBytesBilled: '19000' })).status, 200);
	});

	test('a_dry_run_tells_the_bytes_and_bills_nothing', async () => {
		assert.equal(await bytes(SELECT, { dryRun: true }), '19000');
		const configuration = { dryRun: true, query: { query: SELECT, useLegacySql: false } };
		const job = await client.request('POST', '/jobs', { body: { configuration } });
		assert.equal(job.statistics.totalBytesProcessed, '19000');
		assert.equal(job.statistics.query.totalBytesProcessed, '19000');
		assert.equal(proxy.billing().total, 0);
	});

	test('a_job_is_billed_once_and_says_so_everywhere', async () => {
		const jobReference = { projectId: 'test-project', jobId: `job-${process.pid}` };
		const body = { jobReference, configuration: { query: { query: SELECT, useLegacySql: false } } };
		await client.request('POST', '/jobs', { body });
		const job = await client.waitForJob(jobReference.jobId);
		assert.equal(job.statistics.query.totalBytesBilled, '19000');
		const results = await client.request('GET', `/queries/${jobReference.jobId}`);
		assert.equal(results.totalBytesProcessed, '19000');
		assert.deepEqual([results.rows.length, proxy.billing().total], [1000, 19_000]);
	});
});

describe('metadata', () => {
	test('modification_time_and_etag_change_with_the_contents_only', async () => {
		const direct = bigQueryClient(emulator);
		await direct.createTable(dataset, 'changing', { schema: VESSEL_SCHEMA });
		const rows = [...vesselPositions({ rows: 20 })];
		await client.insertAll(dataset, 'changing', rows.slice(0, 10));
		const look = async () => {
			const { lastModifiedTime, etag, numRows } = await client.getTable(dataset, 'changing');
			return { lastModifiedTime: Number(lastModifiedTime), etag, numRows };
		};
		const first = await look();
		assert.deepEqual(await look(), first);
		await direct.insertAll(dataset, 'changing', rows.slice(10));
		const inserted = await look();
		assert.ok(inserted.lastModifiedTime > first.lastModifiedTime);
		assert.notEqual(inserted.etag, first.etag);
		await client.query(`UPDATE \`${dataset}.changing\` SET speed = 99 WHERE mmsi = '${rows[0].mmsi}'`);
		const updated = await look();
		assert.ok(updated.lastModifiedTime > inserted.lastModifiedTime);
		await client.query(`DELETE FROM \`${dataset}.changing\` WHERE TRUE`);
		assert.equal((await look()).numRows, '0');
	});

	test('a_streaming_buffer_is_shown_on_request', async () => {
		const buffer = { estimatedRows: '5', estimatedBytes: '500', oldestEntryTime: '1700000000000' };
		proxy.streamingBuffers.set(`${dataset}.positions`, buffer);
		assert.deepEqual((await client.getTable(dataset, 'positions')).streamingBuffer, buffer);
		proxy.streamingBuffers.clear();
	});

	test('the_clock_can_be_skewed', async () => {
		const dateOf = async () => Date.parse((await post({ query: SELECT })).headers.get('date') ?? '');
		assert.ok(Math.abs((await dateOf()) - Date.now()) < 600_000);
		proxy.clockSkewMs = -3_600_000;
		assert.ok(Math.abs((await dateOf()) - Date.now() + 3_600_000) < 600_000);
	});

	test('gzip_works_in_both_directions', async () => {
		proxy.gzip = true;
		const response = await fetch(`${proxy.url}/bigquery/v2/projects/test-project/queries`, {
			method: 'POST',
			headers: { 'content-type': 'application/json', 'content-encoding': 'gzip', 'accept-encoding': 'gzip' },
			body: gzipSync(JSON.stringify({ query: SELECT, useLegacySql: false })),
		});
		assert.equal(response.headers.get('content-encoding'), 'gzip');
		assert.equal((await response.json()).rows.length, 1000);
		assert.equal(proxy.requests('jobs.query')[0].sql, SELECT);
	});
});
