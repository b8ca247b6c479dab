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

/** @param {object} [some] */
function orderOf(some) {
	return {
		rows: 0,
		text: '[[]]',
		numbers: new Float64Array(),
		nulls: new Uint32Array(),
		patches: [],
		checkpoints: [{ tableId: 't', recordsIngested: 0, recordsRejected: 0 }],
		superseded: new Uint32Array(),
		rejections: [],
		notes: [],
		head: null,
		witness: null,
		proof: null,
		...some,
	};
}

/** @param {object} table @param {object} [layout] @returns {any} */
function targetOf(table, layout = LAYOUT) {
	return { table, layout, writer: { tableId: 't', owner: 'n-0', node: 'n' } };
}

/** @param {object} [some] */
function commitNothing(some) {
	return commit(targetOf({ put() {} }), /** @type {any} */ (orderOf(some)));
}

/**
 * Commits rows of which some are stored, and tells what was put.
 * @param {string | null} newerBy
 * @param {Record<string, any>[]} stored
 * @param {[string, string, number][]} rows Their ids, times and numbers.
 * @param {{stampMs?: number, comparesValues?: boolean}} [some] More of the order.
 */
async function commitOver(newerBy, stored, rows, some = {}) {
	/** @type {string[]} */
	const put = [];
	/** @type {any} */
	let checkpoint;
	const table = {
		attributes: [{ name: 'ts', type: 'String' }],
		get: async (/** @type {string} */ id) => stored.find((record) => record.id === id),
		put: (/** @type {{id: string}} */ { id }) => put.push(id),
		primaryStore: {
			getEntry(/** @type {string} */ id) {
				const value = stored.find((record) => record.id === id);
				return value && { value, version: value.writtenAt ?? 1 };
			},
		},
	};
	globals.databases.data.SyncCheckpoint = {
		put(/** @type {any} */ record) {
			checkpoint = record;
		},
	};
	const columns = [
		{ name: 'ts', carrier: 'text', since: 0 },
		{ name: 'n', carrier: 'number', since: 0 },
	];
	const order = orderOf({
		mayBeStored: true,
		rows: rows.length,
		text: JSON.stringify([rows.map(([id]) => id), rows.map(([, ts]) => ts)]),
		numbers: Float64Array.from(rows, ([, , n]) => n),
		checkpoints: [{ tableId: 't', recordsIngested: 100 + rows.length, recordsRejected: 0 }],
		...some,
	});
	commits = () => {};
	const { unchanged } = await commit(
		targetOf(table, { ...LAYOUT, columns, newerBy, era: 0 }),
		/** @type {any} */ (order)
	);
	return { put, unchanged, ingested: checkpoint?.recordsIngested };
}

test('a row that is stored as it is is not put again, and another version of it is', async () => {
	const stored = [
		{ id: 'a', ts: '2024', n: 1, _syncedAt: 'then' },
		{ id: 'b', ts: '2024', n: 1 },
		{ id: 'c', ts: '2024', n: 1 },
	];
	/** @type {[string, string, number][]} */
	const rows = [
		['a', '2024', 1],
		['b', '2024', 2],
		['c', '2025', 1],
		['d', '2024', 1],
	];
	const keyed = await commitOver('ts', stored, rows);
	assert.deepEqual(keyed, { put: ['b', 'c', 'd'], unchanged: 1, ingested: 103 });
	// The id of a row without key tells its content.
	const keyless = await commitOver(null, stored, rows);
	assert.deepEqual(keyless, { put: ['d'], unchanged: 3, ingested: 101 });
});

test('where values are compared, rows that differ are put again, unless they were written later', async () => {
	const stored = [
		{ id: 'a', ts: '2024', n: 1 },
		{ id: 'b', ts: '2024', n: 7 },
		{ id: 'c', ts: '2025', n: 7 },
		{ id: 'd', ts: '2024', n: 7, writtenAt: 30 },
	];
	/** @type {[string, string, number][]} */
	const rows = stored.map(({ id }) => [id, '2024', 1]);
	const some = { stampMs: 20, comparesValues: true };
	assert.deepEqual((await commitOver('ts', stored, rows, some)).put, ['b']);
	// Without a key, there are no versions.
	assert.deepEqual((await commitOver(null, stored, rows, some)).put, ['b', 'c', 'd']);
	const equal = await commitOver('ts', stored, rows.slice(0, 1), some);
	assert.deepEqual(equal, { put: [], unchanged: 1, ingested: undefined });
});

test('a row that is rejected again is counted once, unless the count of the first time got lost', async () => {
	/** @type {Map<string, any>} */
	const audit = new Map();
	/** @type {any} */
	let checkpoint;
	globals.databases.data.SyncAudit = {
		get: async (/** @type {string} */ id) => audit.get(id),
		put: (/** @type {{id: string}} */ entry) => audit.set(entry.id, entry),
	};
	globals.databases.data.SyncCheckpoint = {
		put(/** @type {any} */ record) {
			checkpoint = record;
		},
	};
	const reject = async (/** @type {string[]} */ marks, /** @type {number} */ recordsRejected) => {
		const rejections = marks.map((mark) => ({ rowId: mark, mark, reason: 'why' }));
		const checkpoints = [{ tableId: 't', partition: 0, recordsIngested: 0, recordsRejected }];
		const { rejected } = await commitNothing({ rejections, checkpoints });
		return [rejected, checkpoint.recordsRejected];
	};
	commits = () => {};
	assert.deepEqual(await reject(['a', 'b', 'b'], 0), [2, 2]);
	assert.deepEqual(await reject(['b', 'c'], 2), [1, 3]);
	assert.deepEqual([...audit.keys()], ['t:a', 't:b', 't:c']);
	// A Harper that ended itself kept the entry of c, and not the progress behind it.
	assert.deepEqual(await reject(['b', 'c'], 2), [1, 3]);
	assert.deepEqual(await reject(['b', 'c'], 3), [0, 3]);
});

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

test('a commit is between its opening and its witness, also where Harper refuses some of its rows', async () => {
	/** @type {string[]} */
	let put = [];
	/** @type {string[][]} */
	const committed = [];
	const noting = (/** @type {(record: any) => string} */ name) => ({
		get: async () => undefined,
		put: (/** @type {any} */ record) => put.push(name(record)),
	});
	const before = globals.databases.data;
	globals.databases.data = {
		SyncBatch: noting(({ id, opened }) => (id.endsWith(':opening') ? 'opening' : opened ? 'witness' : 'head')),
		SyncCheckpoint: noting(() => 'progress'),
		SyncAudit: noting(() => 'audit'),
	};
	commits = () => {
		const writes = put;
		put = [];
		if (writes.includes('bad')) throw Object.assign(new Error('refused'), { statusCode: 400 });
		committed.push(writes);
	};
	const witness = /** @type {any} */ ({ tableId: 't', owner: 'n-0', number: 1, place: 1, stamp: 'now' });
	const rows = { rows: 3, text: '[["a","bad","c"]]', head: witness, witness };
	await commit(targetOf(noting(({ id }) => id)), /** @type {any} */ (orderOf(rows)));
	assert.deepEqual(committed.at(-1), ['head', 'opening', 'a', 'c', 'audit', 'witness', 'progress']);
	globals.databases.data = before;
	commits = () => {};
});
