import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { plainApplication, pluginApplication, startHarper } from '../../tests/support/index.mjs';
import { repository } from '../setup.mjs';
import { busy, print, step } from '../terminal.mjs';
import { Source, fromSource } from './syncing.mjs';

export const IDLE_TABLES = 20;
export const IDLE_THREADS = 4;
/** The rows of each table. They are copied before the measurement, and do not matter to it. */
const ROWS_MAX = 2_000;
const COMPONENT = 'bigquery-sync';
const LOOK_EVERY_MS = 1_000;
const DEADLINE_MS = 300_000;
/** From when all tables are idle until the measurement: until then, threads compile what the polls run. */
const SETTLE_MS = 120_000;
/** A round lasts as long as the default of `pollInterval`, so that each table is polled once in it. */
const ROUND_MS = 30_000;

/**
 * @typedef {object} Idling CPU time of Harper's process per time, all its threads together.
 * @property {number} seconds How long was measured.
 * @property {number} whole Of a Harper with the component.
 * @property {number} bare Of a Harper without it, at the same time.
 */

/**
 * Measures the CPU of a node that has nothing to do: all tables are up to date, and polls find them unchanged.
 * @param {{rows: number, rounds: number}} options
 * @returns {Promise<Idling>}
 */
export async function measureIdling({ rows, rounds }) {
	print();
	return fromSource('prepared pages', Source.prepared, Math.min(rows, ROWS_MAX), async (source) => {
		const tables = pluginApplication({
			component: path.resolve(repository),
			name: COMPONENT,
			config: configuration(source),
		});
		const nothing = plainApplication();
		/** @type {import('../../tests/support/harper.mjs').HarperNode[]} */
		const nodes = [];
		try {
			for (const application of [tables, nothing]) {
				nodes.push(await startHarper({ application: application.path, threads: IDLE_THREADS }));
			}
			await step('idle', () => untilIdle(nodes[0]));
			await step('settled', () => busy('settling', () => sleep(SETTLE_MS)));
			return await measure(nodes, rounds);
		} finally {
			for (const node of nodes) await node.remove();
			for (const application of [tables, nothing]) application.remove();
		}
	});
}

function configuration({ url }) {
	const tables = Array.from({ length: IDLE_TABLES }, (_, number) => ({
		dataset: 'bench',
		table: `idle_${number}`,
		timestampColumn: 'timestamp',
	}));
	return { bigquery: { projectId: 'test-project', apiEndpoint: url, tables } };
}

/** Waits until all workers have copied all tables. */
async function untilIdle(harper) {
	const deadline_ms = performance.now() + DEADLINE_MS;
	for (;;) {
		await sleep(LOOK_EVERY_MS);
		const response = await harper.request('/SyncControl');
		const { tables = [] } = await response.json();
		const states = tables.flatMap(({ workers }) => workers.map(({ state }) => state));
		const idle = states.filter((state) => state === 'idle').length;
		if (idle === IDLE_TABLES * IDLE_THREADS) return `${IDLE_TABLES} tables on ${IDLE_THREADS} threads`;
		if (performance.now() > deadline_ms) {
			throw new Error(`${idle} of ${IDLE_TABLES * IDLE_THREADS} are idle.\n${harper.log().slice(-3_000)}`);
		}
	}
}

/** @returns {Promise<Idling>} */
async function measure(nodes, rounds) {
	const meters = nodes.map((node) => new Meter(node));
	for (let round = 1; round <= rounds; round++) {
		const parts = nodes.map((node) => new Meter(node));
		await step(`idle ${round}`, async () => {
			await busy('idle', () => sleep(ROUND_MS));
			const [whole, bare] = parts.map((meter) => `${(meter.share() * 100).toFixed(2)} %`);
			return `${whole} of a core, without the component ${bare}`;
		});
	}
	const [whole, bare] = meters.map((meter) => meter.share());
	return { seconds: (rounds * ROUND_MS) / 1_000, whole, bare };
}

class Meter {
	#started_ms = performance.now();

	constructor(node) {
		this.node = node;
		this.before_ms = node.usage().cpuMs;
	}

	/** CPU time per time since the beginning. */
	share() {
		return (this.node.usage().cpuMs - this.before_ms) / (performance.now() - this.#started_ms);
	}
}
