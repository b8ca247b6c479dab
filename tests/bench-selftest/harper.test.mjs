import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, test } from 'node:test';

import { missingConnections, plainApplication, startCluster, startHarper, until } from '../support/index.mjs';

const application = plainApplication({
	schema: 'type Widget @table @export { id: ID @primaryKey, big: BigInt }',
});

after(() => application.remove());

test('rows_survive_kill_9_and_a_crash_after_which_harper_starts_again', async () => {
	const harper = await startHarper({ application: application.path });
	try {
		const records = Array.from({ length: 100 }, (_, i) => ({ id: `w${i}`, big: '9007199254740993' }));
		await harper.operation({ operation: 'upsert', table: 'Widget', records });
		const before = harper.pid;
		await harper.kill('SIGKILL');
		assert.equal(harper.isAlive(), false);
		await harper.start();
		assert.notEqual(harper.pid, before);
		const found = await harper.operation({
			operation: 'search_by_value',
			table: 'Widget',
			search_attribute: 'id',
			search_value: 'w*',
			get_attributes: ['*'],
		});
		assert.equal(found.length, 100);
		assert.equal(found[0].big, 9007199254740993n);
		assert.match(harper.log(), /successfully started/i);
		const crashed = harper.pid;
		process.kill(crashed, 'SIGABRT');
		await until(() => harper.pid !== crashed, { deadlineMs: 120_000, what: 'another process' });
		assert.equal((await harper.request('/Widget/w7')).status, 200);
	} finally {
		await harper.remove();
	}
	assert.equal(existsSync(harper.root), false);
});

test('threads_and_authentication_are_as_asked_from_the_first_start', async () => {
	const harper = await startHarper({ application: application.path, threads: 2, authorizeLocal: false });
	try {
		assert.equal((await harper.request('/Widget/', { auth: false })).status, 401);
		const wrong = { username: 'admin', password: 'wrong' };
		assert.equal((await harper.request('/Widget/', { auth: wrong })).status, 401);
		assert.deepEqual(await (await harper.request('/Widget/')).json(), []);
		const { threads } = await harper.operation({ operation: 'system_information', attributes: ['threads'] });
		assert.equal(threads.filter((/** @type {{name: string}} */ thread) => thread.name === 'http').length, 2);
		const usage = harper.usage();
		assert.ok(usage.rssBytes > 50e6 && usage.peakRssBytes >= usage.rssBytes && usage.cpuMs > 100);
		await assert.rejects(harper.operation({ operation: 'describe_table', table: 'Absent' }), { name: 'HarperError' });
	} finally {
		await harper.remove();
	}
});

test('a_row_reaches_all_nodes', async () => {
	const cluster = await startCluster({ nodes: 2, application: application.path, threads: [1, 2], severable: true });
	try {
		assert.deepEqual(await missingConnections(cluster.nodes), []);
		assert.equal(new Set(cluster.nodes.map((node) => node.name)).size, 2);
		await cluster.nodes[1].operation({ operation: 'upsert', table: 'Widget', records: [{ id: 'travels' }] });
		await cluster.settled();
		for (const node of cluster.nodes) {
			assert.equal((await node.request('/Widget/travels')).status, 200, node.name);
		}
		await cluster.nodes[1].kill('SIGKILL');
		await cluster.nodes[0].operation({ operation: 'upsert', table: 'Widget', records: [{ id: 'missed' }] });
		await cluster.nodes[1].start();
		await cluster.settled();
		assert.equal((await cluster.nodes[1].request('/Widget/missed')).status, 200);
		const [{ name }, ...others] = cluster.nodes;
		cluster.nodes[0].sever();
		const cut = others.map((node) => `${name} -> ${node.name}: data`);
		const isTold = async () => {
			const missing = await missingConnections(cluster.nodes);
			return cut.every((one) => missing.includes(one));
		};
		await until(isTold, { deadlineMs: 120_000, what: cut.join(', ') });
		cluster.nodes[0].heal();
		await cluster.settled();
	} finally {
		await cluster.remove();
	}
});
