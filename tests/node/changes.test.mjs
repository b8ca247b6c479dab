/** Looks at the database that read it only if it has changed, over a store that counts transactions. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';

import { Changes } from '../../js/harper/changes.js';
import { lastTransaction } from '../../js/harper/database.js';

const globals = /** @type {Record<string, any>} */ (globalThis);

/** A value of which readers see a snapshot, and the number of the last transaction. */
class Store {
	transactions = 7;
	value = 'first';
	snapshot = 'first';

	/** @param {string} value */
	commit(value) {
		this.value = value;
		this.transactions += 1;
	}

	/** Later reads see what is committed now. */
	renew() {
		this.snapshot = this.value;
	}
}

/** @type {Store} */
let store;
/** @type {string[]} */
let read;
/** @type {Changes} */
let changes;

beforeEach(() => {
	store = new Store();
	read = [];
	changes = new Changes(() => store.transactions);
});

afterEach(() => {
	delete globals.databases;
});

const look = () =>
	changes.look(async () => {
		read.push(store.snapshot);
	});

/** @param {number} times */
async function lookOften(times) {
	for (let time = 0; time < times; time++) await look();
}

test('what does not change is read twice, and no more', async () => {
	await lookOften(10);
	assert.deepEqual(read, ['first', 'first']);
});

test('a change is found, even if the first look reads in a snapshot from before', async () => {
	await lookOften(5);
	store.commit('second');
	await look();
	assert.equal(read.at(-1), 'first');
	store.renew();
	await lookOften(5);
	assert.deepEqual(read, ['first', 'first', 'first', 'second']);
});

test('changes that follow one another are all found', async () => {
	for (let number = 0; number < 20; number++) {
		store.commit(`${number}`);
		await look();
		store.renew();
	}
	await lookOften(5);
	assert.equal(read.at(-1), '19');
	assert.equal(read.length, 21);
});

test('a change during a look is found by the next one', async () => {
	await lookOften(3);
	store.commit('second');
	await changes.look(async () => store.commit('third'));
	store.renew();
	await look();
	assert.equal(read.at(-1), 'third');
});

test('what failed is read again', async () => {
	await lookOften(3);
	const failing = () =>
		changes.look(async () => {
			throw new Error('not readable');
		});
	store.commit('second');
	for (let time = 0; time < 3; time++) await assert.rejects(failing, /not readable/);
	store.renew();
	await lookOften(3);
	assert.deepEqual(read.slice(2), ['second']);
});

test('without the number of the last transaction, each look reads', async () => {
	globals.databases = { data: { SyncNode: { primaryStore: {} } } };
	assert.equal(lastTransaction(), undefined);
	changes = new Changes();
	await lookOften(6);
	assert.equal(read.length, 6);
	globals.databases = { data: { SyncNode: { primaryStore: { env: { info: () => ({ lastTxnId: 3 }) } } } } };
	await lookOften(6);
	assert.equal(read.length, 8);
});
