/** Validation in a cluster: each node compares its own copy with what one worker had BigQuery count, and mends it. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { VESSEL_SCHEMA, selfApplication, startCluster, vesselPositions } from '../support/index.mjs';
import { COMPONENT, assertEqual, postControl, untilAllRest, untilEqual } from './support/component.mjs';
import { startSource } from './support/source.mjs';
import { IN_HASTE, auditOf, idsOf, isEqual, targetOf, validate } from './support/validation.mjs';

const ROWS = 6_000;
const KEY = ['mmsi', 'timestamp'];
/** Removes records from one node as if they had got lost: without an entry in Harper's log, so nobody hears of it. */
const LOSE = {
	section: { jsResource: { files: 'lose.js' } },
	files: {
		'lose.js': `
			export class Lose extends Resource {
				static loadAsInstance = false;
				async post(target, data) {
					const { table, ids } = await data;
					const { primaryStore } = databases.data[table];
					for (const id of ids) await primaryStore.remove(id);
					return { lost: ids.length };
				}
			}`,
	},
};
const TABLES = [
	{ table: 'whole', deletes: 'mirror' },
	{ table: 'divided', partitionBy: 'timestamp', sync: { partitions: 5 } },
	{ table: 'keyed', key: KEY, deletes: 'mirror' },
];

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('../support/index.mjs').Cluster} */
let cluster;
/** @type {import('../support/index.mjs').Application} */
let application;

before(async () => {
	source = await startSource();
	source.proxy.maintainsModification = true;
	for (const [seed, { table }] of TABLES.entries()) {
		await source.fill(table, VESSEL_SCHEMA, vesselPositions({ rows: ROWS, days: 6, seed }));
	}
	const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables: TABLES };
	const sync = { pollInterval: 500, lateness: 60, autoStart: false };
	const config = { bigquery, sync, ...LOSE.section };
	application = selfApplication({ component: COMPONENT, config, files: LOSE.files });
	cluster = await startCluster({ nodes: 3, application: application.path, threads: [2, 1, 1], env: IN_HASTE });
	await postControl(cluster.nodes[0], { action: 'start' });
	for (const { table } of TABLES) {
		for (const harper of cluster.nodes) await untilEqual({ source, harper }, sidesOf(table));
		await untilAllRest(cluster.nodes[0], table);
	}
});

after(async () => {
	await cluster?.remove();
	application?.remove();
	await source?.stop();
});

/** @param {string} table */
const sidesOf = (table) => ({ table, target: targetOf(table), ...(table === 'keyed' && { key: KEY }) });

/** @param {any} validation */
const isEqualOnAll = (validation) => isEqual(validation) && validation.nodes.length === cluster.nodes.length;

/** @param {import('../support/index.mjs').HarperNode} harper @param {string} table @param {any[]} ids */
async function lose(harper, table, ids) {
	const response = await harper.request('/Lose/', { method: 'POST', body: { table: targetOf(table), ids } });
	assert.equal(response.status, 200, await response.text());
	const left = await idsOf(harper, table);
	assert.equal(left.length, ROWS - ids.length);
}

for (const { table } of TABLES) {
	test(`all_nodes_find_their_copies_equal_${table}`, async () => {
		const { nodes, text } = await validate(cluster.nodes[2], table, isEqualOnAll);
		assert.deepEqual(
			nodes.map((/** @type {any} */ one) => [one.rowsInBigQuery, one.rowsHere]),
			cluster.nodes.map(() => [ROWS, ROWS])
		);
		assert.match(text, /^equal up to \S+ on 3 nodes, 6,000 rows, 0 differences/);
	});

	test(`rows_that_got_lost_on_one_node_come_back_${table}`, async () => {
		const [, , harper] = cluster.nodes;
		const ids = await idsOf(harper, table);
		await lose(harper, table, [...ids.slice(0, 3), ...ids.slice(3_000, 3_200)]);
		await validate(cluster.nodes[0], table, isEqualOnAll);
		for (const node of cluster.nodes) await assertEqual({ source, harper: node }, sidesOf(table));
		// The other nodes may be faster than BigQuery.
		const kinds = ['validation_repaired', 'copies_mended'];
		const told = await Promise.all(kinds.map((kind) => auditOf(harper, table, kind)));
		assert.ok(told.flat().length > 0);
	});
}
