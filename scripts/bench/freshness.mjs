import { setTimeout as sleep } from 'node:timers/promises';
import {
	bigQueryClient,
	ensureEmulator,
	pluginApplication,
	startEmulator,
	startHarper,
} from '../../tests/support/index.mjs';
import { repository } from '../setup.mjs';
import { step } from '../terminal.mjs';

const DATASET = 'bench';
const TABLE = 'events';
const TARGET = 'Events';
export const POLL_MS = 2_000;
export const EVERY_MS = 1_000;
const LOADS = 30;
const ROWS_PER_LOAD = 5;
const LOOK_EVERY_MS = 20;
const DEADLINE_MS = 120_000;

const SCHEMA = [
	{ name: 'ts', type: 'TIMESTAMP' },
	{ name: 'event', type: 'STRING' },
	{ name: 'text', type: 'STRING' },
];

/**
 * Measures how long after its appearance in BigQuery a row is in Harper: rows are loaded every second.
 * @returns {Promise<{pollMs: number, p50_ms: number, p99_ms: number, max_ms: number}>}
 */
export async function measureFreshness() {
	await ensureEmulator({ log() {} });
	const emulator = await startEmulator();
	const client = bigQueryClient(emulator);
	await client.createDataset(DATASET);
	await client.createTable(DATASET, TABLE, { schema: SCHEMA, timePartitioning: { type: 'DAY', field: 'ts' } });
	const application = pluginApplication({
		component: repository,
		name: 'bigquery-sync',
		config: configuration(emulator),
	});
	const harper = await startHarper({ application: application.path });
	try {
		/** @type {any} */
		let measured;
		await step('freshness', async () => {
			await untilThere(harper, await load(client, 0));
			measured = await follow(client, harper);
			return `${LOADS} loads, one a second, polled every ${POLL_MS / 1_000} s`;
		});
		return measured;
	} finally {
		await harper.remove();
		application.remove();
		await emulator.stop();
	}
}

function configuration({ url }) {
	const bigquery = { projectId: 'test-project', dataset: DATASET, table: TABLE, apiEndpoint: url };
	return {
		bigquery: { ...bigquery, timestampColumn: 'ts', key: ['event'], targetTable: TARGET },
		sync: { pollInterval: POLL_MS },
	};
}

async function follow(client, harper) {
	/** @type {Promise<number>[]} */
	const waits = [];
	const began_ms = performance.now();
	for (let number = 1; number <= LOADS; number++) {
		await sleep(Math.max(0, began_ms + number * EVERY_MS - performance.now()));
		const event = await load(client, number);
		const appeared_ms = performance.now();
		waits.push(untilThere(harper, event).then(() => performance.now() - appeared_ms));
	}
	const sorted = (await Promise.all(waits)).sort((one, other) => one - other);
	const at = (part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
	return { pollMs: POLL_MS, p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1) };
}

/** Loads some rows, and returns the last one's id. */
async function load(client, number) {
	const ts = new Date().toISOString();
	const rows = Array.from({ length: ROWS_PER_LOAD }, (_, row) => ({
		ts,
		event: `e${number}-${row}`,
		text: 'appeared',
	}));
	await client.loadRows(DATASET, TABLE, rows);
	return rows[ROWS_PER_LOAD - 1].event;
}

async function untilThere(harper, event) {
	// The id of a row with a key is the key.
	const search = { operation: 'search_by_id', table: TARGET, ids: [event], get_attributes: ['id'] };
	const deadline_ms = performance.now() + DEADLINE_MS;
	for (;;) {
		const found = await harper.operation(search).catch(() => []);
		if (found.length > 0) return;
		if (performance.now() > deadline_ms) throw new Error(`${event} is not in Harper after ${DEADLINE_MS / 1_000} s`);
		await sleep(LOOK_EVERY_MS);
	}
}
