import { print } from '../terminal.mjs';
import { PAGE_ROWS } from './decoding.mjs';
import { IDLE_TABLES, IDLE_THREADS } from './idling.mjs';
import { median } from './median.mjs';

/** Below this part of what prepared pages allow, the emulator is what the sync waits for. */
const EMULATOR_LIMITS_BELOW = 0.95;

const count = (number) => Math.round(number).toLocaleString('en');
const rounded = (number) => (number === null ? null : Math.round(number * 1_000) / 1_000);

/**
 * @param {Record<string, number>} times
 * @returns {Record<string, number | null>} For the line of JSON.
 */
export function printDecoding({ wasm, wasmKeyed, js, jsKeyed }) {
	const line = (what, core, plain) => {
		print(`  ${what.padEnd(22)}${cell(core)}    ${cell(plain)}                ${(core / plain).toFixed(2)}`);
	};
	print();
	print(`Decoding pages of ${count(PAGE_ROWS)} rows with 10 columns to records, µs per row (medians):`);
	print();
	print('                            core    plain JavaScript    ratio');
	line('id from the content', wasm, js);
	line('id from a key', wasmKeyed, jsKeyed);
	print();
	return {
		decode_us_per_row_wasm: rounded(wasm),
		decode_us_per_row_js: rounded(js),
		decode_keyed_us_per_row_wasm: rounded(wasmKeyed),
		decode_keyed_us_per_row_js: rounded(jsKeyed),
	};
}

function cell(value) {
	return value.toFixed(2).padStart(6);
}

/**
 * @param {{emulator: import('./syncing.mjs').Measured, rounds: any[]}} measured Rounds with the bare loop.
 * @returns {Record<string, unknown>} For the line of JSON.
 */
export function printSync({ emulator, rounds }) {
	const alike = rounds.map(({ sync, ceiling }) => ({ sync, ceiling: alikeOf(sync, ceiling) }));
	const of = (what, read) => median(rounds.map((round) => read(round[what])));
	const prepared_rows_per_s = of('sync', (run) => run.rowsPerS);
	const ceiling_rows_per_s = of('ceiling', (run) => run.rowsPerS);
	const prepared_to_ceiling = median(rounds.map(({ sync, ceiling }) => sync.rowsPerS / ceiling.rowsPerS));
	const limited_by = emulator.rowsPerS < EMULATOR_LIMITS_BELOW * prepared_rows_per_s ? 'emulator' : 'harper';
	const figures = {
		sync_rows_per_s: emulator.rowsPerS,
		sync_cpu_us_per_row: emulator.cpuUsPerRow,
		prepared_rows_per_s,
		prepared_cpu_us_per_row: of('sync', (run) => run.cpuUsPerRow),
		ceiling_rows_per_s,
		ceiling_cpu_us_per_row: of('ceiling', (run) => run.cpuUsPerRow),
		ceiling_transaction_rows: of('ceiling', (run) => run.transactionRows),
		prepared_transaction_rows: of('sync', (run) => run.transactionRows),
		sync_to_ceiling: emulator.rowsPerS / ceiling_rows_per_s,
		prepared_to_ceiling,
		prepared_to_ceiling_cpu: median(rounds.map(({ sync, ceiling }) => ceiling.cpuUsPerRow / sync.cpuUsPerRow)),
		prepared_to_ceiling_at_its_size: median(alike.map(({ sync, ceiling }) => sync.rowsPerS / ceiling.rowsPerS)),
		prepared_to_ceiling_cpu_at_its_size: median(
			alike.map(({ sync, ceiling }) => ceiling.cpuUsPerRow / sync.cpuUsPerRow)
		),
		own_cpu_us_per_row: median(alike.map(({ sync, ceiling }) => sync.cpuUsPerRow - ceiling.cpuUsPerRow)),
		peak_rss_growth_mb: largest([emulator, ...rounds.map(({ sync }) => sync)], ({ memory }) => memory.rss_mb),
		peak_anonymous_growth_mb: largest(
			[emulator, ...rounds.map(({ sync }) => sync)],
			({ memory }) => memory.anonymous_mb
		),
		...latency('', (read) => of('sync', read)),
		...latency('emulator_', (read) => read(emulator)),
		...latency('ceiling_', (read) => of('ceiling', read)),
	};
	const json = Object.fromEntries(Object.entries(figures).map(([name, value]) => [name, rounded(value)]));
	printFigures(json, limited_by);
	return { ...json, limited_by, ceiling_sizes: sizesOf(rounds) };
}

/** The bare loop by the size of its transactions. */
function sizesOf(rounds) {
	const sizes = rounds.map(({ ceiling }) => ceiling.sizes);
	return sizes[0].map(({ transactionRows }) => {
		const of = (read) =>
			rounded(median(sizes.map((some) => read(some.find((size) => size.transactionRows === transactionRows)))));
		return {
			transaction_rows: transactionRows,
			rows_per_s: of(({ rowsPerS }) => rowsPerS),
			cpu_us_per_row: of(({ cpuUsPerRow }) => cpuUsPerRow),
		};
	});
}

/** The bare loop with transactions that are about as large as those of the sync. */
function alikeOf({ transactionRows }, { sizes }) {
	const distance = (size) => Math.abs(Math.log(size.transactionRows / transactionRows));
	return sizes.reduce((best, size) => (distance(size) < distance(best) ? size : best));
}

/**
 * @param {any[]} rounds Those with delays.
 * @returns {Record<string, unknown>} For the line of JSON.
 */
export function printDelayed(rounds) {
	/** @returns {any} */
	const of = (read) => rounded(median(rounds.map(read)));
	const json = {
		delayed_to_undelayed: of(
			({ sync, delayed }) => (sync.elapsedMs - sync.beforeMs) / (delayed.elapsedMs - delayed.beforeMs)
		),
		delayed_to_undelayed_with_start: of(({ sync, delayed }) => delayed.rowsPerS / sync.rowsPerS),
		delayed_start_ms: of(({ delayed }) => delayed.beforeMs),
		undelayed_start_ms: of(({ sync }) => sync.beforeMs),
		delayed_peak_anonymous_growth_mb: largest(
			rounds.map(({ delayed }) => delayed),
			({ memory }) => memory.anonymous_mb
		),
	};
	print();
	print('The same through a slow network: a page after 0.3 s, a query after 1 s, 100 MB/s (medians):');
	print();
	printRow('until the first rows are there, s', (json.delayed_start_ms / 1_000).toFixed(1));
	printRow('  without delay', (json.undelayed_start_ms / 1_000).toFixed(1));
	printRow('rows/s from then on, of those without delay', percent(json.delayed_to_undelayed));
	printRow('  with the start', percent(json.delayed_to_undelayed_with_start));
	print();
	return json;
}

/**
 * @param {{pollMs: number, p50_ms: number, p99_ms: number, max_ms: number}} measured
 * @returns {Record<string, unknown>} For the line of JSON.
 */
export function printFreshness({ pollMs, p50_ms, p99_ms, max_ms }) {
	print();
	print(
		`From a row's appearance in BigQuery to Harper, with a load every second and a poll every ${pollMs / 1_000} s:`
	);
	print();
	printRow('s: p50', (p50_ms / 1_000).toFixed(2));
	printRow('  p99', (p99_ms / 1_000).toFixed(2));
	print();
	return {
		freshness_poll_ms: pollMs,
		freshness_p50_ms: rounded(p50_ms),
		freshness_p99_ms: rounded(p99_ms),
		freshness_max_ms: rounded(max_ms),
	};
}

function latency(prefix, of) {
	return {
		[`${prefix}get_p50_ms`]: of((run) => run.get.p50_ms),
		[`${prefix}get_p99_ms`]: of((run) => run.get.p99_ms),
		[`${prefix}get_max_ms`]: of((run) => run.get.max_ms),
		[`${prefix}loop_delay_p99_ms`]: of((run) => run.loopDelayP99Ms),
		[`${prefix}loop_delay_max_ms`]: of((run) => run.loopDelayMaxMs),
		[`${prefix}machine_delay_p99_ms`]: of((run) => run.machine.p99_ms),
		[`${prefix}machine_delay_max_ms`]: of((run) => run.machine.max_ms),
	};
}

function largest(runs, read) {
	const values = runs.map(read);
	return values.includes(null) ? null : Math.max(...values);
}

/**
 * @param {import('./workers.mjs').WorkersRound[][]} rounds
 * @returns {Record<string, unknown>} For the line of JSON.
 */
export function printWorkers(rounds) {
	const workers = rounds[0].map(({ threads }, at) => {
		const of = (read) => rounded(median(rounds.map((round) => read(round[at], round[0]))));
		return {
			threads,
			rows_per_s: of(({ sync }) => sync.rowsPerS),
			ceiling_rows_per_s: of(({ ceiling }) => ceiling.rowsPerS),
			sync_to_ceiling: of(({ sync, ceiling }) => sync.rowsPerS / ceiling.rowsPerS),
			rows_per_s_growth: of(({ sync }, one) => sync.rowsPerS / one.sync.rowsPerS - 1),
			ceiling_rows_per_s_growth: of(({ ceiling }, one) => ceiling.rowsPerS / one.ceiling.rowsPerS - 1),
			cpu_us_per_row: of(({ sync }) => sync.cpuUsPerRow),
			cpu_growth: of(({ sync }, one) => sync.cpuUsPerRow / one.sync.cpuUsPerRow - 1),
			warm_cpu_us_per_row: of(({ sync }) => sync.warmCpuUsPerRow),
			warm_cpu_growth: of(({ sync }, one) => sync.warmCpuUsPerRow / one.sync.warmCpuUsPerRow - 1),
			ceiling_warm_cpu_us_per_row: of(({ ceiling }) => ceiling.warmCpuUsPerRow),
			ceiling_warm_cpu_growth: of(({ ceiling }, one) => ceiling.warmCpuUsPerRow / one.ceiling.warmCpuUsPerRow - 1),
			own_warm_cpu_us_per_row: of(({ sync, ceiling }) => sync.warmCpuUsPerRow - ceiling.warmCpuUsPerRow),
			bill: of(({ bill }, one) => bill.readingBytes / one.bill.readingBytes),
			counting_bill: of(({ bill }, one) => bill.countingBytes / one.bill.readingBytes),
			before_all_write_ms: of(({ sync }) => sync.beforeMs ?? NaN),
			get_p99_ms: of(({ sync }) => sync.get.p99_ms),
		};
	});
	const row = (name, write) => printRow(name, ...workers.map(write));
	print();
	print('Copying rows of 10 columns, divided by day among the worker threads of one Harper (medians):');
	print();
	row('worker threads', ({ threads }) => threads);
	row('rows/s', ({ rows_per_s }) => count(rows_per_s));
	row('  against one', ({ rows_per_s_growth }) => change(rows_per_s_growth));
	row('  of as many bare loops', ({ sync_to_ceiling }) => percent(sync_to_ceiling));
	row('rows/s of the bare loops', ({ ceiling_rows_per_s }) => count(ceiling_rows_per_s));
	row('  against one', ({ ceiling_rows_per_s_growth }) => change(ceiling_rows_per_s_growth));
	row('CPU of Harper’s process, µs per row', ({ cpu_us_per_row }) => cpu_us_per_row.toFixed(1));
	row('  against one', ({ cpu_growth }) => change(cpu_growth));
	row('same of the second half of the rows', ({ warm_cpu_us_per_row }) => warm_cpu_us_per_row.toFixed(1));
	row('  against one', ({ warm_cpu_growth }) => change(warm_cpu_growth));
	row('same of the bare loops', ({ ceiling_warm_cpu_us_per_row }) => ceiling_warm_cpu_us_per_row.toFixed(1));
	row('  against one', ({ ceiling_warm_cpu_growth }) => change(ceiling_warm_cpu_growth));
	row('difference: the component’s own', ({ own_warm_cpu_us_per_row }) => own_warm_cpu_us_per_row.toFixed(1));
	row('bytes billed for reading, against one', ({ bill }) => bill.toFixed(3));
	row('  for counting once, of these', ({ counting_bill }) => counting_bill.toFixed(3));
	row('until all workers write, s', ({ before_all_write_ms }) => (before_all_write_ms / 1_000).toFixed(1));
	row('an unrelated GET, ms: p99', ({ get_p99_ms }) => get_p99_ms.toFixed(1));
	print();
	print('  Rows/s include the time from the command to start until all workers write. Against one: within a round.');
	print('  The second half of the rows is shown because each new thread first spends CPU on compiling its code.');
	print();
	return { workers };
}

/**
 * @param {import('./indexes.mjs').IndexesRound[][]} rounds
 * @returns {Record<string, unknown>} For the line of JSON.
 */
export function printIndexes(rounds) {
	const indexes = rounds[0].map(({ indexes: number }, at) => {
		const of = (read) => rounded(median(rounds.map((round) => read(round[at], round[0]))));
		return {
			indexes: number,
			cpu_us_per_row: of(({ sync }) => sync.cpuUsPerRow),
			cpu_growth: of(({ sync }, none) => sync.cpuUsPerRow / none.sync.cpuUsPerRow - 1),
			ceiling_cpu_us_per_row: of(({ ceiling }) => ceiling.cpuUsPerRow),
			ceiling_cpu_growth: of(({ ceiling }, none) => ceiling.cpuUsPerRow / none.ceiling.cpuUsPerRow - 1),
			own_cpu_us_per_row: of(({ sync, ceiling }) => sync.cpuUsPerRow - ceiling.cpuUsPerRow),
			sync_to_ceiling: of(({ sync, ceiling }) => sync.rowsPerS / ceiling.rowsPerS),
			rows_per_s_growth: of(({ sync }, none) => sync.rowsPerS / none.sync.rowsPerS - 1),
		};
	});
	const row = (name, write) => printRow(name, ...indexes.map(write));
	print();
	print('Copying rows of 10 columns with one worker thread into tables with indexes (medians):');
	print();
	row('indexed attributes', ({ indexes: number }) => number);
	row('CPU of Harper’s process, µs per row', ({ cpu_us_per_row }) => cpu_us_per_row.toFixed(1));
	row('  against none', ({ cpu_growth }) => change(cpu_growth));
	row('same of the bare loop', ({ ceiling_cpu_us_per_row }) => ceiling_cpu_us_per_row.toFixed(1));
	row('  against none', ({ ceiling_cpu_growth }) => change(ceiling_cpu_growth));
	row('difference: the component’s own', ({ own_cpu_us_per_row }) => own_cpu_us_per_row.toFixed(1));
	row('rows/s of the sync, of the bare loop', ({ sync_to_ceiling }) => percent(sync_to_ceiling));
	row('rows/s of the sync, against none', ({ rows_per_s_growth }) => change(rows_per_s_growth));
	print();
	return { indexes };
}

/**
 * @param {import('./idling.mjs').Idling} measured
 * @returns {Record<string, unknown>} For the line of JSON: shares of one core.
 */
export function printIdling({ seconds, whole, bare }) {
	const row = (name, share) => printRow(name, `${(share * 100).toFixed(2)} %`);
	const share = (value) => Math.round(value * 100_000) / 100_000;
	print();
	print(
		`CPU of an idle node with ${IDLE_TABLES} tables and ${IDLE_THREADS} worker threads, of one core, over ${seconds} s:`
	);
	print();
	row('Harper with the component', whole);
	row('Harper alone, at the same time', bare);
	row('difference: the component’s own', whole - bare);
	print();
	return { idle_cpu_share: share(whole - bare), idle_whole_cpu_share: share(whole), idle_bare_cpu_share: share(bare) };
}

function printRow(name, ...cells) {
	print(`  ${name.padEnd(42)}${cells.map((text) => String(text).padStart(12)).join('')}`);
}

function percent(ratio) {
	return `${Math.round(ratio * 100)} %`;
}

function change(growth) {
	return `${growth < 0 ? '−' : '+'}${Math.abs(growth * 100).toFixed(1)} %`;
}

function printFigures(json, limited_by) {
	const row = printRow;
	const ms = (name) => ['emulator_', '', 'ceiling_'].map((prefix) => json[`${prefix}${name}_ms`].toFixed(1));
	print();
	print('Copying rows of 10 columns into Harper with one worker thread (medians):');
	print();
	row('', 'emulator', 'prepared', 'bare loop');
	row('rows/s', count(json.sync_rows_per_s), count(json.prepared_rows_per_s), count(json.ceiling_rows_per_s));
	row('  of the bare loop', percent(json.sync_to_ceiling), percent(json.prepared_to_ceiling), '');
	row('  of one with transactions as large', '', percent(json.prepared_to_ceiling_at_its_size), '');
	row('rows per transaction', '', count(json.prepared_transaction_rows), count(json.ceiling_transaction_rows));
	const cpu = [json.sync_cpu_us_per_row, json.prepared_cpu_us_per_row, json.ceiling_cpu_us_per_row];
	row('CPU of Harper’s process, µs per row', ...cpu.map((value) => value.toFixed(1)));
	row('  the bare loop’s, of it', '', percent(json.prepared_to_ceiling_cpu), '');
	row('  of one with transactions as large', '', percent(json.prepared_to_ceiling_cpu_at_its_size), '');
	row('difference to that: the component’s own', '', json.own_cpu_us_per_row.toFixed(1), '');
	row('an unrelated GET, ms: p50', ...ms('get_p50'));
	row('  p99', ...ms('get_p99'));
	row('  longest', ...ms('get_max'));
	row('turn of the event loop, ms: p99', ...ms('loop_delay_p99'));
	row('  longest', ...ms('loop_delay_max'));
	row('same, of an idle process beside it: p99', ...ms('machine_delay_p99'));
	row('  longest', ...ms('machine_delay_max'));
	print();
	if (json.peak_rss_growth_mb !== null) {
		const [all, own] = [json.peak_rss_growth_mb, json.peak_anonymous_growth_mb].map(count);
		print(`  Memory of Harper's process grew by ${own} MB at most, and by ${all} MB with the part of`);
		print('  the database file that is mapped.');
	}
	print(`  The sync is limited by ${limited_by === 'emulator' ? 'the emulator' : 'Harper and the component'}.`);
	print('  Prepared: the same rows from a server with prepared pages, so that no emulator shares the machine.');
	print(
		`  Bare loop: the same records with the same ids, put in transactions of ${json.ceiling_transaction_rows} rows (the fastest size),`
	);
	print('  in the same Harper, after the sync. The time to make the records does not count.');
	print();
}
