/** Indexes that are built over rows, after the backfill or later, lead to all rows whatever happens meanwhile. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { FAULT, VESSEL_SCHEMA, until, vesselPositions } from '../support/index.mjs';
import { startComponents } from './support/cluster.mjs';
import { PATIENCE_MS, startComponent, tableStatus, untilAllRest, untilRows } from './support/component.mjs';
import { startSource } from './support/source.mjs';
import { attributesOf, indexesOf, read, untilIndexed } from './support/targets.mjs';

/** @typedef {import('../support/index.mjs').HarperNode} HarperNode */

/** So many that an index over them is not built in an instant. */
const ROWS = 20_000;
const PAGE_ROWS = 2_500;
const AFTER = { schema: { indexes: 'afterBackfill' } };
const THREE = { mmsi: { indexed: true }, vessel_type: { indexed: true } };

/** What the application tells of the indexes of a target on the thread that answers, and how it overwrites rows. */
const INSPECT = {
	section: { jsResource: { files: 'inspect.js' } },
	files: {
		'inspect.js': `
			const overwriting = { on: false };
			function look(name) {
				const table = databases.data[name];
				const stored = table.primaryStore.rootStore.dbisDb.getRange({ start: name + '/', end: name + '0' });
				const isBuilding = [...stored].some(({ value }) => value.indexingPID !== undefined);
				const records = [...table.primaryStore.getRange({})].filter(({ value }) => value);
				const missing = {};
				for (const [attribute, index] of Object.entries(table.indices)) {
					const entries = new Set();
					for (const { key, value } of index.getRange({})) entries.add(key + '|' + value);
					missing[attribute] = records.filter(({ key, value }) => !entries.has(value[attribute] + '|' + key)).length;
				}
				return { isBuilding, rows: records.length, missing };
			}
			async function overwrite(name) {
				const table = databases.data[name];
				for (let number = 1; overwriting.on; number++) {
					const context = {};
					const records = [...table.primaryStore.getRange({})].filter(({ value }) => value);
					for (let from = 0; from < records.length && overwriting.on; from += 200) {
						await transaction(context, () => {
							for (const { value } of records.slice(from, from + 200)) table.put({ ...value, speed: number }, context);
						});
					}
				}
			}
			export class Inspect extends Resource {
				static loadAsInstance = false;
				get(target) { return look(String(target.id ?? target)); }
			}
			export class Building extends Resource {
				static loadAsInstance = false;
				get(target) {
					const name = String(target.id ?? target);
					const store = databases.data[name]?.primaryStore.rootStore.dbisDb;
					const stored = store?.getRange({ start: name + '/', end: name + '0' }) ?? [];
					return { isBuilding: [...stored].some(({ value }) => value.indexingPID !== undefined) };
				}
			}
			export class Overwrite extends Resource {
				static loadAsInstance = false;
				async post(target, data) {
					const { table } = await data;
					overwriting.on = table !== null;
					if (table !== null) overwrite(table);
					return {};
				}
			}`,
	},
};

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {string} */
let TYPE;
/** @type {number} */
let rowsOfType;
/** @type {number} */
let daysOfType;

before(async () => {
	source = await startSource();
	const rows = [...vesselPositions({ rows: ROWS })];
	TYPE = rows[0].vessel_type;
	rowsOfType = rows.filter(({ vessel_type }) => vessel_type === TYPE).length;
	await source.fill('positions', VESSEL_SCHEMA, rows);
	const days = [...vesselPositions({ rows: 6_000 })];
	daysOfType = days.filter(({ vessel_type }) => vessel_type === TYPE).length;
	await source.fill('days', VESSEL_SCHEMA, days, { timePartitioning: { type: 'DAY', field: 'timestamp' } });
});

after(() => source?.stop());

/** @param {any} [table] @param {any} [sections] */
function configuration(table = {}, sections = {}) {
	const common = { table: 'positions', targetTable: 'Positions', timestampColumn: 'timestamp' };
	const bigquery = { ...source.connection(), ...common, batchSize: PAGE_ROWS, ...table };
	return { bigquery, sync: { pollInterval: 1_000 }, ...sections };
}

/** @param {any} config @param {number} [threads] */
const start = (config, threads = 2) =>
	startComponent({ form: 'application', config: { ...config, ...INSPECT.section }, files: INSPECT.files, threads });

/** The indexed attributes as a node tells of them. @param {HarperNode} harper @param {string} table */
async function indexedOf(harper, table) {
	const attributes = Object.entries(await attributesOf(harper, table));
	return attributes.flatMap(([name, type]) => (type.endsWith('!') ? [name] : [])).sort();
}

/** @param {HarperNode} harper @param {string} target */
function untilBuilding(harper, target) {
	const isBuilding = async () => (await read(harper, `/Building/${target}`)).isBuilding;
	return until(isBuilding, { deadlineMs: PATIENCE_MS, everyMs: 20, what: `${harper.name} to build an index` });
}

/**
 * Waits until the indexes of the vessels' positions are said to be ready. Until then, each search has either all rows or
 * none.
 * @param {HarperNode} harper
 * @param {string} [search]
 */
async function untilReady(harper, search) {
	const isReady = async () => {
		const isSaid = (await indexesOf(harper, 'positions')) === 'ready';
		if (search) {
			const response = await harper.request(search);
			const body = await response.json();
			if (response.status === 200) assert.equal(body.length, rowsOfType);
			else assert.equal(response.status, 503);
			if (response.status !== 200) return false;
		}
		return isSaid;
	};
	await until(isReady, { deadlineMs: PATIENCE_MS, everyMs: 20, what: `the indexes of ${harper.name} to be ready` });
}

/** @param {HarperNode} harper @param {string} target @param {string[]} indexed @param {number} rows */
async function assertComplete(harper, target, indexed, rows) {
	assert.deepEqual(await indexedOf(harper, target), indexed, harper.name);
	const found = await read(harper, `/Inspect/${target}`);
	const missing = Object.fromEntries(indexed.map((name) => [name, 0]));
	assert.deepEqual(found, { isBuilding: false, rows, missing }, harper.name);
}

/** Holds the result back behind a row, so that the backfill does not come to its end. @param {number} row */
function holdBackFrom(row) {
	const when = (/** @type {{url: string}} */ { url }) => Number(/startIndex=(\d+)/.exec(url)?.[1]) >= row;
	return source.proxy.faults.add({ route: 'getQueryResults', fault: FAULT.hang(), when });
}

describe('a node', () => {
	/** @type {import('./support/component.mjs').Running} */
	let running;
	const search = () => `/Positions/?vessel_type=${TYPE}&select(id)`;

	after(() => running?.remove());

	test('has_no_index_in_the_backfill_and_builds_one_when_it_is_done_over_a_kill', async () => {
		const barrier = holdBackFrom(ROWS / 2);
		running = await start(configuration({}, AFTER));
		const { harper } = running;
		const half = async () => ((await tableStatus(harper, 'positions'))?.rows ?? 0) >= ROWS / 4;
		await until(half, { deadlineMs: PATIENCE_MS, what: 'a part of the rows' });
		assert.equal(await indexesOf(harper, 'positions'), 'after_backfill');
		assert.deepEqual(await indexedOf(harper, 'Positions'), []);
		await harper.kill('SIGKILL');
		barrier.remove();
		await harper.start();
		await untilBuilding(harper, 'Positions');
		await untilReady(harper);
		await assertComplete(harper, 'Positions', ['timestamp'], ROWS);
	});

	test('finishes_indexes_that_it_is_killed_over_and_searches_never_lack_rows', async () => {
		running.application.configure({ ...configuration({ schemaOverrides: THREE }), ...INSPECT.section });
		const { harper } = running;
		await untilBuilding(harper, 'Positions');
		await harper.kill('SIGKILL');
		await harper.start();
		await untilReady(harper, search());
		await assertComplete(harper, 'Positions', ['mmsi', 'timestamp', 'vessel_type'], ROWS);
	});

	test('finishes_an_index_whose_thread_is_replaced', async () => {
		const overrides = { ...THREE, vessel_name: { indexed: true } };
		running.application.configure({ ...configuration({ schemaOverrides: overrides }), ...INSPECT.section });
		const { harper } = running;
		await untilBuilding(harper, 'Positions');
		await harper.operation({ operation: 'restart_service', service: 'http_workers' });
		await untilReady(harper);
		await assertComplete(harper, 'Positions', ['mmsi', 'timestamp', 'vessel_name', 'vessel_type'], ROWS);
	});

	test('has_all_rows_in_an_index_although_they_are_overwritten_while_it_is_built', async () => {
		const overrides = { ...THREE, vessel_name: { indexed: true }, status: { indexed: true } };
		const { harper } = running;
		await harper.request('/Overwrite', { method: 'POST', body: { table: 'Positions' } });
		running.application.configure({ ...configuration({ schemaOverrides: overrides }), ...INSPECT.section });
		await untilBuilding(harper, 'Positions');
		await untilReady(harper);
		const names = ['mmsi', 'status', 'timestamp', 'vessel_name', 'vessel_type'];
		await assertComplete(harper, 'Positions', names, ROWS);
	});
});

test('indexes_are_there_in_the_backfill_unless_they_are_wanted_later', async () => {
	const barrier = holdBackFrom(PAGE_ROWS);
	const running = await start(configuration({ schemaOverrides: THREE }), 1);
	try {
		const { harper } = running;
		const some = async () => ((await tableStatus(harper, 'positions'))?.rows ?? 0) > 0;
		await until(some, { deadlineMs: PATIENCE_MS, what: 'some rows' });
		assert.equal(await indexesOf(harper, 'positions'), 'ready');
		assert.deepEqual(await indexedOf(harper, 'Positions'), ['mmsi', 'timestamp', 'vessel_type']);
		await harper.kill('SIGKILL');
		barrier.remove();
		await harper.start();
		await untilRows(harper, 'positions', ROWS);
		await assertComplete(harper, 'Positions', ['mmsi', 'timestamp', 'vessel_type'], ROWS);
	} finally {
		barrier.remove();
		await running.remove();
	}
});

test('each_of_three_nodes_builds_its_own_when_all_of_the_table_was_read', async () => {
	const table = { id: 'days', table: 'days', targetTable: 'Days', schemaOverrides: THREE };
	const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables: [table] };
	const config = { bigquery, sync: { pollInterval: 1_000 }, ...AFTER };
	const cluster = await startComponents({ config, threads: [1, 1, 1] });
	try {
		await untilAllRest(cluster.nodes[0], 'days');
		for (const harper of cluster.nodes) {
			await untilIndexed(harper, 'days');
			assert.deepEqual(await indexedOf(harper, 'Days'), ['mmsi', 'timestamp', 'vessel_type'], harper.name);
			const isWhole = async () => (await read(harper, `/Days/?vessel_type=${TYPE}&select(id)`)).length === daysOfType;
			await until(isWhole, { deadlineMs: PATIENCE_MS, what: `${harper.name} to find all rows` });
		}
	} finally {
		await cluster.remove();
	}
});
