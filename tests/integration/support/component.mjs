/** The component inside a real Harper, and what it tells of itself. */

import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';

import { compareTables, pluginApplication, selfApplication, startHarper, until } from '../../support/index.mjs';
import { DATASET } from './source.mjs';

export const COMPONENT = fileURLToPath(new URL('../../../', import.meta.url));

/** The machine may be shared; a wait that takes longer than this is a fault. */
export const PATIENCE_MS = 360_000;

/**
 * @typedef {import('../../support/harper.mjs').HarperNode} HarperNode
 * @typedef {import('./source.mjs').Source} Source
 *
 * @typedef {object} Running
 * @property {HarperNode} harper
 * @property {import('../../support/application.mjs').Application} application
 * @property {() => Promise<void>} remove
 */

/**
 * Starts a Harper with the component.
 *
 * @param {object} options
 * @param {Record<string, unknown>} options.config The sections of the component's configuration.
 * @param {'plugin' | 'application'} [options.form] Listed by an application, or the application itself.
 * @param {number} [options.threads]
 * @param {boolean} [options.authorizeLocal]
 * @param {string} [options.schema]
 * @param {Record<string, string>} [options.files] More files of the application.
 * @param {Record<string, string>} [options.env] Added to Harper's environment.
 * @returns {Promise<Running>}
 */
export async function startComponent({ config, form = 'plugin', threads = 1, authorizeLocal, schema, files, env }) {
	const make = form === 'plugin' ? pluginApplication : selfApplication;
	const application = make({ component: COMPONENT, config, schema, files });
	const harper = await startHarper({ application: application.path, threads, authorizeLocal, env });
	return {
		harper,
		application,
		async remove() {
			await harper.remove();
			application.remove();
		},
	};
}

/**
 * Reads GET /SyncControl.
 * @param {HarperNode} harper
 * @returns {Promise<any>}
 */
export async function readControl(harper) {
	const response = await harper.request('/SyncControl');
	assert.equal(response.status, 200);
	return response.json();
}

/**
 * Posts a command as the super user, which must be accepted.
 * @param {HarperNode} harper
 * @param {{action: string, table?: string}} command
 */
export async function postControl(harper, command) {
	const response = await harper.request('/SyncControl', { method: 'POST', body: command });
	const text = await response.text();
	assert.equal(response.status, 200, text);
	return JSON.parse(text);
}

/**
 * The status of one table, as the worker tells that runs it.
 * @param {HarperNode} harper
 * @param {string} id
 * @returns {Promise<any>} Undefined while no worker runs it.
 */
export async function tableStatus(harper, id) {
	const { tables } = await readControl(harper);
	const table = tables.find((/** @type {{id: string}} */ one) => one.id === id);
	return table?.workers[0];
}

/**
 * Waits until a table's status fulfils a condition.
 * @param {HarperNode} harper
 * @param {string} id
 * @param {(status: any) => boolean} condition
 * @param {string} what
 * @returns {Promise<any>} That status.
 */
export async function untilStatus(harper, id, condition, what) {
	/** @type {any} */
	let last;
	const fulfilled = async () => {
		last = await tableStatus(harper, id);
		return last !== undefined && condition(last) && last;
	};
	try {
		return await until(fulfilled, { deadlineMs: PATIENCE_MS, what: `${id} ${what}` });
	} catch (error) {
		throw new Error(`${error.message}\nLast status: ${JSON.stringify(last)}`, { cause: error });
	}
}

/**
 * Waits until a table holds so many rows and rests.
 * @param {HarperNode} harper
 * @param {string} id
 * @param {number} rows
 */
export function untilRows(harper, id, rows) {
	return untilStatus(harper, id, (status) => status.rows >= rows && status.state === 'idle', `to have ${rows} rows`);
}

/**
 * Waits until all workers that share a table rest, having read all of it.
 * @param {HarperNode} harper
 * @param {string} id
 */
export async function untilAllRest(harper, id) {
	/** @type {any} */
	let table;
	const rest = async () => {
		const { tables } = await readControl(harper);
		table = tables.find((/** @type {{id: string}} */ one) => one.id === id);
		if (table === undefined || table.unread) return false;
		const reading = table.workers.filter((/** @type {any} */ { state }) => state !== 'standby');
		return reading.every((/** @type {any} */ { state, watermark }) => state === 'idle' && watermark !== null);
	};
	await until(rest, { deadlineMs: PATIENCE_MS, what: `all workers of ${id} to rest` }).catch((error) => {
		throw new Error(`${error.message}\nLast status: ${JSON.stringify(table)}`, { cause: error });
	});
}

/**
 * Compares a table with its target completely.
 * @param {{source: Source, harper: HarperNode}} sides
 * @param {Partial<import('../../support/compare.mjs').Source> & {table: string, target: string, expected?: any}} table
 */
export function compare({ source, harper }, { table, target, expected, ...rest }, limitSamples = 1) {
	return compareTables({
		bigquery: source.bigquery,
		source: { dataset: DATASET, table, cursor: 'timestamp', ...rest },
		harper,
		target: { table: target },
		expected,
		limitSamples,
	});
}

/**
 * Fails unless a table and its target are equal.
 * @param {Parameters<typeof compare>[0]} sides
 * @param {Parameters<typeof compare>[1]} table
 */
export async function assertEqual(sides, table) {
	const comparison = await compare(sides, table);
	const { equal, sourceRows, targetRows, missing, duplicate, phantom, different, samples } = comparison;
	const story = equal ? '' : `${JSON.stringify(samples)}\n${problemsIn(sides.harper)}`;
	const nothing = { missing: 0, duplicate: 0, phantom: 0, different: 0 };
	assert.deepEqual({ missing, duplicate, phantom, different }, nothing, story || undefined);
	return { sourceRows, targetRows };
}

/**
 * Waits until a table and its target are equal; for small tables, because it compares again and again.
 * @param {Parameters<typeof compare>[0]} sides
 * @param {Parameters<typeof compare>[1]} table
 */
export async function untilEqual(sides, table) {
	const equal = async () => {
		const comparison = await compare(sides, table, 0);
		return comparison.equal && comparison;
	};
	const found = await until(equal, { deadlineMs: PATIENCE_MS, what: `${table.table} to be equal` }).catch(() => {});
	return found ?? assertEqual(sides, table);
}

/**
 * What Harper has logged of the component, and its errors.
 * @param {HarperNode} harper
 */
export function problemsIn(harper) {
	return harper
		.log()
		.split('\n')
		.filter((line) => /bigquery-sync:|\[error\]/.test(line))
		.slice(-20)
		.join('\n');
}
