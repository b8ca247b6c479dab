/** Tables of a cluster that are read again: each node's copy is equal afterwards, also that of a node that ended meanwhile. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { VESSEL_SCHEMA, until, vesselPositions } from '../support/index.mjs';
import { startComponents } from './support/cluster.mjs';
import { PATIENCE_MS, postControl, untilAllRest, untilEqual } from './support/component.mjs';
import { rationPages } from './support/endings.mjs';
import { resyncOf, untilResynced } from './support/resync.mjs';
import { DATASET, startSource } from './support/source.mjs';
import { auditOf, idsOf, targetOf, upsert } from './support/validation.mjs';

const ROWS = 6_000;
const BY_DAY = { timePartitioning: { type: 'DAY', field: 'timestamp' } };
/** @type {[string, string[] | undefined][]} */
const TABLES = [
	['positions', undefined],
	['vessels', ['mmsi']],
];

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/cluster.mjs').RunningCluster} */
let running;

before(async () => {
	source = await startSource();
	for (const [table] of TABLES) {
		await source.fill(table, VESSEL_SCHEMA, vesselPositions({ rows: ROWS, days: 12 }), BY_DAY);
	}
	const tables = TABLES.map(([table, key]) => ({ table, key: key ?? [], batchSize: 250 }));
	const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
	running = await startComponents({
		config: { bigquery, sync: { pollInterval: 1_000, lateness: 60 } },
		threads: [2, 1],
	});
	for (const harper of running.nodes) for (const [table] of TABLES) await untilAllRest(harper, table);
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

/** @param {string} table @param {string[] | undefined} key */
async function untilAllEqual(table, key) {
	await running.cluster.settled();
	for (const harper of running.nodes) await untilEqual({ source, harper }, { table, target: targetOf(table), key });
}

for (const [table, key] of TABLES) {
	test(`what_is_gone_goes_on_all_nodes_and_nothing_else_${table}`, async () => {
		const [first, second] = running.nodes;
		await untilAllEqual(table, key);
		await source.bigquery.query(`DELETE FROM ${DATASET}.${table} WHERE CAST(mmsi AS INT64) < 200000050`);
		await upsert(second, table, [{ id: 'mine', mmsi: 'mine' }]);
		await postControl(second, { action: 'resync', table });
		for (const harper of running.nodes) await untilResynced(harper, table);
		await untilAllEqual(table, key);
		const ended = await auditOf(first, table, 'resync_ended');
		assert.equal(new Set(ended.map(({ nodeId }) => nodeId)).size, 2, JSON.stringify(ended));
	});
}

for (const [number, ending] of /** @type {['SIGKILL', 'SIGTERM']} */ (['SIGKILL', 'SIGTERM']).entries()) {
	test(`a_node_that_ends_in_the_middle_has_an_equal_copy_when_it_is_back_${ending}`, async () => {
		const [first, second] = running.nodes;
		const least = 200_000_100 + 50 * number;
		await source.bigquery.query(`DELETE FROM ${DATASET}.positions WHERE CAST(mmsi AS INT64) < ${least}`);
		const before = (await idsOf(first, 'positions')).length;
		const ration = rationPages(source, { pages: 4 });
		await postControl(first, { action: 'resync', table: 'positions' });
		const isUnderWay = async () => {
			const { state, rowsRead } = (await resyncOf(first, 'positions')) ?? {};
			return state === 'reading' && rowsRead > 0;
		};
		await until(isUnderWay, { deadlineMs: PATIENCE_MS, everyMs: 50, what: 'some rows to be read again' });
		await second.kill(ending);
		assert.equal((await idsOf(first, 'positions')).length, before, 'nothing is taken away meanwhile');
		ration.remove();
		await second.start();
		for (const harper of running.nodes) await untilResynced(harper, 'positions');
		await untilAllEqual('positions', undefined);
		assert.ok((await idsOf(second, 'positions')).length < before);
	});
}
