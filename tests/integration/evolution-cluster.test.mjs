/** Columns that change on a cluster: right rows on all nodes, indexes on all nodes, one node that looks. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { selfApplication, startCluster, until } from '../support/index.mjs';
import { COMPONENT, PATIENCE_MS, problemsIn } from './support/component.mjs';
import { DATASET, startSource } from './support/source.mjs';
import { INSPECT, indexedRows, untilIndexed } from './support/targets.mjs';

/** @typedef {import('../support/index.mjs').HarperNode} HarperNode */

const CALLS = [
	{ name: 'timestamp', type: 'TIMESTAMP' },
	{ name: 'ship', type: 'STRING' },
	{ name: 'draught', type: 'FLOAT' },
	{ name: 'doomed', type: 'STRING' },
];

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('../support/index.mjs').Cluster} */
let cluster;
/** @type {import('../support/index.mjs').Application} */
let application;
let next_ms = Date.now() - 200_000;

const name = `\`${DATASET}.calls\``;
/** @param {string} sql */
const alter = (sql) => source.bigquery.query(sql);

/** @param {number} count @param {Record<string, any>} row */
function calls(count, row) {
	return Array.from({ length: count }, (_, number) => {
		next_ms += 100;
		return { timestamp: new Date(next_ms).toISOString(), ship: `s${number}`, ...row };
	});
}

/** @param {HarperNode} harper @param {string} table @returns {Promise<any[]>} */
async function recordsOf(harper, table) {
	const search = { search_attribute: 'id', search_value: '*', get_attributes: ['*'] };
	return harper.operation({ operation: 'search_by_value', database: 'data', table, ...search });
}

/**
 * Waits until each node has as many records as the source has rows, which meet a condition, and no more.
 * @param {(records: any[]) => boolean} condition
 * @param {string} what
 */
async function untilAllHave(condition, what) {
	const [{ expected }] = await alter(`SELECT COUNT(*) AS expected FROM ${name}`);
	for (const harper of cluster.nodes.filter((node) => node.isAlive())) {
		/** @type {any[]} */
		let records = [];
		const fulfilled = async () => {
			records = await recordsOf(harper, 'Calls');
			return records.length >= expected && condition(records);
		};
		await until(fulfilled, { deadlineMs: PATIENCE_MS, what: `${what} on ${harper.name}` }).catch((error) => {
			throw new Error(`${error.message}: ${records.length} of ${expected}\n${problemsIn(harper)}`, { cause: error });
		});
		assert.equal(records.length, expected, harper.name);
	}
}

before(async () => {
	source = await startSource();
	await source.fill('calls', CALLS, calls(300, { draught: 7.5, doomed: 'old' }));
	const bigquery = { ...source.connection(), table: 'calls', timestampColumn: 'timestamp', targetTable: 'Calls' };
	// All rows are read again and again.
	const sync = { pollInterval: 1_000, lateness: 86_400 };
	const config = { bigquery, sync, schema: { pollMin: 1, pollMax: 5 }, ...INSPECT.section };
	application = selfApplication({ component: COMPONENT, config, files: INSPECT.files });
	cluster = await startCluster({ nodes: 3, application: application.path });
	await untilAllHave(() => true, 'the first rows');
});

after(async () => {
	await cluster?.remove();
	application?.remove();
	await source?.stop();
});

describe('three nodes', () => {
	test('get_a_new_column_with_its_index', async () => {
		await alter(`ALTER TABLE ${name} ADD COLUMN berth_id STRING`);
		await source.bigquery.loadRows(DATASET, 'calls', calls(100, { draught: 8.5, doomed: 'old', berth_id: 'B7' }));
		const isNew = (/** @type {any[]} */ records) => records.filter(({ berth_id }) => berth_id === 'B7').length === 100;
		await untilAllHave(isNew, 'the new column');
		for (const harper of cluster.nodes) {
			const isBuilt = async () => (await indexedRows(harper, 'Calls,berth_id,B7')) === 100;
			await until(isBuilt, { deadlineMs: PATIENCE_MS, what: `the index on ${harper.name}` });
			await untilIndexed(harper, 'calls');
			const found = await harper.request('/Calls/?berth_id=B7');
			assert.equal((await found.json()).length, 100, harper.name);
		}
	});

	test('get_values_of_another_type_in_another_attribute', async () => {
		await alter(
			`CREATE OR REPLACE TABLE ${name} AS SELECT * REPLACE (CAST(draught AS STRING) AS draught) FROM ${name}`
		);
		await source.bigquery.loadRows(DATASET, 'calls', calls(100, { draught: 'deep', doomed: 'old' }));
		const isNew = (/** @type {any[]} */ records) =>
			records.filter(({ draught_v2 }) => draught_v2 === 'deep').length === 100 &&
			records.filter(({ draught }) => draught === 7.5).length === 300;
		await untilAllHave(isNew, 'the new attribute');
		for (const harper of cluster.nodes) {
			const isTyped = async () => {
				const { attributes } = await harper.operation({
					operation: 'describe_table',
					database: 'data',
					table: 'Calls',
				});
				const types = Object.fromEntries(attributes.map((/** @type {any} */ one) => [one.attribute, one.type]));
				return types.draught === 'Float' && types.draught_v2 === 'String';
			};
			await until(isTyped, { deadlineMs: PATIENCE_MS, what: `the types on ${harper.name}` });
		}
	});

	test('keep_the_values_of_a_column_that_is_gone', async () => {
		await alter(`ALTER TABLE ${name} DROP COLUMN doomed`);
		await source.bigquery.loadRows(DATASET, 'calls', calls(100, { draught: 'deeper' }));
		const isKept = (/** @type {any[]} */ records) => records.filter(({ doomed }) => doomed === 'old').length === 500;
		await untilAllHave(isKept, 'the old values');
	});

	test('have_one_that_looks_and_another_one_after_its_end', async () => {
		const [{ owner }] = await recordsOf(cluster.nodes[0], 'SchemaLock');
		const holder = cluster.nodes.find((node) => node.name === owner);
		assert.ok(holder, owner);
		const others = cluster.nodes.filter((node) => node !== holder);
		for (const node of others) assert.equal((await recordsOf(node, 'SchemaLock'))[0].owner, owner);
		await holder.kill();
		const passedOn = async () => {
			const [one, other] = await Promise.all(others.map(async (node) => (await recordsOf(node, 'SchemaLock'))[0]));
			return one.owner !== owner && one.owner === other.owner && one.checkedAt > one.claimedAt;
		};
		await until(passedOn, { deadlineMs: PATIENCE_MS, what: 'another holder that looks' });
		await alter(`ALTER TABLE ${name} ADD COLUMN tide FLOAT64`);
		await source.bigquery.loadRows(DATASET, 'calls', calls(50, { tide: 1.5 }));
		const isNew = (/** @type {any[]} */ records) => records.filter(({ tide }) => tide === 1.5).length === 50;
		await untilAllHave(isNew, 'one more column');
	});
});
