/** What the benchmark does inside Harper, on the worker that also runs the component. */

import { Session } from 'node:inspector/promises';
import { writeFile } from 'node:fs/promises';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';

const LOOK_EVERY_MS = 10;
/** The histogram's delays hold this interval itself. */
const LOOP_RESOLUTION_MS = 1;
/** Rows that are prepared before the clock of the ceiling runs, and one turn of all transaction sizes. */
const BLOCK_ROWS = 10_000;
const TRANSACTION_ROWS = [250, 500, 1_000, 2_000];

/** @type {{rows: number, result: any, error: string | undefined}} */
let current = { rows: 0, result: undefined, error: undefined };

/** POST starts a measurement, GET tells how far it is. */
export class BenchRun extends Resource {
	get() {
		return current;
	}

	async post(body) {
		const order = await body;
		current = { rows: 0, result: undefined, error: undefined };
		const measure = order.what === 'ceiling' ? ceiling : sync;
		profiled(order.profile, () => measure(order)).then(
			(result) => {
				current.result = result;
			},
			(error) => {
				current.error = String(error.stack ?? error);
			}
		);
		return {};
	}
}

/** Measures what the component does from now on, until it has copied all rows. */
async function sync({ rows, checkpoint }) {
	const meter = new Meter();
	do {
		await sleep(LOOK_EVERY_MS);
		current.rows = (await tables.SyncCheckpoint.get(checkpoint))?.recordsIngested ?? 0;
	} while (current.rows < rows);
	return meter.read();
}

/**
 * Writes the rows that the component's core makes of the same pages, with the same ids, in a bare loop. Only the loop
 * is measured: a block's records are ready, and the next page has arrived, before its clock runs.
 */
async function ceiling({ rows, url, configuration, table, component }) {
	const { loadCore } = await import(`${component}/js/core.js`);
	const { assembleRecords } = await import(`${component}/js/batch.js`);
	const { ensureTarget } = await import(`${component}/js/target.js`);
	const sizes = Object.fromEntries(TRANSACTION_ROWS.map((size) => [size, { rows: 0, elapsedMs: 0, cpuMs: 0 }]));
	const meter = new Meter();
	let turn = 0;
	const writeBlock = async (target, records) => {
		const size = TRANSACTION_ROWS[turn++ % TRANSACTION_ROWS.length];
		const cpu = process.cpuUsage();
		const started_ms = performance.now();
		await bareLoop(target, records, size);
		const spent = sizes[size];
		spent.elapsedMs += performance.now() - started_ms;
		const { user, system } = process.cpuUsage(cpu);
		spent.cpuMs += (user + system) / 1_000;
		spent.rows += records.length;
		current.rows += records.length;
	};
	const host = new CeilingHost({ url, table, assembleRecords, ensureTarget, writeBlock });
	const core = await loadCore();
	const configured = new core.Configuration(configuration, { emulatorHost: null, sharedRoot: false });
	const engine = configured.table(configuration.bigquery.tables[0].id, { node: 'bench', index: 0 });
	host.engine = engine;
	const ended = engine.run(host);
	await host.idle;
	engine.stop();
	await ended;
	if (current.rows !== rows) throw new Error(`the ceiling's loop wrote ${current.rows} of ${rows} rows`);
	return { ...meter.read(), sizes };
}

async function bareLoop(target, records, size) {
	for (let from = 0; from < records.length; from += size) {
		const slice = records.slice(from, from + size);
		const context = {};
		await transaction(context, () => {
			for (const record of slice) target.put(record, context);
		});
	}
}

/** Runs the core without the component: pages come from the endpoint, records go to the bare loop in blocks. */
class CeilingHost {
	/** @type {any} */
	engine;
	#waiting = [];
	#fetching = Promise.resolve();
	#became;

	constructor({ url, table, assembleRecords, ensureTarget, writeBlock }) {
		this.url = url;
		this.table = table;
		this.assembleRecords = assembleRecords;
		this.ensure = ensureTarget;
		this.writeBlock = writeBlock;
		this.idle = new Promise((resolve, reject) => {
			this.#became = { resolve, reject };
		});
	}

	guard() {
		this.engine.step();
		return true;
	}

	async load() {
		return { checkpoints: [], counts: null, incarnation: '' };
	}

	async ensureTarget(target) {
		this.layout = target;
		this.target = (await this.ensure(this.table, target, true)).table;
		return { incarnation: '' };
	}

	send({ method, path, body }) {
		const answer = (async () => {
			const headers = { 'content-type': 'application/json' };
			const response = await fetch(this.url + path, { method, body, headers });
			const bytes = new Uint8Array(await response.arrayBuffer());
			return { status: response.status, date: new Date().toUTCString(), retryAfter: null, body: bytes };
		})();
		this.#fetching = answer.then(() => {});
		return answer;
	}

	async write(order) {
		for (const record of this.assembleRecords(this.layout, order, new Date().toISOString())) this.#waiting.push(record);
		if (this.#waiting.length >= BLOCK_ROWS) await this.#flush();
		return { refused: 0, elapsedMs: 0 };
	}

	async #flush() {
		await this.#fetching;
		const records = this.#waiting;
		this.#waiting = [];
		await this.writeBlock(this.target, records).catch(this.#became.reject);
	}

	async report({ state, lastError }) {
		if (lastError !== null) this.#became.reject(new Error(`${lastError.code}: ${lastError.message}`));
		if (state !== 'idle') return;
		await this.#flush();
		this.#became.resolve(undefined);
	}
}

/** Reads the clocks of the process, and of this worker's event loop. */
class Meter {
	#started_ms = performance.now();
	#cpu = process.cpuUsage();
	#loop = performance.eventLoopUtilization();
	#delay = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });

	constructor() {
		this.#delay.enable();
	}

	read() {
		this.#delay.disable();
		const { user, system } = process.cpuUsage(this.#cpu);
		const delay_ms = (nanoseconds) => Math.max(0, nanoseconds / 1e6 - LOOP_RESOLUTION_MS);
		return {
			elapsedMs: performance.now() - this.#started_ms,
			cpuMs: (user + system) / 1_000,
			loopBusy: performance.eventLoopUtilization(this.#loop).utilization,
			loopDelayP99Ms: delay_ms(this.#delay.percentile(99)),
			loopDelayMaxMs: delay_ms(this.#delay.max),
		};
	}
}

async function profiled(file, measure) {
	if (!file) return measure();
	const session = new Session();
	session.connect();
	await session.post('Profiler.enable');
	await session.post('Profiler.setSamplingInterval', { interval: 500 });
	await session.post('Profiler.start');
	try {
		return await measure();
	} finally {
		const { profile } = await session.post('Profiler.stop');
		session.disconnect();
		await writeFile(file, JSON.stringify(profile));
	}
}
