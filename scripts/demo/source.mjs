import { randomBytes } from 'node:crypto';
import { ensureEmulator, startEmulator } from '../../tests/support/emulator.mjs';
import { VESSEL_SCHEMA, vesselPositions } from '../../tests/support/samples.mjs';
import { hint, step } from '../terminal.mjs';
import { DemoClient, tokenSource } from './client.mjs';
import { formatCount } from './display.mjs';

export const TABLE = 'vessel_positions';
const HISTORY_DAYS = 10;
const DAY_MS = 86_400_000;
const POLL_MS = { own: 1_000, running: 1_000, service: 5_000 };

/**
 * @typedef {object} Source
 * @property {DemoClient} client
 * @property {string} dataset
 * @property {Record<string, unknown>} connection What the component's configuration says about BigQuery.
 * @property {string} page Where people can look at it.
 * @property {number} poll_ms
 */

/**
 * Gets BigQuery ready: an emulator or the service, and in it an empty dataset of the demo's own.
 *
 * @param {import('./choice.mjs').Choice} choice
 * @param {import('./options.mjs').DemoOptions} options
 * @param {import('./ending.mjs').Ending} ending
 * @returns {Promise<Source>}
 */
export async function openSource(choice, { location }, ending) {
	const { project, keyFile, kind } = choice;
	/** @type {Source | undefined} */
	let source;
	await step('BigQuery', async () => {
		const url = kind === 'own' ? await ownEmulator(ending) : choice.url;
		const accessToken = keyFile === undefined ? undefined : await tokenSource(keyFile);
		const client = new DemoClient({ url, project, location, accessToken });
		const dataset = `bigquery_sync_demo_${randomBytes(4).toString('hex')}`;
		// Only after it has answered is there something that may have to be removed.
		await client.request('GET', '/datasets', { query: { maxResults: 1 } });
		if (kind !== 'own') ending.add(`the dataset ${project}.${dataset}`, () => client.deleteDataset(dataset));
		await client.createDataset(dataset);
		await client.createTable(dataset, TABLE, {
			schema: VESSEL_SCHEMA,
			timePartitioning: { type: 'DAY', field: 'timestamp' },
		});
		const connection = { projectId: project, location, apiEndpoint: url, ...(keyFile && { credentials: keyFile }) };
		const console = `https://console.cloud.google.com/bigquery?project=${project}`;
		const page = kind === 'service' ? console : `${url}/bigquery/v2/projects/${project}/datasets`;
		source = { client, dataset, connection, page, poll_ms: POLL_MS[kind] };
		return kind === 'service' ? `the real one, ${project}.${dataset}` : `emulator at ${url}`;
	});
	return /** @type {Source} */ (/** @type {unknown} */ (source));
}

async function ownEmulator(ending) {
	let told = false;
	const log = () => {
		if (!told) hint('installing a BigQuery emulator once, about a minute');
		told = true;
	};
	await ensureEmulator({ log });
	const emulator = await startEmulator();
	ending.add('the emulator', emulator.stop);
	return emulator.url;
}

/**
 * Writes the sample rows: some days of history, up to now.
 *
 * @param {Source} source
 * @param {number} rows
 * @param {(text: string) => void} showProgress
 */
export function writeHistory({ client, dataset }, rows, showProgress) {
	return step('sample rows', async () => {
		const start = new Date(Date.now() - HISTORY_DAYS * DAY_MS).toISOString();
		const history = vesselPositions({ rows, days: HISTORY_DAYS, start });
		await client.load(dataset, TABLE, history, (done) => {
			if (done < rows) showProgress(`sample rows: ${formatCount(done)} of ${formatCount(rows)}`);
		});
		return `${formatCount(rows)} vessel positions of the last ${HISTORY_DAYS} days`;
	});
}

/** Positions of this moment, without end. */
export function* livePositions() {
	for (let seed = Date.now(); ; seed++) {
		for (const row of vesselPositions({ rows: 10_000, seed })) {
			const micros = Math.floor(Math.random() * 1000);
			const now = new Date().toISOString().slice(0, -1);
			yield { ...row, timestamp: `${now}${String(micros).padStart(3, '0')}Z` };
		}
	}
}
