/** The BigQuery side of a test: a real emulator, the fault proxy before it, and a client that goes past the proxy. */

import { bigQueryClient, startEmulator, startFaultProxy } from '../../support/index.mjs';

/** The dataset of all test tables. */
export const DATASET = 'd';

/**
 * @typedef {import('../../support/values.mjs').Field} Field
 * @typedef {{timePartitioning?: {type: string, field?: string}, primaryKey?: string[]}} TableOptions
 *
 * @typedef {object} Source
 * @property {import('../../support/emulator.mjs').Emulator} emulator
 * @property {import('../../support/fault-proxy.mjs').FaultProxy} proxy What the component is given as BigQuery.
 * @property {import('../../support/bigquery.mjs').BigQueryClient} bigquery
 * @property {(url?: string) => Record<string, any>} connection The keys of `bigquery:` that lead to the proxy.
 * @property {(options?: {minimumBytes?: number}) => Promise<import('../../support/fault-proxy.mjs').FaultProxy>}
 *   addProxy One more, with faults of its own.
 * @property {(table: string, schema: Field[], rows?: Iterable<object>, more?: TableOptions) => Promise<void>} fill Makes
 *   a table with rows.
 * @property {() => Promise<void>} stop
 */

/** @returns {Promise<Source>} */
export async function startSource() {
	const emulator = await startEmulator();
	/** @type {import('../../support/fault-proxy.mjs').FaultProxy[]} */
	const proxies = [];
	const addProxy = async (options = {}) => {
		const proxy = await startFaultProxy({ target: emulator.url, project: emulator.project, ...options });
		// Bills and modification times cost a scan per request; the tests that look at them turn them on.
		proxy.accounting = false;
		proxy.maintainsModification = false;
		proxies.push(proxy);
		return proxy;
	};
	const proxy = await addProxy();
	const bigquery = bigQueryClient({ url: emulator.url, project: emulator.project });
	// Another file may have used the emulator before, and not have come to its end.
	await bigquery.deleteDataset(DATASET);
	await bigquery.createDataset(DATASET);
	return {
		emulator,
		proxy,
		bigquery,
		addProxy,
		connection: (url = proxy.url) => ({ projectId: emulator.project, apiEndpoint: url, dataset: DATASET }),
		async fill(table, schema, rows, more = {}) {
			await bigquery.createTable(DATASET, table, { schema, ...more });
			if (rows) await bigquery.loadRows(DATASET, table, rows);
		},
		async stop() {
			for (const one of proxies) await one.stop();
			await emulator.stop();
		},
	};
}

/**
 * Gives rows new cursor values that end some time before now, one millisecond apart: rows that "happen" during the test.
 * @param {Iterable<Record<string, any>>} rows
 * @param {{agoMs: number}} options How long ago the first row was.
 * @returns {Record<string, any>[]}
 */
export function recent(rows, { agoMs }) {
	const first = Date.now() - agoMs;
	return [...rows].map((row, index) => ({ ...row, timestamp: new Date(first + index).toISOString() }));
}

/**
 * The queries from the beginning of time, not those for later windows.
 * @param {import('../../support/fault-proxy.mjs').FaultProxy} proxy
 */
export function backfillQueries(proxy) {
	return proxy.requests('jobs.query').filter(({ sql }) => !/`timestamp` > /.test(sql ?? ''));
}
