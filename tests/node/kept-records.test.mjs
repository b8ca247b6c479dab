/** Records that are read again only if their bytes have changed, over a table that stores bytes as LMDB does. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';

import { KeptById, KeptRecords } from '../../js/harper/kept-records.js';

const globals = /** @type {Record<string, any>} */ (globalThis);
const CONDITIONS = [{ attribute: 'tableId', value: 'a' }];

/** A table of Harper's that keeps its records as bytes. */
class Table {
	/** @type {Map<string, Uint8Array>} */
	stored = new Map();
	searches = 0;
	/** Called in the middle of a search. */
	during = () => {};
	/** @type {any} */
	primaryStore = {
		env: { info: () => ({ lastTxnId: 1 }) },
		getKeys: ({ start = '', end = '\uffff' }) => [...this.stored.keys()].filter((id) => id >= start && id < end).sort(),
		getBinary: (/** @type {string} */ id) => this.stored.get(id),
	};

	/** @param {Record<string, unknown> & {id: string}} record */
	put(record) {
		this.stored.set(record.id, Buffer.from(JSON.stringify(record)));
	}

	/** @param {string} id */
	async get(id) {
		this.searches += 1;
		const bytes = this.stored.get(id);
		const record = bytes && JSON.parse(String(bytes));
		this.during();
		return record;
	}

	/** @param {{conditions: {attribute: string, value: unknown}[]}} query */
	async *search({ conditions }) {
		this.searches += 1;
		const records = [...this.stored.values()].map((bytes) => JSON.parse(String(bytes)));
		this.during();
		for (const record of records) {
			if (conditions.every(({ attribute, value }) => record[attribute] === value)) yield Object.freeze(record);
		}
	}
}

/** @type {Table} */
let table;
/** @type {KeptRecords} */
let kept;

beforeEach(() => {
	table = new Table();
	globals.databases = { data: { SyncCheckpoint: table, SyncNode: table } };
	for (const partition of [0, 1, 2]) table.put({ id: `a:${partition}`, tableId: 'a', rows: partition });
	table.put({ id: 'b:0', tableId: 'b', rows: 9 });
	kept = new KeptRecords('SyncCheckpoint', { conditions: CONDITIONS, prefix: 'a:' });
});

afterEach(() => {
	delete globals.databases;
});

const rows = async () => (await kept.read()).map((record) => record.rows);

test('records that stay the same are read once', async () => {
	const first = await kept.read();
	assert.deepEqual(first[1], { id: 'a:1', tableId: 'a', rows: 1 });
	assert.equal(await kept.read(), first);
	table.put({ id: 'b:0', tableId: 'b', rows: 10 });
	assert.equal(await kept.read(), first);
	assert.equal(table.searches, 1);
});

test('a record that is changed, added or removed is noticed', async () => {
	assert.deepEqual(await rows(), [0, 1, 2]);
	table.put({ id: 'a:1', tableId: 'a', rows: 7 });
	assert.deepEqual(await rows(), [0, 7, 2]);
	table.put({ id: 'a:3', tableId: 'a', rows: 3 });
	assert.deepEqual(await rows(), [0, 7, 2, 3]);
	table.stored.delete('a:0');
	assert.deepEqual(await rows(), [7, 2, 3]);
	table.stored.delete('a:2');
	table.put({ id: 'a:4', tableId: 'a', rows: 2 });
	assert.deepEqual(await rows(), [7, 3, 2]);
	for (const id of ['a:1', 'a:3', 'a:4']) table.stored.delete(id);
	assert.deepEqual(await rows(), []);
});

test('a record that changes while the others are being read is read again', async () => {
	table.during = () => table.put({ id: 'a:2', tableId: 'a', rows: 8 });
	assert.deepEqual(await rows(), [0, 1, 2]);
	table.during = () => {};
	assert.deepEqual(await rows(), [0, 1, 8]);
});

test('reads at the same time do not bring back what is old', async () => {
	await kept.read();
	for (let number = 0; number < 20; number++) {
		const before = kept.read();
		table.put({ id: 'a:0', tableId: 'a', rows: number });
		await Promise.all([before, kept.read()]);
		assert.equal((await rows())[0], number);
	}
});

test('all records of a table are kept if nothing else is said', async () => {
	kept = new KeptRecords('SyncCheckpoint');
	assert.deepEqual(await rows(), [0, 1, 2, 9]);
	table.put({ id: 'b:0', tableId: 'b', rows: 10 });
	assert.deepEqual(await rows(), [0, 1, 2, 10]);
});

test('a store that does not tell its bytes is read each time', async () => {
	table.primaryStore = {};
	for (let time = 0; time < 3; time++) assert.deepEqual(await rows(), [0, 1, 2]);
	assert.equal(table.searches, 3);
});

test('a single record is read again when its bytes have changed, and not when it does not exist', async () => {
	const byId = new KeptById('SyncCheckpoint');
	const first = await byId.read('a:1');
	assert.deepEqual(first, { id: 'a:1', tableId: 'a', rows: 1 });
	assert.equal(await byId.read('a:1'), first);
	assert.equal(table.searches, 1);
	table.put({ id: 'a:1', tableId: 'a', rows: 2 });
	assert.equal((await byId.read('a:1')).rows, 2);
	table.stored.delete('a:1');
	assert.equal(await byId.read('a:1'), null);
	assert.equal(table.searches, 2);
	table.put({ id: 'a:1', tableId: 'a', rows: 2 });
	assert.equal((await byId.read('a:1')).rows, 2);
});

test('a single record that changes while it is being read is read again', async () => {
	const byId = new KeptById('SyncCheckpoint');
	table.during = () => table.put({ id: 'a:2', tableId: 'a', rows: 8 });
	assert.equal((await byId.read('a:2')).rows, 2);
	table.during = () => {};
	assert.equal((await byId.read('a:2')).rows, 8);
});

test('a single record of a store that does not tell its bytes is read each time', async () => {
	table.primaryStore = {};
	const byId = new KeptById('SyncCheckpoint');
	for (let time = 0; time < 3; time++) assert.equal((await byId.read('a:1')).rows, 1);
	assert.equal(await byId.read('a:9'), null);
	assert.equal(table.searches, 4);
});
