/** Reading ahead for indexes: one request for the entries of a transaction. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { bundlePrefetches } from '../../js/harper/sync/prefetches.js';

/** An index as lmdb has it, that notes what it is asked for. */
class Index {
	/** @type {unknown[][]} */
	requests = [];

	/** @param {unknown[]} entries @param {() => void} [callback] */
	prefetch(entries, callback) {
		this.requests.push(entries);
		if (callback === undefined) return Promise.resolve();
		setImmediate(callback);
		return undefined;
	}
}

const entry = (/** @type {number} */ n) => ({ key: `value ${n}`, value: `id ${n}` });

test('what one turn asks for becomes one request for each index, and each caller hears of its end', async () => {
	const indices = { one: new Index(), other: new Index() };
	bundlePrefetches({ indices });
	bundlePrefetches({ indices });
	let ends = 0;
	for (const n of [1, 2, 3]) indices.one.prefetch([entry(n)], () => ends++);
	indices.other.prefetch([entry(4), entry(5)], () => ends++);
	await nextTurn();
	await nextTurn();
	assert.deepEqual(indices.one.requests, [[entry(1), entry(2), entry(3)]]);
	assert.deepEqual(indices.other.requests, [[entry(4), entry(5)]]);
	assert.equal(ends, 4);
	indices.one.prefetch([entry(6)], () => ends++);
	await nextTurn();
	assert.equal(indices.one.requests.length, 2);
});

test('who waits for the answer is not bundled', async () => {
	const index = new Index();
	bundlePrefetches({ indices: { index } });
	await index.prefetch([entry(1)]);
	assert.deepEqual(index.requests, [[entry(1)]]);
});

test('a failure is nobody’s concern, for the write itself will tell', async () => {
	const index = {
		prefetch() {
			throw new Error('closed');
		},
	};
	bundlePrefetches({ indices: { index } });
	let ends = 0;
	/** @type {any} */ (index).prefetch([entry(1)], () => ends++);
	await nextTurn();
	assert.equal(ends, 1);
});

test('tables without indexes, and stores that read nothing ahead, are left alone', () => {
	bundlePrefetches(undefined);
	bundlePrefetches({});
	const indices = { index: { put() {} }, other: null };
	bundlePrefetches({ indices });
	assert.deepEqual(Object.keys(indices.index), ['put']);
});
