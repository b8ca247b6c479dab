/** The component's own records, over a table that keeps the later one of two versions, as Harper does. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';

import { change, replace, timeAfter } from '../../js/harper/stamps.js';

const AHEAD_MS = 600_000;
const globals = /** @type {Record<string, any>} */ (globalThis);
const realNow = Date.now;
/** @type {Map<string, {record: any, stampMs: number}>} */
let versions;

beforeEach(() => {
	versions = new Map();
	const write = (/** @type {any} */ record, /** @type {{timestamp: number}} */ { timestamp: stampMs }) => {
		if (stampMs > (versions.get(record.id)?.stampMs ?? 0)) versions.set(record.id, { record, stampMs });
	};
	const table = {
		get: async (/** @type {string} */ id) => versions.get(id)?.record,
		put: write,
		patch: (/** @type {string} */ id, /** @type {any} */ some, /** @type {any} */ context) =>
			write({ ...versions.get(id)?.record, ...some }, context),
	};
	globals.databases = { data: { SyncNode: table } };
	globals.transaction = async (/** @type {object} */ context, /** @type {() => any} */ action) => action();
});

afterEach(() => {
	Date.now = realNow;
	delete globals.databases;
	delete globals.transaction;
});

test('a record that a clock ten minutes ahead has written is replaced, again and again', async () => {
	Date.now = () => realNow() + AHEAD_MS;
	await replace('SyncNode', { id: 'n', beat: 1, removed: true });
	Date.now = realNow;
	await replace('SyncNode', { id: 'n', beat: 2 });
	assert.equal(versions.get('n')?.record.beat, 2);
	assert.equal(versions.get('n')?.record.removed, undefined);
	await replace('SyncNode', { id: 'n', beat: 3 });
	assert.equal(versions.get('n')?.record.beat, 3);
	await change('SyncNode', 'n', { workers: 2 });
	const { stampMs, ...record } = versions.get('n')?.record ?? {};
	assert.deepEqual(record, { id: 'n', beat: 3, workers: 2 });
	assert.equal(stampMs, versions.get('n')?.stampMs);
});

test('a clock that is right is taken as it is', () => {
	Date.now = () => 1_000_000;
	assert.equal(timeAfter([undefined, null, {}, { stampMs: 999_999 }]), 1_000_000);
	assert.equal(timeAfter([{ stampMs: 1_000_000 }]), 1_000_001);
});
