/** When a commit of another node has arrived, by the records around its rows. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { readArrived, readLastCommit, readToldCommit } from '../../js/harper/sync/witnesses.js';

const OWNER = 'n-0';
const WITNESS = `t:${OWNER}:7`;
const BEFORE_ALL = 1;
const globals = /** @type {Record<string, any>} */ (globalThis);
/** @type {Map<string, Record<string, any>>} */
const stored = new Map();
let storedAt = Date.now();

before(() => {
	const SyncBatch = {
		get: async (/** @type {string} */ id) => stored.get(id),
		primaryStore: { getEntry: () => ({ localTime: storedAt }) },
	};
	globals.databases = { data: { SyncBatch } };
});

after(() => {
	delete globals.databases;
});

/** @param {Record<string, any>} records */
function store(records, at = Date.now() + 60_000) {
	stored.clear();
	for (const [id, record] of Object.entries(records)) stored.set(id, record);
	storedAt = at;
}

const witness = { number: 7, place: 7, stamp: 'now', opened: true };

test('a commit has arrived with its end and its own beginning', async () => {
	store({ [WITNESS]: witness });
	assert.equal(await readArrived('t', OWNER, 7), null);
	store({ [WITNESS]: witness, [`${WITNESS}:opening`]: { number: 7, stamp: 'before' } });
	assert.equal(await readArrived('t', OWNER, 7), null);
	store({ [WITNESS]: witness, [`${WITNESS}:opening`]: { number: 7, stamp: 'now' } });
	assert.equal((await readArrived('t', OWNER, 7)).number, 7);
	assert.equal(await readArrived('t', OWNER, 263), null);
	store({ [`${WITNESS}:opening`]: { number: 7, stamp: 'now' } });
	assert.equal(await readArrived('t', OWNER, 7), null);
});

test('a commit of a version that wrote no beginnings has arrived with its end', async () => {
	store({ [WITNESS]: { ...witness, opened: undefined } });
	assert.equal((await readArrived('t', OWNER, 7)).number, 7);
});

test('what was stored before this thread began is told apart', async () => {
	const records = { [WITNESS]: witness, [`${WITNESS}:opening`]: { number: 7, stamp: 'now' } };
	store(records);
	assert.equal((await readArrived('t', OWNER, 7)).isFormer, false);
	store(records, BEFORE_ALL);
	assert.equal((await readArrived('t', OWNER, 7)).isFormer, true);
});

test('a commit that was cut short is the last one of its worker', async () => {
	store({ [`t:${OWNER}`]: { number: 8, rows: 'cut' }, [WITNESS]: witness });
	assert.deepEqual(await readLastCommit('t', OWNER), { number: 8, rows: 'cut' });
	store({ [`t:${OWNER}`]: { number: 7, doubt: 1 }, [WITNESS]: witness });
	assert.deepEqual(await readLastCommit('t', OWNER), witness);
	store({ [`t:${OWNER}`]: { number: 0 } });
	assert.equal(await readLastCommit('t', OWNER), null);
});

test('a commit whose beginning got lost is told of by its end', async () => {
	const head = { number: 6, rows: 'told' };
	store({ [`t:${OWNER}`]: head });
	assert.deepEqual(await readToldCommit('t', OWNER), head);
	store({ [`t:${OWNER}`]: head, [WITNESS]: witness, [`t:${OWNER}:8`]: { ...witness, number: 8, place: 8 } });
	assert.equal((await readToldCommit('t', OWNER)).number, 8);
	store({ [`t:${OWNER}:1`]: { ...witness, number: 1, place: 1 } });
	assert.equal((await readToldCommit('t', OWNER)).number, 1);
	store({ [`t:${OWNER}`]: { number: 9 }, [WITNESS]: witness });
	assert.equal((await readToldCommit('t', OWNER)).number, 9);
	store({});
	assert.ok(!(await readToldCommit('t', OWNER)));
});
