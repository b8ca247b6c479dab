/** Reading the ids of many records in slices, over a store that gives ranges as LMDB does. */

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, mock, test } from 'node:test';

import { scan, scanRecords, scanWritten } from '../../js/harper/validation/scan.js';

const RECORDS = 2_500;
const { signal } = new AbortController();

/** @type {NodeJS.Timeout} */
let keepAlive;
let ranges = 0;

// The pauses of a scan do not keep a process alive.
before(() => (keepAlive = setInterval(() => {}, 1_000)));
after(() => clearInterval(keepAlive));

/** Each look at the time takes a millisecond, so the records are read in many slices. */
beforeEach(() => {
	let now = 0;
	ranges = 0;
	mock.method(performance, 'now', () => now++);
});
afterEach(() => mock.restoreAll());

/** @param {number} number */
const idOf = (number) => `id-${String(number).padStart(5, '0')}`;

/** A table of which each seventh record was deleted, and that has an entry of Harper's own besides. */
function startTable() {
	const entries = Array.from({ length: RECORDS }, (_, number) => {
		const value = number % 7 === 0 ? null : { ts: new Date(number), number };
		return { key: idOf(number), value, version: number };
	});
	function* getRange({ start = '', end = '\uffff' }) {
		ranges++;
		if (start === '') yield { key: Symbol.for('structures'), value: {}, version: 1 };
		yield* entries.filter(({ key }) => key >= start && key <= end);
	}
	return { primaryStore: { getRange } };
}

const existing = Array.from({ length: RECORDS }, (_, number) => number).filter((number) => number % 7 !== 0);

test('each record that exists is read once, in slices', async () => {
	const found = [];
	await scan(startTable(), { bounds: undefined, attribute: undefined, take: (ids) => found.push(...ids), signal });
	assert.deepEqual(found, existing.map(idOf));
	assert.ok(ranges > 1);
});

test('behind each id within the bounds is the value of an attribute', async () => {
	const found = [];
	const bounds = /** @type {[string, string]} */ ([idOf(699), idOf(702)]);
	await scan(startTable(), { bounds, attribute: 'ts', take: (texts) => found.push(...texts), signal });
	const texts = [699, 701, 702].flatMap((number) => [idOf(number), new Date(number).toISOString()]);
	assert.deepEqual(found, texts);
});

test('a scan goes on only when what it has found was dealt with', async () => {
	const [seen, dealtWith] = [[], []];
	const visit = ({ value, version }) => {
		assert.equal(value.number, version);
		seen.push(version);
	};
	const handOver = async () => {
		const before = seen.length;
		await new Promise((resolve) => setImmediate(resolve));
		assert.equal(seen.length, before);
		dealtWith.push(before);
	};
	await scanRecords(startTable(), { visit, handOver, signal });
	assert.deepEqual(seen, existing);
	assert.equal(dealtWith.length, ranges);
	assert.equal(dealtWith.at(-1), existing.length);
});

test('of records that were written in a time, deleted ones are told too', async () => {
	const found = [];
	const take = (ids, times) => found.push(...ids.map((id, index) => [id, times[index]]));
	await scanWritten(startTable(), { written: [6, 8], take, signal });
	assert.deepEqual(found, [
		[idOf(7), 7],
		[idOf(8), 8],
	]);
});

test('a scan that is stopped ends with the slice', async () => {
	const stop = new AbortController();
	const found = [];
	const take = (ids) => {
		found.push(...ids);
		stop.abort();
	};
	await scan(startTable(), { bounds: undefined, attribute: undefined, take, signal: stop.signal });
	assert.equal(ranges, 1);
	assert.ok(found.length < existing.length);
});
