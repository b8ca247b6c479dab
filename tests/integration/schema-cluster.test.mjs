/** Six workers of two nodes make the same tables at the same time, and each node has their types and indexes. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import {
	ALL_TYPES_SCHEMA,
	VESSEL_SCHEMA,
	allTypes,
	selfApplication,
	startCluster,
	until,
	vesselPositions,
} from '../support/index.mjs';
import { COMPONENT, PATIENCE_MS, postControl, readControl, untilEqual } from './support/component.mjs';
import { startSource } from './support/source.mjs';
import {
	INSPECT,
	OVERRIDES,
	POSITIONS,
	TYPES,
	attributesOf,
	indexedRows,
	untilIndexed,
	vesselCount,
} from './support/targets.mjs';

/** @typedef {import('../support/index.mjs').HarperNode} HarperNode */

/** @type {import('./support/source.mjs').Source} */
let source;

before(async () => {
	source = await startSource();
	const vessels = [...vesselPositions({ rows: 2_000, vessels: 50 })];
	await source.fill('types', ALL_TYPES_SCHEMA, allTypes({ rows: 200 }));
	await source.fill('positions', VESSEL_SCHEMA, vessels, { clustering: ['vessel_type'] });
});

after(() => source?.stop());

const MMSI = [...vesselPositions({ rows: 1, vessels: 50 })][0].mmsi;

describe('a cluster', () => {
	/** @type {import('../support/index.mjs').Cluster} */
	let cluster;
	/** @type {import('../support/index.mjs').Application} */
	let application;

	before(async () => {
		const tables = [
			{ table: 'types', timestampColumn: 'ts', schemaOverrides: OVERRIDES },
			{ table: 'positions', partitionBy: 'timestamp', schemaOverrides: { mmsi: { indexed: true } } },
		];
		const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
		application = selfApplication({
			component: COMPONENT,
			config: { bigquery, sync: { pollInterval: 5_000, autoStart: false }, ...INSPECT.section },
			files: INSPECT.files,
		});
		cluster = await startCluster({ nodes: 2, application: application.path, threads: [3, 3] });
	});
	after(async () => {
		await cluster?.remove();
		application?.remove();
	});

	/** The rows of the vessel that a node holds, found without any index. @param {HarperNode} harper */
	async function scannedRows(harper) {
		const search = { search_attribute: 'id', search_value: '*', get_attributes: ['mmsi'] };
		const query = { operation: 'search_by_value', database: 'data', table: 'Positions', ...search };
		return (await harper.operation(query)).filter((/** @type {any} */ { mmsi }) => mmsi === MMSI).length;
	}

	/** Each index leads to all rows that its node holds. */
	async function allAreComplete() {
		for (const id of ['types', 'positions']) await untilIndexed(cluster.nodes[1], id);
		for (const harper of cluster.nodes) {
			assert.deepEqual(await attributesOf(harper, 'Positions'), POSITIONS, harper.name);
			assert.deepEqual(await attributesOf(harper, 'Types'), TYPES, harper.name);
			const agree = async () => {
				const rows = await scannedRows(harper);
				return rows > 0 && rows === (await indexedRows(harper, `Positions,mmsi,${MMSI}`));
			};
			await until(agree, { deadlineMs: PATIENCE_MS, what: `the index on ${harper.name}` });
			assert.equal(await vesselCount(harper, MMSI), await scannedRows(harper), harper.name);
		}
	}

	const allAreIdle = async () => {
		const { tables } = await readControl(cluster.nodes[1]);
		const workers = tables.find((/** @type {any} */ { id }) => id === 'positions').workers;
		return workers.length === 6 && workers.every((/** @type {any} */ { state }) => state === 'idle');
	};

	test('has_one_table_of_six_workers_that_make_it_at_the_same_time_with_indexes_on_each_node', async () => {
		await postControl(cluster.nodes[0], { action: 'start' });
		await until(allAreIdle, { deadlineMs: PATIENCE_MS, what: 'six workers to rest' });
		for (const harper of cluster.nodes) {
			await untilEqual({ source, harper }, { table: 'types', target: 'Types', cursor: 'ts' });
		}
		await allAreComplete();
	});

	test('keeps_them_over_restarts', async () => {
		for (const harper of cluster.nodes) await harper.stop();
		for (const harper of cluster.nodes) await harper.start();
		await cluster.settled();
		await until(allAreIdle, { deadlineMs: PATIENCE_MS, what: 'six workers to rest' });
		await allAreComplete();
	});
});
