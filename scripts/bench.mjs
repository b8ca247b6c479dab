/** `npm run bench`: what copying a row costs. */

import path from 'node:path';
import { ensureBuilt } from './build.mjs';
import { USAGE, readOptions } from './bench/options.mjs';
import { print, runMain } from './terminal.mjs';

const DECODE_ROWS_MAX = 200_000;

async function main() {
	const options = readOptions(process.argv.slice(2));
	if (options.help) {
		print(USAGE);
		return;
	}
	await ensureBuilt();
	// What set-up needs comes with Node.js; all else is loaded once set-up has installed it.
	const report = await import('./bench/report.mjs');
	const { printDecoding, printWorkers, printIndexes } = report;
	const { parts } = options;
	/** @type {Record<string, unknown>} */
	const json = { rows: options.rows };
	if (parts.includes('decode')) {
		const { measureDecoding } = await import('./bench/decoding.mjs');
		const rows = Math.min(options.rows, DECODE_ROWS_MAX);
		Object.assign(json, printDecoding(await measureDecoding({ rows, rounds: options.rounds })));
	}
	const measuring = { ...options, profile: options.profile && path.resolve(options.profile) };
	if (parts.includes('sync') || parts.includes('delayed')) {
		const { measureEmulator, measurePrepared } = await import('./bench/syncing.mjs');
		print();
		const emulator = parts.includes('sync') ? await measureEmulator(measuring) : undefined;
		const rounds = await measurePrepared(measuring);
		if (emulator) Object.assign(json, report.printSync({ emulator, rounds }));
		if (parts.includes('delayed')) Object.assign(json, report.printDelayed(rounds));
	}
	if (parts.includes('freshness')) {
		const { measureFreshness } = await import('./bench/freshness.mjs');
		Object.assign(json, report.printFreshness(await measureFreshness()));
	}
	if (parts.includes('workers')) {
		const { measureWorkers } = await import('./bench/workers.mjs');
		Object.assign(json, printWorkers(await measureWorkers(measuring)));
	}
	if (parts.includes('indexes')) {
		const { measureIndexes } = await import('./bench/indexes.mjs');
		Object.assign(json, printIndexes(await measureIndexes(measuring)));
	}
	if (parts.includes('idle')) {
		const { measureIdling } = await import('./bench/idling.mjs');
		Object.assign(json, report.printIdling(await measureIdling(options)));
	}
	if (options.json) print(JSON.stringify(json));
}

await runMain(main);
// Whatever a failed measurement has left open must not keep the process.
process.exit();
