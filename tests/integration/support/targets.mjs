/** What targets that made themselves are like, and how a node tells of them and of its own indexes. */

import assert from 'node:assert/strict';

import { until } from '../../support/index.mjs';
import { PATIENCE_MS, readControl } from './component.mjs';

/** @typedef {import('../../support/index.mjs').HarperNode} HarperNode */

/** What the columns of all types become, `!` with an index. */
export const TYPES = {
	row_id: 'Any!',
	ts: 'String!',
	int64_value: 'Any!',
	float64_value: 'Float',
	numeric_value: 'Any!',
	bignumeric_value: 'Any',
	bool_value: 'Boolean',
	string_value: 'String!',
	bytes_value: 'String',
	date_value: 'String!',
	time_value: 'String!',
	datetime_value: 'String!',
	json_value: 'Any',
	tags: 'Any',
	numbers: 'Any',
	position: 'Any',
	stops: 'Any',
	_syncedAt: 'String',
};

/** The same of vessel positions that are clustered by vessel_type, with an index on mmsi. */
export const POSITIONS = {
	mmsi: 'String!',
	vessel_name: 'String',
	vessel_type: 'String!',
	latitude: 'Float',
	longitude: 'Float',
	speed: 'Float',
	course: 'Float',
	heading: 'Any',
	status: 'String',
	timestamp: 'String!',
	_syncedAt: 'String',
};

/** With these, integers, decimals and texts have indexes too. */
export const OVERRIDES = Object.fromEntries(
	['int64_value', 'numeric_value', 'string_value'].map((column) => [column, { indexed: true }])
);

/** What an application must have for indexedRows(): its `jsResource` and the file that goes with it. */
export const INSPECT = {
	section: { jsResource: { files: 'index-of.js' } },
	files: {
		'index-of.js': `
			export class IndexOf extends Resource {
				static loadAsInstance = false;
				async get(target) {
					const [name, attribute, value] = String(target.id ?? target).split(',');
					const index = databases.data[name]?.indices[attribute];
					return { rows: index ? [...index.getValues(value)].length : null };
				}
			}`,
	},
};

/**
 * How many rows an index of the node itself leads to; null without an index.
 * @param {HarperNode} harper
 * @param {string} key The table, the attribute and the value.
 */
export const indexedRows = async (harper, key) => (await read(harper, `/IndexOf/${key}`)).rows;

/**
 * How the indexes of a table's target are, as a node tells of all nodes.
 * @param {HarperNode} harper
 * @param {string} id
 * @returns {Promise<'after_backfill' | 'building' | 'ready' | null | undefined>}
 */
export async function indexesOf(harper, id) {
	const { tables } = await readControl(harper);
	return tables.find((/** @type {any} */ one) => one.id === id)?.indexes;
}

/** @param {HarperNode} harper @param {string} id */
export function untilIndexed(harper, id) {
	const isReady = async () => (await indexesOf(harper, id)) === 'ready';
	return until(isReady, { deadlineMs: PATIENCE_MS, what: `the indexes of ${id} to be ready` });
}

/** Types and indexes as a node tells of them. @param {HarperNode} harper @param {string} table */
export async function attributesOf(harper, table) {
	const { attributes } = await harper.tableOperation({ operation: 'describe_table', database: 'data', table });
	return Object.fromEntries(
		attributes
			.filter((/** @type {any} */ one) => !one.is_primary_key)
			.map((/** @type {any} */ one) => [one.attribute, `${one.type}${one.indexed ? '!' : ''}`])
	);
}

/** @param {HarperNode} harper @param {string} path */
export async function read(harper, path) {
	const response = await harper.request(path);
	const text = await response.text();
	assert.equal(response.status, 200, `${path}: ${text}`);
	return JSON.parse(text);
}

/** @param {HarperNode} harper @param {string} mmsi */
export async function vesselCount(harper, mmsi) {
	return (await read(harper, `/Positions/?mmsi=${mmsi}`)).length;
}
