import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { FAULT, VESSEL_SCHEMA, duplicated, until, vesselPositions } from '../support/index.mjs';
import { PATIENCE_MS, assertEqual, postControl, startComponent, untilRows, untilStatus } from './support/component.mjs';
import { DATASET, backfillQueries, recent, startSource } from './support/source.mjs';

const ROWS = 3_000;
const PAGE_ROWS = 300;
const RATE = 1 / 3;
/** Each poll, and each change before it, costs the emulator a query and a load. */
const POLL_MS = 2_000;
const CHANGED_EVERY_MS = 3_000;
const ASKED_EVERY_MS = 1_000;
const SEED = Number(process.env.FAULT_SEED ?? Date.now() % 1_000_000);
/** @type {import('./support/source.mjs').Source} */
let source;

before(async () => {
	source = await startSource();
});

after(() => source?.stop());

const VESSELS = 100;
const KEY = ['mmsi'];
let runs = 0;

/**
 * Makes a table for one run, with a target of its own for each of two syncs: by content, and by a key.
 * @returns {Promise<Run>}
 *
 * @typedef {{table: string, target: string, keyed: {id: string, key: string[], targetTable: string}}} Run
 */
async function fillTable() {
	const number = ++runs;
	const table = `troubled_${number}`;
	await source.fill(table, VESSEL_SCHEMA, duplicated(vesselPositions({ rows: ROWS / 2, vessels: VESSELS }), 2));
	const keyed = { id: `keyed_${number}`, key: KEY, targetTable: `Keyed${number}` };
	return { table, target: `Troubled${number}`, keyed };
}

/**
 * @param {string} url
 * @param {Run} run
 * @param {{keyed?: boolean}} [options] Keyed: the same table goes to a second target too, by a key.
 */
function configuration(url, { table, target, keyed }, options = {}) {
	const one = { table, timestampColumn: 'timestamp', batchSize: PAGE_ROWS };
	const byContent = { ...one, targetTable: target };
	const bigquery = options.keyed
		? { ...source.connection(url), tables: [byContent, { ...one, ...keyed }] }
		: { ...source.connection(url), ...byContent };
	// Circuit breakers would leave BigQuery alone for a minute now and then.
	return { bigquery, sync: { pollInterval: POLL_MS }, retry: { initialDelay: 20, maxAttempts: 30 } };
}

/** Harpers at rest, each left by a run that went well. @type {import('./support/component.mjs').Running[]} */
const atRest = [];

after(async () => {
	for (const running of atRest) await running.remove();
});

/**
 * Runs something in a Harper that has a configuration, perhaps one that others have used before.
 * @param {Record<string, any>} config
 * @param {(harper: import('../support/index.mjs').HarperNode) => Promise<any>} action
 */
async function inHarper(config, action) {
	const used = atRest.pop();
	used?.application.configure(config);
	const running = used ?? (await startComponent({ config }));
	let isWell = false;
	try {
		const result = await action(running.harper);
		isWell = true;
		return result;
	} finally {
		if (isWell) atRest.push(running);
		else await running.remove();
	}
}

/**
 * Adds rows now and then, for an unchanged table is not queried.
 * @param {string} table
 */
function keepChanging(table) {
	let changing = true;
	const done = (async () => {
		for (let seed = 1; changing; seed++) {
			await source.bigquery.loadRows(DATASET, table, recent(vesselPositions({ rows: 2, seed }), { agoMs: 5_000 }));
			await new Promise((resolve) => setTimeout(resolve, CHANGED_EVERY_MS));
		}
	})();
	done.catch(() => {});
	return async () => {
		changing = false;
		await done;
	};
}

/**
 * Asks Harper again and again until told to end.
 * @param {import('../support/index.mjs').HarperNode} harper
 * @param {string} target
 */
function watchAnswers(harper, target) {
	let watching = true;
	const wrong = /** @type {string[]} */ ([]);
	let answers = 0;
	const watch = async () => {
		while (watching) {
			for (const path of ['/SyncControl', `/${target}/?limit(1)`]) {
				const response = await harper.request(path);
				await response.arrayBuffer();
				answers += 1;
				// The target is there from the first layout on.
				const right = response.status === 200 || (response.status === 404 && path !== '/SyncControl');
				if (!right) wrong.push(`${path}: ${response.status}`);
			}
			await new Promise((resolve) => setTimeout(resolve, ASKED_EVERY_MS));
		}
	};
	const done = watch();
	// A run that fails for another reason ends Harper, and with it this.
	done.catch(() => {});
	return {
		count: () => answers,
		async end() {
			watching = false;
			await done;
			return wrong;
		},
	};
}

/**
 * Waits until all is in Harper that was in BigQuery at an instant.
 * @param {import('../support/index.mjs').HarperNode} harper
 * @param {string} table
 * @param {string} instant
 */
function untilReadSince(harper, table, instant) {
	const isRead = ({ state, lastError, watermark, unchangedAt }) =>
		state === 'idle' && !lastError && (watermark > instant || unchangedAt > instant);
	return untilStatus(harper, table, isRead, `to have read up to ${instant}`);
}

/**
 * Syncs a table with copies of rows, both by content and by a key, through a proxy of its own with one kind of fault,
 * which stays on until some polls after the backfill.
 * @param {import('../support/faults.mjs').Fault} fault
 * @param {Partial<import('../support/faults.mjs').Rule>} [rule]
 */
async function syncThrough(fault, rule = {}) {
	const run = await fillTable();
	const { table, target, keyed } = run;
	const proxy = await source.addProxy();
	const active = proxy.faults.add({ rate: RATE, seed: SEED, fault, ...rule });
	const rest = keepChanging(table);
	const sync = async (/** @type {import('../support/index.mjs').HarperNode} */ harper) => {
		const answers = watchAnswers(harper, target);
		if (fault.kind === 'hang') await assertAnswersMeanwhile(proxy, answers);
		await untilRows(harper, table, ROWS);
		await untilRows(harper, keyed.id, VESSELS);
		const injected = () => active.injected >= Math.min(3, rule.limit ?? Infinity);
		await until(injected, { deadlineMs: PATIENCE_MS, what: `a few faults (${active.injected} of ${active.seen})` });
		proxy.faults.clear();
		await rest();
		const now = new Date().toISOString();
		for (const id of [table, keyed.id]) await untilReadSince(harper, id, now);
		await assertEqual({ source, harper }, { table, target });
		await assertEqual({ source, harper }, { table, target: keyed.targetTable, key: KEY });
		assert.deepEqual(await answers.end(), []);
	};
	try {
		await inHarper(configuration(proxy.url, run, { keyed: true }), sync);
	} finally {
		await rest();
	}
	return active;
}

/**
 * Harper answers while BigQuery does not.
 * @param {import('../support/index.mjs').FaultProxy} proxy
 * @param {ReturnType<typeof watchAnswers>} answers
 */
async function assertAnswersMeanwhile(proxy, answers) {
	const hanging = () => proxy.requests().find(({ fault }) => fault?.kind === 'hang');
	await until(hanging, { deadlineMs: PATIENCE_MS, what: 'a request without an answer' });
	const before = answers.count();
	await until(() => answers.count() >= before + 2, { deadlineMs: PATIENCE_MS, what: 'answers of Harper' });
	const isGivenUp = proxy.requests().some(({ isGivenUp }) => isGivenUp);
	assert.ok(!isGivenUp, 'Harper answered only when the request was given up');
}

/** @type {[string, import('../support/faults.mjs').Fault, Partial<import('../support/faults.mjs').Rule>?][]} */
const FAULTS = [
	['does_not_answer_a_query', FAULT.hang(), { route: 'jobs.query', limit: 1 }],
	['does_not_answer_for_a_page', FAULT.hang(), { route: 'getQueryResults', limit: 1 }],
	['answers_429_rate_limit_exceeded', FAULT.rateLimited()],
	['answers_500_internal_error', FAULT.internalError()],
	['answers_503_backend_error', FAULT.backendError()],
	['answers_503_although_it_carried_the_request_out', FAULT.backendError({ executed: true })],
	['answers_403_access_denied', FAULT.accessDenied(), { limit: 5 }],
	['answers_403_quota_exceeded', FAULT.quotaExceeded(), { limit: 5 }],
	['answers_401_for_an_expired_token', FAULT.tokenExpired()],
	['answers_404_not_found', FAULT.notFound(), { limit: 5 }],
	['resets_the_connection', FAULT.reset()],
	['resets_the_connection_although_it_carried_the_request_out', FAULT.reset({ executed: true })],
	['cuts_the_body_short', FAULT.truncate()],
	['sends_half_of_the_json', FAULT.cutJson()],
	['sends_the_body_slowly', FAULT.slow({ bytesPerSecond: 200_000 })],
	['sends_a_body_without_end', FAULT.endless(), { route: ['jobs.query', 'getQueryResults'], limit: 3 }],
	['loses_results', FAULT.loseResult(), { route: 'getQueryResults', limit: 5 }],
];

test('every_fault_that_the_proxy_knows_has_a_run', () => {
	const kinds = new Set(FAULTS.map(([, { kind, status, reason }]) => `${kind} ${status} ${reason}`));
	const missing = Object.entries(FAULT).filter(([, make]) => {
		const { kind, status, reason } = make();
		return !kinds.has(`${kind} ${status} ${reason}`);
	});
	assert.deepEqual(
		missing.map(([name]) => name),
		[]
	);
});

// The runs with a hanging request wait for a minute and do nothing meanwhile; the others go on beside them.
describe('one request in three fails and the tables end equal', { concurrency: 3 }, () => {
	for (const [name, fault, rule] of FAULTS) {
		test(`when_bigquery_${name}`, async (context) => {
			const { injected, seen } = await syncThrough(fault, rule);
			context.diagnostic(`FAULT_SEED=${SEED}: ${injected} of ${seen} requests`);
		});
	}
});

for (const [name, fault] of /** @type {[string, import('../support/faults.mjs').Fault][]} */ ([
	['an_access_denied', FAULT.accessDenied()],
	['a_quota_exceeded', FAULT.quotaExceeded()],
])) {
	test(`${name}_in_the_middle_of_a_result_does_not_make_it_pay_for_the_query_again`, async () => {
		const run = await fillTable();
		const { table, target } = run;
		const proxy = await source.addProxy();
		proxy.faults.add({ route: 'getQueryResults', nth: 4, fault });
		await inHarper(configuration(proxy.url, run), async (harper) => {
			await untilRows(harper, table, ROWS);
			assert.equal(backfillQueries(proxy).length, 1);
			await assertEqual({ source, harper }, { table, target });
		});
	});
}

test('damaged_pages_do_not_make_all_pages_after_them_small', async () => {
	const run = await fillTable();
	const { table, target } = run;
	const proxy = await source.addProxy();
	const rule = proxy.faults.add({ route: 'getQueryResults', every: 2, limit: 4, fault: FAULT.cutJson() });
	await inHarper(configuration(proxy.url, run), async (harper) => {
		await untilRows(harper, table, ROWS);
		assert.equal(rule.injected, 4);
		const asked = proxy.requests('getQueryResults').length;
		// The pages may be smaller for a while; without a way back to their size, it would be 170 requests.
		const needed = (4 * ROWS) / PAGE_ROWS;
		assert.ok(asked <= needed, `${asked} requests, ${needed} at most`);
		await assertEqual({ source, harper }, { table, target });
	});
});

test('bigquery_is_left_alone_for_as_long_as_retry_after_says', async () => {
	const run = await fillTable();
	const { table, target } = run;
	const proxy = await source.addProxy();
	const retryAfterS = 3;
	const config = configuration(proxy.url, run);
	// Only one page comes by itself, so that no other one is under way when it is refused.
	config.bigquery.batchSize = (2 / 3) * ROWS;
	const running = await startComponent({ config: { ...config, sync: { ...config.sync, autoStart: false } } });
	// The look at the columns, at the start and after minutes again, asks BigQuery beside the sync.
	const search = { operation: 'search_by_value', table: 'SchemaLock', attribute: 'id', value: '*' };
	const hasLooked = async () =>
		(await running.harper.operation({ ...search, get_attributes: ['*'] })).some(
			(/** @type {any} */ { checkedAt }) => checkedAt
		);
	await until(hasLooked, { deadlineMs: PATIENCE_MS, what: 'the first look at the columns' });
	const fault = FAULT.rateLimited({ retryAfterS });
	for (const route of /** @type {const} */ (['tables.get', 'jobs.query'])) proxy.faults.add({ route, nth: 2, fault });
	proxy.faults.add({ route: 'getQueryResults', nth: 1, fault });
	await postControl(running.harper, { action: 'start' });
	const rest = keepChanging(table);
	try {
		const faulty = () => proxy.requests().filter(({ fault }) => fault);
		await until(() => faulty().length === 3, { deadlineMs: PATIENCE_MS, what: 'the three refusals' });
		const next = (/** @type {any} */ one) => proxy.requests()[proxy.requests().indexOf(one) + 1];
		await until(() => next(faulty()[2]), { deadlineMs: PATIENCE_MS, what: 'the request after the last refusal' });
		for (const refusal of faulty()) {
			const waitedMs = next(refusal).at - refusal.at;
			assert.ok(waitedMs >= retryAfterS * 1000 - 50, `${refusal.route}: ${waitedMs} ms`);
		}
		await rest();
		await untilReadSince(running.harper, table, new Date().toISOString());
		await assertEqual({ source, harper: running.harper }, { table, target });
	} finally {
		await rest();
		await running.remove();
	}
});
