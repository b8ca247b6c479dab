/** The memory of the core: shared by all tables of a worker, and given back when the configuration changes. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { loadCore } from '../../js/core.js';
import { MemoryHost, wirePage } from '../support/wire.mjs';
import { encode } from './support/core.mjs';

const MEGABYTE = 1 << 20;
const TABLES = 60;
const MEMORY_BYTES = 64 * MEGABYTE;
/** A row has twice as many bytes. */
const ROW_LETTERS = 10_000;
const ROWS_PER_PAGE = 210;
const ROWS_PER_SMALL_PAGE = 20;
const PAGES = 2;
const ROWS = PAGES * ROWS_PER_PAGE;
const EDITS = 200;
/** Garbage of the last ones may be left. */
const CORES_LEFT_MAX = 20;
const GROWTH_BYTES_MAX = 200 * MEGABYTE;

const FIELDS = [
	{ name: 'ts', type: 'TIMESTAMP' },
	{ name: 'text', type: 'STRING' },
];
/** @param {number} length @param {number} totalRows */
function pageOf(length, totalRows) {
	const rows = Array.from({ length }, (_, n) => ({ ts: `${n}`, text: `${n}`.padEnd(ROW_LETTERS, 'é') }));
	return encode(wirePage({ fields: FIELDS, rows, totalRows }));
}

const PAGE = pageOf(ROWS_PER_PAGE, ROWS);
const SMALL_PAGE = pageOf(ROWS_PER_SMALL_PAGE, ROWS_PER_SMALL_PAGE);

/** Serves the same page again and again, takes its time, and counts what is written. */
class PagesHost extends MemoryHost {
	rows = 0;

	constructor(page = PAGE) {
		super({ fields: FIELDS, page: () => page });
	}

	async send(request) {
		for (let turn = 0; turn < 5; turn++) await nextTurn();
		return super.send(request);
	}

	async write(order) {
		this.rows += order.rows;
		this.checkpoints = order.checkpoints;
		await nextTurn();
		return { refused: 0 };
	}
}

/** @param {number} count */
function root(count) {
	const tables = Array.from({ length: count }, (_, n) => ({ table: `t${n}` }));
	return {
		bigquery: { projectId: 'p', dataset: 'd', timestampColumn: 'ts', tables },
		limits: { maxMemoryPerWorker: MEMORY_BYTES },
	};
}

const surroundings = { emulatorHost: '127.0.0.1:9050', sharedRoot: false };

test('sixty tables of large pages share the memory of their worker, and each of them gets its turn', async (context) => {
	const core = await loadCore();
	const memory = () => core.initSync({ module: new Uint8Array() }).memory.buffer.byteLength;
	const configuration = new core.Configuration(root(TABLES), surroundings);
	const runs = Array.from({ length: TABLES }, (_, n) => {
		const sync = configuration.table(`t${n}`, { node: 'n', index: 0 });
		const host = new PagesHost();
		return { sync, host, ended: host.run(sync) };
	});
	let isDone = false;
	const done = Promise.all(runs.map(({ host }) => host.idle)).then(() => {
		isDone = true;
	});
	let waiting = 0;
	while (!isDone) {
		waiting = Math.max(waiting, runs.filter(({ sync }) => sync.status().waitsForMemorySeconds !== null).length);
		await nextTurn();
	}
	await done;
	context.diagnostic(`${TABLES} tables, ${(memory() / MEGABYTE).toFixed(0)} MiB, ${waiting} waited at once`);
	assert.deepEqual([...new Set(runs.map(({ host }) => host.rows))], [ROWS]);
	assert.ok(waiting > 0, 'no table waited for another one');
	assert.ok(memory() < MEMORY_BYTES, `${memory()} bytes`);
	for (const { sync } of runs) {
		assert.equal(sync.status().waitsForMemorySeconds, null);
		sync.stop();
	}
	await Promise.all(runs.map(({ ended }) => ended));
});

test('a table that is stopped while it waits for memory ends, and those behind it go on', async () => {
	const core = await loadCore();
	const configuration = new core.Configuration(root(3), surroundings);
	const runs = [0, 1, 2].map((n) => {
		const sync = configuration.table(`t${n}`, { node: 'n', index: 0 });
		const host = new PagesHost();
		return { sync, host, ended: host.run(sync) };
	});
	while (runs[1].sync.status().waitsForMemorySeconds === null) await nextTurn();
	runs[1].sync.stop();
	await runs[1].ended;
	await Promise.all([runs[0].host.idle, runs[2].host.idle]);
	for (const { sync } of runs) sync.stop();
	await Promise.all(runs.map(({ ended }) => ended));
	assert.deepEqual(
		runs.map(({ host }) => host.rows),
		[ROWS, 0, ROWS]
	);
});

test('of cores that are not used any more nothing stays in memory', async (context) => {
	setFlagsFromString('--expose-gc');
	const collect = runInNewContext('gc');
	/** @type {WeakRef<object>[]} */
	const cores = [];
	const edit = async () => {
		const core = await loadCore();
		const sync = new core.Configuration(root(1), surroundings).table('t0', { node: 'n', index: 0 });
		const host = new PagesHost(SMALL_PAGE);
		const ended = host.run(sync);
		await host.idle;
		sync.stop();
		await ended;
		sync.free();
		cores.push(new WeakRef(core));
	};
	const settle = async () => {
		for (let turn = 0; turn < 5; turn++) {
			await nextTurn();
			collect();
		}
	};
	for (let n = 0; n < 10; n++) await edit();
	await settle();
	const before = process.memoryUsage().rss;
	for (let n = 0; n < EDITS; n++) {
		await edit();
		if (n % 20 === 0) await settle();
	}
	await settle();
	const left = cores.filter((core) => core.deref() !== undefined).length;
	const growth = process.memoryUsage().rss - before;
	context.diagnostic(`${left} of ${cores.length} cores left, ${(growth / MEGABYTE).toFixed(0)} MiB more`);
	assert.ok(left <= CORES_LEFT_MAX, `${left} cores are left`);
	assert.ok(growth < GROWTH_BYTES_MAX, `${growth} bytes more`);
});
