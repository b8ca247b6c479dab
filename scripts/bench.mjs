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
	const { printDecoding, printSync } = await import('./bench/report.mjs');
	/** @type {Record<string, unknown>} */
	const json = { rows: options.rows };
	if (options.parts.includes('decode')) {
		const { measureDecoding } = await import('./bench/decoding.mjs');
		const rows = Math.min(options.rows, DECODE_ROWS_MAX);
		Object.assign(json, printDecoding(await measureDecoding({ rows, rounds: options.rounds })));
	}
	if (options.parts.includes('sync')) {
		const { measureSync } = await import('./bench/syncing.mjs');
		const profile = options.profile && path.resolve(options.profile);
		Object.assign(json, printSync(await measureSync({ ...options, profile })));
	}
	if (options.json) print(JSON.stringify(json));
}

await runMain(main);
// Whatever a failed measurement has left open must not keep the process.
process.exit();
