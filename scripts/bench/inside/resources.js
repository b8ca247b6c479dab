/** What the benchmark does inside Harper, on the workers that also run the component. */

import { Session } from 'node:inspector/promises';
import { writeFile } from 'node:fs/promises';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { leadCeiling, writeShare } from './ceiling.js';
import { Crew } from './crew.js';

const LOOK_EVERY_MS = 20;
/** How often the threads that do not lead learn how far the measurement is. */
const TELL_EVERY_MS = 250;
/** The histogram's delays hold this interval itself. */
const LOOP_RESOLUTION_MS = 1;

/** @type {{rows: number, result: any, error: string | undefined}} */
let current = { rows: 0, result: undefined, error: undefined };

const crew = new Crew(({ kind, state, order, from, message }) => {
	if (kind === 'state') current = state;
	if (kind === 'failed') current = { ...current, error: `worker ${from}: ${message}` };
	if (kind !== 'share') return;
	writeShare(crew, order).catch((error) => crew.tell({ kind: 'failed', message: String(error.stack ?? error) }));
});

/** POST starts a measurement, GET tells how far it is; whichever worker is asked. */
export class BenchRun extends Resource {
	get() {
		return current;
	}

	async post(body) {
		const order = JSON.parse(JSON.stringify(await body));
		lead(order).catch((error) => crew.tell({ kind: 'failed', message: String(error.stack ?? error) }));
		return {};
	}
}

async function lead(order) {
	const state = { rows: 0, result: undefined, error: undefined };
	const tell = () => crew.tell({ kind: 'state', state });
	tell();
	const timer = setInterval(tell, TELL_EVERY_MS);
	try {
		const measure = order.what === 'ceiling' ? ceiling : sync;
		state.result = await profiled(order.profile, () => measure(order, state));
	} finally {
		clearInterval(timer);
	}
	tell();
}

/** Measures what the component does from now on, until its workers have copied all rows. */
async function sync({ rows, id }, state) {
	const meter = new Meter();
	let beforeMs;
	let half;
	do {
		await sleep(LOOK_EVERY_MS);
		const { ingested, workers } = await progressOf(id);
		state.rows = ingested;
		if (workers === crew.count) beforeMs ??= meter.elapsedMs();
		if (ingested >= rows / 2) half ??= { rows: ingested, cpuMs: meter.cpuMs() };
	} while (state.rows < rows);
	if (state.rows > rows) throw new Error(`${state.rows} rows were written instead of ${rows}`);
	const all = meter.read();
	// Threads that are new compile first what they run, each for itself.
	const warm = { rows: rows - half.rows, cpuMs: all.cpuMs - half.cpuMs };
	return { ...all, beforeMs, warm, transactionRows: Math.round(rows / (await commitsOf(id))) };
}

/** Commits of rows, of all workers. */
async function commitsOf(id) {
	const owners = new Set();
	for await (const checkpoint of tables.SyncCheckpoint.search({ conditions: [{ attribute: 'tableId', value: id }] })) {
		owners.add(checkpoint.owner);
	}
	let commits = 0;
	for (const owner of owners) commits += (await tables.SyncBatch.get(`${id}:${owner}`))?.number ?? 0;
	return commits;
}

/** Rows that were copied, and the workers that have copied any. */
async function progressOf(id) {
	let ingested = 0;
	const owners = new Set();
	for await (const checkpoint of tables.SyncCheckpoint.search({ conditions: [{ attribute: 'tableId', value: id }] })) {
		ingested += checkpoint.recordsIngested;
		if (checkpoint.recordsIngested > 0) owners.add(checkpoint.owner);
	}
	return { ingested, workers: owners.size };
}

/** Measures bare loops on all threads, for the same rows. */
async function ceiling(order, state) {
	const meter = new Meter();
	const leading = leadCeiling(crew, order.rows, (rows) => {
		state.rows += rows;
	});
	crew.tell({ kind: 'share', order });
	const { sizes, warm } = await leading;
	if (order.rows !== null && state.rows !== order.rows) {
		throw new Error(`the ceiling's loop wrote ${state.rows} of ${order.rows} rows`);
	}
	return { ...meter.read(), sizes, warm };
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

	elapsedMs() {
		return performance.now() - this.#started_ms;
	}

	/** Of the whole process, all its threads. */
	cpuMs() {
		const { user, system } = process.cpuUsage(this.#cpu);
		return (user + system) / 1_000;
	}

	read() {
		this.#delay.disable();
		const delay_ms = (nanoseconds) => Math.max(0, nanoseconds / 1e6 - LOOP_RESOLUTION_MS);
		return {
			elapsedMs: this.elapsedMs(),
			cpuMs: this.cpuMs(),
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
