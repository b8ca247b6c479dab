/** Validates tables on command, and tells what came of it. */

import { until } from '../../support/index.mjs';
import { PATIENCE_MS, postControl, readControl } from './component.mjs';

/** @typedef {import('../../support/harper.mjs').HarperNode} HarperNode */

/** The second looks come after three seconds instead of thirty. */
export const IN_HASTE = { BIGQUERY_SYNC_CLUSTER_HASTE: '10' };

/** The name of the target that belongs to a table by default. @param {string} table */
export const targetOf = (table) => table[0].toUpperCase() + table.slice(1);

export const isEqual = (/** @type {any} */ { state }) => state === 'equal';

/** @param {HarperNode} harper @param {string} table @returns {Promise<any>} */
export async function validationOf(harper, table) {
	const { tables } = await readControl(harper);
	return tables.find((/** @type {{id: string}} */ { id }) => id === table).validation;
}

/**
 * Validates a table, and waits for the result.
 * @param {HarperNode} harper
 * @param {string} table
 * @param {(validation: any) => boolean} isWanted
 */
export async function validate(harper, table, isWanted) {
	await postControl(harper, { action: 'validate', table });
	/** @type {any} */
	let last;
	const isDone = async () => {
		last = await validationOf(harper, table);
		return last !== null && last.state !== 'running' && isWanted(last);
	};
	await until(isDone, { deadlineMs: PATIENCE_MS, everyMs: 250, what: `the validation of ${table}` }).catch((error) => {
		throw new Error(`${error.message}\nLast: ${JSON.stringify(last)}`, { cause: error });
	});
	return last;
}

/** @param {HarperNode} harper @param {string} table @param {string} kind */
export async function auditOf(harper, table, kind) {
	const operation = { operation: 'search_by_value', database: 'data', table: 'SyncAudit', get_attributes: ['*'] };
	const found = await harper.operation({ ...operation, search_attribute: 'kind', search_value: kind });
	return found.filter((/** @type {any} */ { tableId }) => tableId === table);
}

/** @param {HarperNode} harper @param {string} table @returns {Promise<any[]>} The ids, in order. */
export async function idsOf(harper, table) {
	const found = await harper.operation({ operation: 'sql', sql: `SELECT id FROM data.${targetOf(table)} ORDER BY id` });
	return found.map((/** @type {{id: any}} */ { id }) => id);
}

/** @param {HarperNode} harper @param {string} table @param {any[]} ids */
export function remove(harper, table, ids) {
	return harper.operation({ operation: 'delete', database: 'data', table: targetOf(table), ids });
}

/** @param {HarperNode} harper @param {string} table @param {any[]} records */
export function upsert(harper, table, records) {
	return harper.operation({ operation: 'upsert', database: 'data', table: targetOf(table), records });
}
