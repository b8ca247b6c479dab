import { once } from 'node:events';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import {
	VESSEL_SCHEMA,
	bigQueryClient,
	ensureEmulator,
	pluginApplication,
	startEmulator,
	startHarper,
	vesselPositions,
} from '../../tests/support/index.mjs';
import { repository } from '../setup.mjs';
import { busy, hint, step } from '../terminal.mjs';
import { LatencyProbe } from './latency.mjs';
import { MemoryWatch } from './memory.mjs';

const INSIDE = fileURLToPath(new URL('inside/', import.meta.url));
const TABLE = 'vessels';
/** The tables that the component and the bare loop write to. */
export const TARGET = 'Vessels';
export const CEILING_TARGET = 'Ceiling';
const WARM_TARGET = 'Warm';
/** The part of the rows, at their end, that are written before anything is measured, so that Harper's code is compiled. */
const WARM_PART = 0.15;
/** The sample rows are spread over so many days. */
const DAYS = 10;
const FIRST_MS = Date.UTC(2024, 0, 1);
const DAY_MS = 86_400_000;
const DATASET = 'bench';
const COMPONENT = 'bigquery-sync';
/** Harper is let alone for so long before it counts as idle. */
const SETTLE_MS = 3_000;
const LOOK_EVERY_MS = 500;
/** The slowest copying that is still waited for. */
const ROWS_PER_S_MIN = 500;
const DEADLINE_MS = 120_000;
/** Answers of the service come about so late, and so much of them passes a line of a gigabit. */
export const SLOW_NETWORK = {
	delaysMs: { 'tables.get': 300, 'jobs.query': 1_000, 'jobs.insert': 1_000, 'getQueryResults': 300 },
	bytesPerSecond: 100_000_000,
};
/** A histogram of delays holds this interval itself. */
const LOOP_RESOLUTION_MS = 1;

/**
 * @typedef {{rows: number, pace?: string, profile?: string}} Options profile: where a worker's CPU profiles go, without their ending.
 *
 * @typedef {object} Measured What one run came to.
 * @property {number} elapsedMs
 * @property {number} rowsPerS
 * @property {number} cpuUsPerRow Of the whole Harper process.
 * @property {number} warmCpuUsPerRow Of the second half of the rows.
 * @property {number} loopBusy Part of the time in which the worker's event loop had work.
 * @property {number} loopDelayP99Ms
 * @property {number} loopDelayMaxMs
 * @property {{count: number, p50_ms: number, p99_ms: number, max_ms: number}} get
 * @property {{p99_ms: number, max_ms: number}} machine Delays of this process, which is idle: what the machine itself adds.
 * @property {{rss_mb: number | null, anonymous_mb: number | null}} memory
 * @property {number} [beforeMs] Of the sync: from the command to start until each worker has committed rows.
 * @property {number} [transactionRows] Of the sync: on average; of the ceiling: the size that was fastest.
 * @property {{transactionRows: number, rowsPerS: number, cpuUsPerRow: number}[]} [sizes] Of the ceiling, the fastest first.
 */

/**
 * Measures the whole way once with an emulator.
 * @param {Options} options
 */
export function measureEmulator(options) {
	return fromSource('emulator', Source.emulator, options.rows, (source) => {
		return inHarper(source, (harper) => told('emulator', harper.sync(options)), options);
	});
}

/**
 * @typedef {{sync: Measured, ceiling?: Measured, delayed?: Measured}} Round
 */

/**
 * Measures the way of prepared pages in rounds, and in the same rounds what it is compared with: the bare loop, which
 * runs in the same Harper, and the same way through a slow network, in a Harper of its own.
 * @param {Options & {rounds: number, parts: string[]}} options
 * @returns {Promise<Round[]>}
 */
export function measurePrepared(options) {
	const withLoop = options.parts.includes('sync');
	const withDelays = options.parts.includes('delayed');
	return fromSource('prepared pages', Source.prepared, options.rows, async (source) => {
		/** @type {Round[]} */
		const measured = [];
		for (let number = 1; number <= options.rounds; number++) {
			const round = await inHarper(
				source,
				async (harper) => {
					const sync = await told(`prepared ${number}`, harper.sync(options));
					return withLoop ? { sync, ceiling: await told(`bare loop ${number}`, harper.ceiling(options)) } : { sync };
				},
				options
			);
			measured.push(withDelays ? { ...round, delayed: await throughNetwork(source, options, number) } : round);
		}
		return measured;
	});
}

/**
 * @param {Source} source
 * @param {Options} options
 * @param {number} number
 */
async function throughNetwork(source, options, number) {
	await source.setNetwork(SLOW_NETWORK);
	try {
		return await inHarper(
			source,
			(harper) => told(`delayed ${number}`, harper.sync({ ...options, profile: undefined })),
			options
		);
	} finally {
		await source.setNetwork({});
	}
}

/**
 * Uses a source, and ends it.
 * @template T
 * @param {string} name
 * @param {(rows: number) => Promise<Source>} open
 * @param {number} rows
 * @param {(source: Source) => Promise<T>} use
 * @returns {Promise<T>}
 */
export async function fromSource(name, open, rows, use) {
	/** @type {any} */
	let source;
	await step(name, async () => {
		source = await open(rows);
		return `${rows.toLocaleString('en')} sample rows`;
	});
	try {
		return await use(source);
	} finally {
		await source.stop();
	}
}

/**
 * Uses a Harper of its own.
 * @template T
 * @param {Source} source
 * @param {(harper: BenchHarper) => Promise<T>} use
 * @param {{threads?: number, schema?: string, pace?: string}} [options] See {@link BenchHarper.start}.
 * @returns {Promise<T>}
 */
export async function inHarper(source, use, options) {
	const harper = await BenchHarper.start(source, options);
	try {
		return await use(harper);
	} finally {
		await harper.remove();
	}
}

/**
 * Shows a measurement under way.
 * @param {string} name
 * @param {Promise<Measured>} measuring
 * @returns {Promise<Measured>}
 */
export async function told(name, measuring) {
	/** @type {any} */
	let measured;
	await step(name, async () => {
		measured = await measuring;
		return `${measured.cpuUsPerRow.toFixed(1)} µs of CPU per row, GET p99 ${measured.get.p99_ms.toFixed(1)} ms`;
	});
	return measured;
}

/** @typedef {{readingBytes: number, countingBytes: number}} Bill Of the queries that read rows, and that count them. */

/** Where the rows come from: an address for the component's configuration. */
export class Source {
	/**
	 * @param {string} url
	 * @param {() => Promise<unknown>} stop
	 * @param {() => Promise<Bill>} bill What the queries since the last bill are billed.
	 * @param {number} [days] Over which prepared rows are spread.
	 * @param {(settings: Parameters<import('../../tests/support/network.mjs').Network['set']>[0]) => Promise<unknown>} [setNetwork]
	 */
	constructor(
		url,
		stop,
		bill,
		days = undefined,
		setNetwork = () => Promise.reject(new Error('there is no network to slow down'))
	) {
		this.url = url;
		this.stop = stop;
		this.bill = bill;
		this.days = days;
		this.setNetwork = setNetwork;
	}

	/** @param {number} rows */
	static async emulator(rows) {
		await ensureEmulator({ log: firstTime('installing a BigQuery emulator once, about a minute') });
		const emulator = await startEmulator();
		const client = bigQueryClient(emulator);
		await client.createDataset(DATASET);
		const timePartitioning = { type: 'DAY', field: 'timestamp' };
		await client.createTable(DATASET, TABLE, { schema: VESSEL_SCHEMA, timePartitioning });
		const loaded = await client.loadRows(DATASET, TABLE, vesselPositions({ rows, days: DAYS }));
		if (loaded !== rows) throw new Error(`the emulator took ${loaded} of ${rows} rows`);
		const bill = () => Promise.reject(new Error('the emulator tells no bytes'));
		return new Source(emulator.url, emulator.stop, bill);
	}

	/**
	 * @param {number} rows
	 * @param {number} [days] Over which they are spread.
	 */
	static async prepared(rows, days = DAYS) {
		const worker = new Worker(new URL('page-server.mjs', import.meta.url), { workerData: { rows, days } });
		// A page server that fails rejects this.
		const told = async () => (await once(worker, 'message'))[0];
		const { port } = await told();
		const bill = async () => {
			worker.postMessage('bill');
			return (await told()).bill;
		};
		const setNetwork = (/** @type {object} */ network) => {
			worker.postMessage({ network });
			return told();
		};
		return new Source(`http://127.0.0.1:${port}`, async () => worker.postMessage('stop'), bill, days, setNetwork);
	}
}

function firstTime(text) {
	let told = false;
	return () => {
		if (!told) hint(text);
		told = true;
	};
}

/** A Harper of the benchmark's own, whose application lists the component. */
export class BenchHarper {
	/**
	 * @param {Source} source
	 * @param {{threads?: number, schema?: string, pace?: string}} [options] Worker threads, one by default; more tables.
	 */
	static async start(source, { threads = 1, schema = '', pace } = {}) {
		const application = benchApplication(source, { schema, pace });
		const harper = await startHarper({ application: application.path, threads });
		try {
			await post(harper, '/BenchUnrelated/', { id: '1', text: 'unrelated' });
			await sleep(SETTLE_MS);
		} catch (error) {
			await harper.remove();
			throw error;
		}
		const bench = new BenchHarper(source, application, harper);
		await bench.#warmUp();
		return bench;
	}

	constructor(source, application, harper) {
		this.source = source;
		this.application = application;
		this.harper = harper;
	}

	/**
	 * Measures the component, from the command to start until the last row is committed.
	 * @param {Options} options
	 */
	async sync(options) {
		const start = () => post(this.harper, '/SyncControl', { action: 'start' });
		const figures = await this.#measure('sync', { id: TABLE }, options, start);
		await post(this.harper, '/SyncControl', { action: 'stop' });
		await checkRows(this.harper, TARGET, options.rows);
		return figures;
	}

	/**
	 * Measures the bare loop.
	 * @param {Options} options
	 */
	async ceiling(options) {
		const figures = await this.#measure('ceiling', this.#loopTo(CEILING_TARGET), options, async () => {});
		await checkRows(this.harper, CEILING_TARGET, options.rows);
		return figures;
	}

	/** Writes some rows with the bare loop into a table of their own. The loop reads prepared pages alone. */
	async #warmUp() {
		if (this.source.days === undefined) return;
		const startTimestamp = new Date(FIRST_MS + this.source.days * DAY_MS * (1 - WARM_PART)).toISOString();
		const order = { what: 'ceiling', rows: null, ...this.#loopTo(WARM_TARGET, { startTimestamp }) };
		await post(this.harper, '/BenchRun/', order);
		await ended(this.harper, 'warm-up', 0);
	}

	#loopTo(table, sync = {}) {
		const { bigquery, sync: usual } = configuration(this.source);
		return {
			url: this.source.url,
			configuration: { bigquery, sync: { ...usual, ...sync } },
			table,
			component: path.join(this.application.path, 'node_modules', COMPONENT),
		};
	}

	/**
	 * @param {'sync' | 'ceiling'} what
	 * @param {object} details
	 * @param {Options} options
	 * @param {() => Promise<unknown>} start
	 * @returns {Promise<Measured>}
	 */
	async #measure(what, details, { rows, profile }, start) {
		const { harper } = this;
		const memory = new MemoryWatch(harper.pid);
		const machine = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });
		machine.enable();
		const probe = new LatencyProbe(`${harper.httpUrl}/BenchUnrelated/1`);
		probe.start();
		await post(harper, '/BenchRun/', { what, rows, profile: profile && `${profile}.${what}.cpuprofile`, ...details });
		await start();
		const result = await ended(harper, what, rows);
		const get = await probe.stop();
		machine.disable();
		const delay_ms = (nanoseconds) => Math.max(0, nanoseconds / 1e6 - LOOP_RESOLUTION_MS);
		const idle = { p99_ms: delay_ms(machine.percentile(99)), max_ms: delay_ms(machine.max) };
		return { ...rates(result, rows), get, machine: idle, memory: memory.stop() };
	}

	async remove() {
		await this.harper.remove();
		this.application.remove();
	}
}

function configuration({ url }, pace) {
	const tables = [{ id: TABLE, dataset: DATASET, table: TABLE, timestampColumn: 'timestamp', targetTable: TARGET }];
	return {
		bigquery: { projectId: 'test-project', apiEndpoint: url, tables },
		sync: { autoStart: false, pollInterval: 600_000, ...(pace && { pace }) },
	};
}

function benchApplication(source, { schema, pace }) {
	const application = pluginApplication({
		component: repository,
		name: COMPONENT,
		config: configuration(source, pace),
		schema: readFileSync(path.join(INSIDE, 'schema.graphql'), 'utf8') + schema,
	});
	const file = path.join(application.path, 'config.yaml');
	const config = { ...JSON.parse(readFileSync(file, 'utf8')), jsResource: { files: 'resources.js' } };
	writeFileSync(file, JSON.stringify(config));
	for (const name of ['resources.js', 'ceiling.js', 'crew.js']) {
		copyFileSync(path.join(INSIDE, name), path.join(application.path, name));
	}
	return application;
}

async function ended(harper, what, rows) {
	const deadline_ms = performance.now() + DEADLINE_MS + (rows / ROWS_PER_S_MIN) * 1_000;
	return busy(`${what} inside Harper`, async () => {
		for (;;) {
			await sleep(LOOK_EVERY_MS);
			const response = await harper.request('/BenchRun/');
			const { result, error, rows: done } = await response.json();
			if (error) throw new Error(`The ${what} failed inside Harper: ${error}`);
			if (result) return result;
			if (performance.now() > deadline_ms) {
				throw new Error(`The ${what} came to ${done} of ${rows} rows only.\n${harper.log().slice(-3_000)}`);
			}
		}
	});
}

/** @returns {any} */
function rates({ elapsedMs, cpuMs, warm, sizes, ...rest }, rows) {
	const warmCpuUsPerRow = (warm.cpuMs * 1_000) / warm.rows;
	const perRow = { rowsPerS: (rows * 1_000) / elapsedMs, cpuUsPerRow: (cpuMs * 1_000) / rows, warmCpuUsPerRow };
	const all = { ...rest, elapsedMs, ...perRow };
	if (sizes === undefined) return all;
	const rated = Object.entries(sizes)
		.filter(([, spent]) => spent.rows > 0)
		.map(([size, spent]) => ({
			transactionRows: Number(size),
			rowsPerS: (spent.rows * 1_000) / spent.elapsedMs,
			cpuUsPerRow: (spent.cpuMs * 1_000) / spent.rows,
		}))
		.sort((one, other) => other.rowsPerS - one.rowsPerS);
	return { ...all, ...rated[0], sizes: rated };
}

async function checkRows(harper, table, rows) {
	const { record_count } = await harper.operation({ operation: 'describe_table', table, exact_count: true });
	if (Number(record_count) !== rows) throw new Error(`${table} has ${record_count} rows instead of ${rows}`);
}

async function post(harper, resource, body) {
	const response = await harper.request(resource, { method: 'POST', body });
	if (!response.ok) throw new Error(`POST ${resource} answers ${response.status}: ${await response.text()}`);
}
