/** Real nodes of which some do not run what they should, or hear each other in one way only: every row is read. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { VESSEL_SCHEMA, pluginApplication, startCluster, until, vesselPositions } from '../support/index.mjs';
import { IN_HASTE, holdings, untilDivided } from './support/cluster.mjs';
import { COMPONENT, PATIENCE_MS, postControl, readControl, untilEqual } from './support/component.mjs';
import { DATASET, recent, startSource } from './support/source.mjs';

const THREADS = [2, 1, 1];
const PARTITIONS = 64;
const ROWS = 2_000;
const WHOLE = ['ports', 'harbours', 'quays'];

/** @typedef {import('../support/harper.mjs').HarperNode} HarperNode */

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {ReturnType<typeof pluginApplication>[]} */
let applications = [];
/** @type {import('../support/harper.mjs').Cluster} */
let cluster;
/** @type {HarperNode[]} */
let nodes;
/** @type {Record<string, any>} */
let config;

const positions = { id: 'positions', partitions: PARTITIONS };

before(async () => {
	source = await startSource();
	for (const table of ['positions', ...WHOLE]) {
		await source.fill(table, VESSEL_SCHEMA, vesselPositions({ rows: ROWS }));
	}
	const tables = [
		{ id: 'positions', table: 'positions', targetTable: 'Positions', partitionBy: 'timestamp' },
		...WHOLE.map((table) => ({ id: table, table })),
		{ id: 'absent', table: 'absent' },
	];
	const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
	config = { bigquery, sync: { pollInterval: 2_000, autoStart: false } };
	applications = THREADS.map(() => pluginApplication({ component: COMPONENT, config }));
	const application = (/** @type {number} */ index) => applications[index].path;
	const options = { threads: THREADS, application, severable: true, env: IN_HASTE };
	cluster = await startCluster({ nodes: THREADS.length, ...options });
	({ nodes } = cluster);
	for (const table of ['positions', ...WHOLE]) await postControl(nodes[0], { action: 'start', table });
});

after(async () => {
	await cluster?.remove();
	for (const application of applications) application.remove();
	await source?.stop();
});

/** @param {HarperNode[]} of */
function workersOf(of) {
	return nodes.flatMap((node, n) =>
		of.includes(node) ? Array.from({ length: THREADS[n] }, (_, index) => `${node.name}-${index}`) : []
	);
}

/** @param {HarperNode} node @param {string} id */
async function tableOn(node, id) {
	return (await readControl(node)).tables.find((/** @type {any} */ one) => one.id === id);
}

let batches = 0;

/** Adds rows, which must come to all nodes. */
async function assertEverythingIsRead() {
	batches += 1;
	const added = recent(vesselPositions({ rows: 200, seed: 100 + batches }), { agoMs: 60_000 });
	await source.bigquery.loadRows(DATASET, 'positions', added);
	for (const harper of nodes) await untilEqual({ source, harper }, { table: 'positions', target: 'Positions' });
}

test('a_node_whose_configuration_is_refused_owns_nothing_and_all_others_say_so', async () => {
	await untilDivided(nodes, { ...positions, workers: workersOf(nodes) });
	applications[1].configure({ ...config, sync: { ...config.sync, pollIntervall: 5 } });
	const others = [nodes[0], nodes[2]];
	await untilDivided(others, { ...positions, workers: workersOf(others) });
	await assertEverythingIsRead();
	for (const node of others) {
		const { workers } = await readControl(node);
		const refusing = workers.find((/** @type {any} */ one) => one.node === nodes[1].name);
		assert.equal(refusing.problems[0]?.key, 'sync.pollIntervall');
		assert.equal((await tableOn(node, 'positions')).unread, null);
	}
	applications[1].configure(config);
	await untilDivided(nodes, { ...positions, workers: workersOf(nodes) });
});

test('another_order_of_the_tables_on_one_node_leaves_each_table_its_one_reader', async () => {
	const owners = async (/** @type {HarperNode} */ node, /** @type {string} */ id) => {
		const owning = (await holdings(node, id)).filter(({ partitions }) => partitions.length > 0);
		return owning.map(({ worker }) => worker);
	};
	const isOwned = async (/** @type {string} */ id) => (await owners(nodes[0], id)).length === 1;
	for (const id of WHOLE) {
		await until(() => isOwned(id), { deadlineMs: PATIENCE_MS, everyMs: 200, what: `${id} to be read by one worker` });
	}
	const before = await Promise.all(WHOLE.map((id) => owners(nodes[0], id)));
	const tables = [...config.bigquery.tables].reverse();
	applications[2].configure({ ...config, bigquery: { ...config.bigquery, tables } });
	const isReversed = async () => (await readControl(nodes[2])).tables[0].id === 'absent';
	await until(isReversed, { deadlineMs: PATIENCE_MS, everyMs: 100, what: 'the other order to be taken' });
	await untilDivided(nodes, { ...positions, workers: workersOf(nodes) });
	for (const node of nodes) {
		assert.deepEqual(await Promise.all(WHOLE.map((id) => owners(node, id))), before, node.name);
	}
});

test('a_table_that_nobody_reads_is_told_on_every_node_and_logged_once', async () => {
	assert.equal((await tableOn(nodes[0], 'absent')).unread, null, 'a table that is stopped is missed by nobody');
	await postControl(nodes[0], { action: 'start', table: 'absent' });
	for (const node of nodes) {
		const isTold = async () => {
			const { unread } = await tableOn(node, 'absent');
			const { alarms } = await readControl(node);
			const alarm = alarms.find((/** @type {any} */ { message }) => message.startsWith('absent: no worker reads'));
			return unread?.partitions.length === 1 && alarm !== undefined;
		};
		await until(isTold, { deadlineMs: PATIENCE_MS, everyMs: 500, what: `${node.name} to tell of it` });
	}
	for (const node of nodes) {
		const lines = node.log().split('\n');
		const told = lines.filter((line) => /\[error\].*absent: no worker reads the table/.test(line));
		assert.equal(told.length, 1, told.join('\n'));
	}
	await postControl(nodes[0], { action: 'stop', table: 'absent' });
});

test('a_node_that_hears_others_which_do_not_hear_it_is_told_and_every_row_is_read', async () => {
	const [one, , unheard] = nodes;
	unheard.sever();
	const isTold = async () => {
		const { alarms, nodes: found } = await readControl(unheard);
		const { unheardBy } = found.find((/** @type {any} */ { node }) => node === unheard.name);
		return unheardBy.includes(one.name) && alarms.some((/** @type {any} */ { message }) => message.includes(one.name));
	};
	await until(isTold, { deadlineMs: PATIENCE_MS, everyMs: 500, what: 'the one-way connection to be told' });
	const isSilent = async () => {
		const found = (await readControl(one)).nodes.find((/** @type {any} */ { node }) => node === unheard.name);
		return !found.alive;
	};
	await until(isSilent, { deadlineMs: PATIENCE_MS, everyMs: 500, what: 'the node to be missed' });
	await assertEverythingIsRead();
	unheard.heal();
	await untilDivided(nodes, { ...positions, workers: workersOf(nodes) });
	await assertEverythingIsRead();
});
