/** The built core, given answers of BigQuery from memory. */

import { assembleRecords } from '../../../js/harper/sync/batch.js';
import { loadCore } from '../../../js/core.js';
import { MemoryHost, wirePage } from '../../support/wire.mjs';

export const core = await loadCore();

/**
 * @param {Record<string, unknown>} [bigquery] Keys of the one table, beside those that it needs.
 * @param {Record<string, unknown>} [sections]
 */
export function configuration(bigquery = {}, sections = {}) {
	const root = {
		bigquery: { projectId: 'p', dataset: 'd', table: 't', timestampColumn: 'ts', ...bigquery },
		...sections,
	};
	return new core.Configuration(root, { emulatorHost: '127.0.0.1:9050', sharedRoot: false });
}

/** @param {unknown} value */
export const encode = (value) => new TextEncoder().encode(JSON.stringify(value));

/**
 * Lets the core read one page of rows, and puts together what it would write.
 * @param {any[]} fields
 * @param {Record<string, any>[]} rows
 * @param {Record<string, unknown>} [bigquery]
 * @param {{schema?: any}} [before] What is stored already: the newest version of the schema.
 */
export async function recordsOf(fields, rows, bigquery, { schema = null } = {}) {
	const host = new MemoryHost({ fields, page: () => encode(wirePage({ fields, rows })) });
	host.schema = schema;
	const sync = configuration(bigquery).table('t', { node: 'n', index: 0 });
	const ended = host.run(sync);
	await host.idle;
	sync.stop();
	await ended;
	const records = host.orders.flatMap((order) => assembleRecords(host.layout, order, 'now'));
	const rejections = host.orders.flatMap((order) => order.rejections);
	return { records, rejections, host, status: sync.status() };
}
