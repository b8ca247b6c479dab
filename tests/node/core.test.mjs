/** The built core, through its boundary to JavaScript. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';

import { assembleRecords } from '../../js/harper/sync/batch.js';
import { loadCore } from '../../js/core.js';
import { MemoryHost, wirePage } from '../support/wire.mjs';
import { configuration, core, encode, recordsOf } from './support/core.mjs';

const TS = { name: 'ts', type: 'TIMESTAMP' };

/** A host of a table with so many rows, in pages. @param {number} length */
function hostOf(length) {
	const fields = [TS, { name: 'n', type: 'INTEGER' }];
	const rows = Array.from({ length }, (_, n) => ({ ts: String(n), n: String(n) }));
	const page = (offset, wanted) =>
		encode(wirePage({ fields, rows: rows.slice(offset, offset + wanted), totalRows: rows.length }));
	return new MemoryHost({ fields, page });
}

/** Syncs in pages of a thousand rows, and returns where the pages start that were asked for. @param {MemoryHost} host */
async function offsetsAskedOf(host) {
	const sync = configuration({ batchSize: 1_000 }).table('t', { node: 'n', index: 0 });
	const ended = host.run(sync);
	await host.idle;
	sync.stop();
	await ended;
	return host.requests
		.filter(({ purpose }) => purpose === 'readResult')
		.map(({ path }) => Number(/startIndex=(\d+)/.exec(path)?.[1]));
}

test('pages are asked for by offset, and none twice', async () => {
	const host = hostOf(2_500);
	assert.deepEqual(await offsetsAskedOf(host), [1_000, 2_000]);
	assert.equal(
		host.orders.reduce((sum, order) => sum + order.rows, 0),
		2_500
	);
	assert.ok(host.orders.every((order) => order.rows <= 1_000));
});

test('of a long result three pages are under way at a time, and each is asked for once', async () => {
	const host = hostOf(10_000);
	const { send } = host;
	let [underWay, most] = [0, 0];
	host.send = async (request) => {
		if (request.purpose !== 'readResult') return send.call(host, request);
		most = Math.max(most, ++underWay);
		const answer = await send.call(host, request);
		// It comes when a further batch is written, or when nothing else is done.
		await new Promise((resolve) => setTimeout(resolve, 5));
		underWay--;
		return answer;
	};
	assert.deepEqual(await offsetsAskedOf(host), [1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000, 9_000]);
	assert.equal(most, 3);
	assert.equal(
		host.orders.reduce((sum, order) => sum + order.rows, 0),
		10_000
	);
});

test('a failure of the host is told with its code, and the sync goes on by itself', async () => {
	const fields = [TS];
	const host = new MemoryHost({ fields, page: () => encode(wirePage({ fields, rows: [{ ts: '1' }] })) });
	const { send } = host;
	let failures = 0;
	host.send = async (request) => {
		if (failures++ < 2) return { failure: { code: 'unreachable', message: 'no route' } };
		return send.call(host, request);
	};
	const sync = configuration({}, { retry: { initialDelay: 10 } }).table('t', { node: 'n', index: 0 });
	const ended = host.run(sync);
	await host.idle;
	sync.stop();
	await ended;
	const retrying = host.reports.find(({ state }) => state === 'retrying');
	assert.equal(retrying.lastError.code, 'unreachable');
	assert.equal(sync.status().lastError, null);
	assert.equal(sync.status().rows, 1);
});

test('a stop ends a rest at once', async () => {
	const { status } = await recordsOf([TS], [{ ts: '1' }]);
	assert.equal(status.state, 'stopped');
});

test('problems of the configuration come as a list', () => {
	assert.throws(
		() => configuration({ tabel: 'x' }, { sync: { pollInterval: 'often' } }),
		(problems) => {
			assert.deepEqual(
				problems.map(({ key }) => key),
				['sync.pollInterval', 'bigquery.tabel']
			);
			return true;
		}
	);
});

test('each instance of the core has a memory of its own', async () => {
	const other = await loadCore();
	assert.notEqual(other, core);
	assert.equal(other.version(), core.version());
});

test('a panic of the core ends the runs of its instance and nothing else', async () => {
	const { TableHost } = await import('../../js/harper/sync/table-host.js');
	const deaths = [];
	const instance = { dead: false };
	const worker = { node: 'n', index: 0 };
	const host = new TableHost({
		table: { id: 't', targetTable: 'T' },
		worker,
		connection: /** @type {any} */ (null),
		onTarget() {},
		instance,
		onStep: () => {},
		onDeath: (error) => deaths.push(error),
	});
	const sync = configuration().table('t', worker);
	sync.step = () => {
		throw new WebAssembly.RuntimeError('unreachable');
	};
	await host.run(sync);
	assert.equal(deaths.length, 1);
	assert.ok(instance.dead);
	// Another table of the same instance ends at its next step.
	const other = configuration().table('t', worker);
	await new TableHost({ ...host, worker, onDeath: assert.fail, instance }).run(other);
});

test('rows that are decoded ahead are those that would have come anyway', async () => {
	const fields = [TS, { name: 'text', type: 'STRING' }];
	const rows = Array.from({ length: 3_000 }, (_, row) => ({ ts: String(row), text: `text ${row % 7}` }));
	const recordsWith = async (workAhead) => {
		const page = (offset, wanted) =>
			encode(wirePage({ fields, rows: rows.slice(offset, offset + wanted), totalRows: rows.length }));
		const host = new MemoryHost({ fields, page });
		const write = host.write.bind(host);
		host.write = (order) => {
			workAhead(host.sync);
			return write(order);
		};
		const sync = configuration({}, { sync: { initialBatchSize: 1_100 } }).table('t', { node: 'n', index: 0 });
		const ended = host.run(sync);
		await host.idle;
		sync.stop();
		await ended;
		let before = 0;
		for (const { rows: count, checkpoints } of host.orders) {
			const [checkpoint] = checkpoints;
			before += count;
			// The progress is that of the batch, however much has been decoded behind it.
			assert.equal(checkpoint.recordsIngested, before);
			assert.equal(checkpoint.window?.offset ?? rows.length, before);
		}
		return host.orders.flatMap((order) => assembleRecords(host.layout, order, 'now'));
	};
	const plain = await recordsWith(() => {});
	const ahead = await recordsWith((sync) => sync.prepare());
	assert.equal(plain.length, rows.length);
	assert.ok(isDeepStrictEqual(ahead, plain));
});
