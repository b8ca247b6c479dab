/** What the core is told of a commit; the database's part is played by its waiting and its work. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { commit } from '../../js/harper/sync/commit.js';
import { until } from '../support/index.mjs';

const LONG_MS = 120;
const SHORT_MS = 60;
const LAYOUT = { columns: [], retired: [], idType: 'text', newerBy: null };
const globals = /** @type {Record<string, any>} */ (globalThis);
/** What the database does at the end of a transaction. @type {() => Promise<void> | void} */
let commits = () => {};

before(() => {
	const table = { put() {} };
	globals.databases = { data: { SyncCheckpoint: table, SyncAudit: table, SyncBatch: table } };
	globals.transaction = async (/** @type {object} */ context, /** @type {(context: object) => any} */ action) => {
		await action(context);
		await commits();
	};
});

after(() => {
	delete globals.databases;
	delete globals.transaction;
});

function commitNothing() {
	const order = {
		rows: 0,
		text: '[[]]',
		numbers: new Float64Array(),
		nulls: new Uint32Array(),
		patches: [],
		checkpoints: [{ tableId: 't', recordsIngested: 0, recordsRejected: 0 }],
		superseded: new Uint32Array(),
		rejections: [],
		notes: [],
	};
	return commit({ put() {} }, /** @type {any} */ (LAYOUT), /** @type {any} */ (order));
}

test('a commit that waits for others does not count as work', async () => {
	commits = () => sleep(LONG_MS);
	// Other programs may hold the thread up, but not each time.
	const isShort = async () => (await commitNothing()).busyMs < SHORT_MS;
	await until(isShort, { deadlineMs: 120_000, what: `a commit that was busy for less than ${SHORT_MS} ms` });
});

test('a commit that keeps the thread busy counts as work', async () => {
	commits = async () => {
		const until = performance.now() + LONG_MS;
		while (performance.now() < until);
		await sleep(10);
	};
	const { busyMs } = await commitNothing();
	assert.ok(busyMs >= LONG_MS, `${busyMs} ms`);
});
