/** Nodes that compare their copies with each other when one of them has returned, and ask BigQuery nothing for it. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { VESSEL_SCHEMA, until, vesselPositions } from '../support/index.mjs';
import { startComponents } from './support/cluster.mjs';
import { PATIENCE_MS, readControl, untilAllRest, untilEqual } from './support/component.mjs';
import { startSource } from './support/source.mjs';
import { auditOf, idsOf, remove, targetOf } from './support/validation.mjs';

/** @typedef {import('../support/harper.mjs').HarperNode} HarperNode */

const ROWS = 4_000;
const LOST_ROWS = 230;
/** A node has what it lacked so long after it has started. */
const MENDED_WITHIN_MS = 120_000;
const VESSEL_KEY = ['mmsi'];
/** Changes the store behind Harper's back, as a loss on the way between nodes does. */
const RESOURCES = `
	const storeOf = (table) => databases.data[table].primaryStore;
	export class Lose extends Resource {
		static loadAsInstance = false;
		async post(target, data) {
			const { table, ids } = await data;
			for (const id of ids) await storeOf(table).remove(id);
			return { lost: ids.length };
		}
	}
	export class Restore extends Resource {
		static loadAsInstance = false;
		async post(target, data) {
			const { table, record, version } = await data;
			await storeOf(table).remove(record.id);
			const context = { timestamp: version };
			await transaction(context, () => databases.data[table].put(record, context));
			return { version: storeOf(table).getEntry(record.id).version };
		}
	}
	export class Entries extends Resource {
		static loadAsInstance = false;
		async post(target, data) {
			const { table } = await data;
			const range = storeOf(table).getRange({ versions: true, snapshot: false });
			return [...range].flatMap(({ key, version, value }) =>
				typeof key === 'symbol' ? [] : [{ id: key, version, record: value && { ...value } }]
			);
		}
	}`;

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/cluster.mjs').RunningCluster} */
let running;

before(async () => {
	source = await startSource();
	// An unchanged table costs no query then.
	source.proxy.maintainsModification = true;
	await source.fill('positions', VESSEL_SCHEMA, vesselPositions({ rows: ROWS, days: 20 }));
	await source.fill('vessels', VESSEL_SCHEMA, vesselPositions({ rows: ROWS, vessels: 1_000, seed: 2 }));
	const tables = [{ table: 'positions' }, { table: 'vessels', key: VESSEL_KEY }];
	const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
	const sync = { pollInterval: 1_000 };
	running = await startComponents({
		config: { bigquery, sync },
		threads: [1, 1],
		files: { 'resources.js': RESOURCES },
	});
	for (const node of running.nodes) for (const { table } of tables) await untilAllRest(node, table);
	await untilSame('positions');
	await untilSame('vessels');
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

/** @param {HarperNode} node @param {string} resource @param {object} body @returns {Promise<any>} */
async function post(node, resource, body) {
	const response = await node.request(`/${resource}/`, { method: 'POST', body });
	assert.equal(response.status, 200, await response.clone().text());
	return response.json();
}

/**
 * When each record of a table was written, and its values; null if it was deleted.
 * @param {HarperNode} node
 * @param {string} table
 * @returns {Promise<Map<string, {version: number, record: any}>>}
 */
async function entriesOf(node, table) {
	const entries = await post(node, 'Entries', { table: targetOf(table) });
	return new Map(entries.map(({ id, ...entry }) => [id, entry]));
}

/** @param {string} table */
async function areSame(table) {
	const [one, other] = await Promise.all(running.nodes.map((node) => entriesOf(node, table)));
	const isSame = ([id, entry]) => other.get(id)?.version === entry.version;
	return one.size === other.size && [...one].every(isSame);
}

/** @param {string} table */
async function untilSame(table) {
	await until(() => areSame(table), { deadlineMs: PATIENCE_MS, what: `both nodes to have the same of ${table}` });
}

/** @param {string} table */
async function copies(table) {
	const { tables } = await readControl(running.nodes[0]);
	return tables.find((/** @type {any} */ { id }) => id === table).copies;
}

/**
 * Waits until both nodes have compared what was written up to a time.
 * @param {string} table
 * @param {string} from
 */
async function untilCompared(table, from) {
	/** @type {any} */
	let last;
	const isCompared = async () => {
		last = await copies(table);
		return last?.nodes.length === 2 && last.state === 'compared' && last.upTo > from;
	};
	await until(isCompared, { deadlineMs: PATIENCE_MS, what: `${table} to be compared` }).catch((error) => {
		throw new Error(`${error.message}\nLast: ${JSON.stringify(last)}`, { cause: error });
	});
}

/** @param {HarperNode} node */
async function restart(node) {
	await node.stop();
	await node.start();
}

/** What the audit tells of comparisons, the latest first. @param {string} table @returns {Promise<string[]>} */
async function told(table) {
	const entries = await auditOf(running.nodes[0], table, 'copies_mended');
	assert.deepEqual(await auditOf(running.nodes[0], table, 'copies_differ'), []);
	return entries.toSorted((one, other) => (one.at < other.at ? 1 : -1)).map(({ reason }) => reason);
}

/** The queries for rows that BigQuery has got. */
const queries = () => source.proxy.requests(['jobs.query', 'jobs.insert']).length;

/**
 * Restarts the second node, which lacks something, and waits until it has it again, and another comparison finds nothing
 * more.
 * @param {string} table
 * @returns {Promise<number>} How long it took until the node had it, in ms.
 */
async function mendByRestart(table) {
	assert.equal(await areSame(table), false);
	const before = queries();
	const from = new Date().toISOString();
	await restart(running.nodes[1]);
	const startedAt = performance.now();
	await untilSame(table);
	const took = performance.now() - startedAt;
	assert.ok(took < MENDED_WITHIN_MS, `it took ${took} ms`);
	await untilCompared(table, from);
	assert.equal(queries(), before);
	return took;
}

test('nodes_that_have_the_same_put_nothing_again', async () => {
	await restart(running.nodes[1]);
	const from = new Date().toISOString();
	for (const table of ['positions', 'vessels']) await untilCompared(table, from);
	assert.deepEqual([await told('positions'), await told('vessels')], [[], []]);
});

for (const [table, key] of [
	['positions', undefined],
	['vessels', VESSEL_KEY],
]) {
	test(`rows_that_a_node_lacks_come_back_when_it_has_restarted_${table}`, async (context) => {
		const ids = (await idsOf(running.nodes[0], table)).slice(300, 300 + LOST_ROWS);
		const before = await entriesOf(running.nodes[0], table);
		await post(running.nodes[1], 'Lose', { table: targetOf(table), ids });
		context.diagnostic(`mended in ${await mendByRestart(table)} ms`);
		const now = await entriesOf(running.nodes[0], table);
		assert.equal(now.size, before.size);
		let mended = 0;
		for (const [id, { version, record }] of before) {
			const { version: later, record: same } = now.get(id) ?? { version: 0, record: undefined };
			// What is late may have been written once more by the node that has started.
			if (later > version + 1) continue;
			assert.deepEqual([later > version, same], [ids.includes(id), record]);
			mended += later > version ? 1 : 0;
		}
		for (const harper of running.nodes) await untilEqual({ source, harper }, { table, target: targetOf(table), key });
		const reasons = await told(table);
		const rows = reasons.map((reason) => Number(/ lacked (\d+) rows /.exec(reason)?.[1]));
		const counted = rows.reduce((sum, count) => sum + count, 0);
		assert.ok(counted === mended && mended > 0.9 * LOST_ROWS, `${mended} rows: ${reasons.join('\n')}`);
		const [keeper, lacking] = running.nodes.map(({ name }) => name);
		assert.ok(reasons.every((reason) => reason.startsWith(lacking) && reason.includes(`${keeper} has put`)));
	});
}

test('an_older_version_is_replaced_when_the_node_has_restarted', async () => {
	const [kept, node] = running.nodes;
	const [[id, { version, record }]] = [...(await entriesOf(kept, 'vessels'))];
	const old = { ...record, vessel_name: 'old' };
	await post(node, 'Restore', { table: 'Vessels', record: old, version: version - 1 });
	await mendByRestart('vessels');
	for (const one of running.nodes) assert.deepEqual((await entriesOf(one, 'vessels')).get(id)?.record, record);
});

test('a_row_that_was_deleted_on_purpose_stays_deleted_everywhere', async () => {
	const [deleting, node] = running.nodes;
	const entries = [...(await entriesOf(node, 'positions'))].filter(([, { record }]) => record !== null);
	const [[id], [lost, { version, record }]] = entries.slice(10);
	await remove(deleting, 'positions', [id, lost]);
	await untilSame('positions');
	// As if the deletion had got lost on its way.
	await post(node, 'Restore', { table: 'Positions', record, version });
	assert.ok((await idsOf(node, 'positions')).includes(lost));
	await mendByRestart('positions');
	for (const one of running.nodes) {
		const ids = await idsOf(one, 'positions');
		assert.deepEqual([ids.includes(id), ids.includes(lost)], [false, false]);
	}
});
