/** What a table's host loads for the core, over tables that store bytes as LMDB does. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { TableHost } from '../../js/harper/sync/table-host.js';

const globals = /** @type {Record<string, any>} */ (globalThis);

/** A table of Harper's that keeps its records as bytes. */
class Table {
	/** @type {Map<string, Uint8Array>} */
	stored = new Map();
	env = { info: () => ({}) };
	primaryStore = {
		env: this.env,
		getKeys: ({ start = '', end = '\uffff' }) => [...this.stored.keys()].filter((id) => id >= start && id < end),
		getBinary: (/** @type {string} */ id) => this.stored.get(id),
	};

	/** @param {Record<string, unknown> & {id: string}} record */
	async put(record) {
		this.stored.set(record.id, Buffer.from(JSON.stringify(record)));
	}

	/** @param {string} id */
	async get(id) {
		const bytes = this.stored.get(id);
		return bytes && JSON.parse(String(bytes));
	}

	async *search() {
		for (const bytes of this.stored.values()) yield JSON.parse(String(bytes));
	}
}

const NAMES = ['SyncCheckpoint', 'SyncCounts', 'SyncControlState', 'SyncBatch', 'SyncProof', 'SyncNode', 'SyncLeaves'];
const MORE_NAMES = ['SyncContents', 'SchemaVersion', 'SyncTarget'];

before(() => {
	globals.databases = { data: Object.fromEntries([...NAMES, ...MORE_NAMES].map((name) => [name, new Table()])) };
});

after(() => {
	delete globals.databases;
});

function host() {
	const none = () => {};
	return new TableHost({
		table: { id: 't', targetTable: 'T', pollIntervalMs: 1_000, isValidated: false },
		worker: { node: 'n', index: 0 },
		connection: /** @type {any} */ (undefined),
		descriptions: /** @type {any} */ (undefined),
		onTarget: none,
		onIndexes: none,
		instance: { dead: false },
		onStep: none,
		onDeath: none,
	});
}

test('what_is_stored_is_the_same_object_until_a_record_changes', async () => {
	const { SyncCheckpoint, SyncNode, SyncBatch, SyncControlState } = globals.databases.data;
	await SyncNode.put({ id: 'n', workers: 2 });
	await SyncCheckpoint.put({ id: 't:0', tableId: 't', rows: 1 });
	await SyncBatch.put({ id: 't:n-0', number: 3 });
	await SyncBatch.put({ id: 't:n-0:3', number: 3, rows: 5 });
	const table = host();
	await table.load();
	const first = await table.load();
	assert.deepEqual([first.checkpoints.length, first.lastCommit.rows, first.heads.length], [1, 5, 1]);
	assert.equal(await table.load(), first);

	const changes = [
		() => SyncCheckpoint.put({ id: 't:0', tableId: 't', rows: 2 }),
		() => SyncBatch.put({ id: 't:n-1', number: 1 }),
		() => SyncControlState.put({ id: 't', forgivenRows: 7 }),
		() => SyncNode.put({ id: 'n', workers: 2, removed: true }),
	];
	let known = first;
	for (const change of changes) {
		await change();
		const next = await table.load();
		assert.notEqual(next, known, String(change));
		known = next;
		assert.equal(await table.load(), known);
	}
	assert.deepEqual(
		[known.checkpoints[0].rows, known.heads.length, known.forgivenRows, known.removed.length],
		[2, 2, 7, 2]
	);
});
