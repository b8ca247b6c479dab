/** What becomes of stored rows whose ids have changed: the built core decides, a table in memory is asked. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { succeed } from '../../js/harper/sync/succession.js';
import { recordsOf } from './support/core.mjs';

const KEPT = [
	{ name: 'ts', type: 'TIMESTAMP' },
	{ name: 'name', type: 'STRING' },
];
const DOOMED = { name: 'doomed', type: 'STRING' };
const ROWS = [
	{ ts: '1', name: 'twin', doomed: 'left' },
	{ ts: '1', name: 'twin', doomed: 'right' },
	{ ts: '1', name: 'single', doomed: 'one' },
	{ ts: '2', name: 'late', doomed: 'two' },
	{ ts: '3', name: 'gone from the source', doomed: 'three' },
];

/** Finds rows by id, in the order of the ids. */
class Table {
	attributes = [];
	#rows = new Map();

	constructor(/** @type {any[]} */ rows) {
		for (const row of rows) this.#rows.set(row.id, row);
	}

	async *search({ conditions: [{ comparator, value }] }) {
		const [first, last] = comparator === 'between' ? value : [value, value];
		for (const id of [...this.#rows.keys()].sort()) {
			if (id >= first && id <= last) yield this.#rows.get(id);
		}
	}
}

/** Reads the rows, and then those that are `left` once more, without the column that is gone. */
async function before(/** @type {any[]} */ left) {
	const first = await recordsOf([...KEPT, DOOMED], ROWS, { key: [] });
	const second = await recordsOf(KEPT, left, { key: [] }, { schema: first.host.schema });
	const { layout, orders, sync } = second.host;
	return { old: first.records, records: second.records, layout, orders, sync };
}

const named = (/** @type {any[]} */ rows, /** @type {string} */ name) => rows.filter((row) => row.name === name);
const idsOf = (/** @type {any[]} */ rows) => rows.map(({ id }) => id).sort();

test('each row replaces one of its group and keeps what it has of a column that is gone', async () => {
	const { old, records, layout, orders, sync } = await before(ROWS.slice(0, 4));
	assert.equal(new Set([...old, ...records].map(({ id }) => id)).size, 9);
	const { replaced, late } = await succeed(new Table(old), layout, orders[0], records, sync);
	assert.deepEqual(late, []);
	assert.deepEqual([...replaced.values()].flat().sort(), idsOf(old.slice(0, 4)));
	const kept = records.map(({ name, doomed }) => `${name} ${doomed}`);
	assert.deepEqual(kept.sort(), ['late two', 'single one', 'twin left', 'twin right']);
});

test('rows that another node has renewed leave nothing of their group behind', async () => {
	const { old, records, layout, orders, sync } = await before(ROWS.slice(0, 4));
	const table = new Table([...old, ...named(records, 'twin').map((row) => ({ ...row }))]);
	const { replaced, late } = await succeed(table, layout, { ...orders[0], replaces: false }, [], sync);
	assert.equal(replaced.size, 0);
	assert.deepEqual(late.flatMap(({ former }) => former).sort(), idsOf(named(old, 'twin')));
	assert.deepEqual(late.map(({ past }) => past.doomed).sort(), ['left', 'right']);
	assert.deepEqual(late.map(({ id }) => id).sort(), idsOf(named(records, 'twin')));
});
