/** `npm run demo`: sets everything up, and shows a BigQuery table being kept equal in Harper. */

import { printHelp, printUsageError, UsageError, parseOptions } from './demo/options.mjs';
import { chooseSource } from './demo/choice.mjs';
import { explain } from './demo/failure.mjs';
import { colour, print, printFailure } from './terminal.mjs';

const TERMS = 'https://harperdb.io/legal/end-user-license-agreement';

async function main() {
	const options = parseOptions(process.argv.slice(2));
	if (options.help) return printHelp();
	const started_ms = performance.now();
	try {
		const choice = await chooseSource(options);
		await announce(choice);
		// What set-up needs comes with Node.js; all else is loaded once set-up has installed it.
		const { ensureBuilt } = await import('./build.mjs');
		const { ensureServers, together } = await import('./setup.mjs');
		await together([ensureBuilt(), ensureServers({ emulator: choice.kind === 'own' })]);
		const { runDemo } = await import('./demo/run.mjs');
		return await runDemo(options, choice);
	} catch (error) {
		const failure = explain(error);
		printFailure(failure);
		if (options.once) {
			const seconds = Math.round((performance.now() - started_ms) / 100) / 10;
			const unknown = { missing: null, duplicate: null, phantom: null, different: null };
			print(JSON.stringify({ rows: null, ...unknown, seconds, error: failure.code, message: failure.message }));
		}
		return 1;
	}
}

async function announce(choice) {
	const { readRepositoryFile } = await import('./setup.mjs');
	const { harperdb } = JSON.parse(await readRepositoryFile('package.json')).devDependencies;
	print(colour('bold', 'bigquery-sync: a BigQuery table, kept equal in Harper'));
	print(`  This installs and starts Harper (npm package harperdb ${harperdb}), which has its`);
	print(`  own licence terms: ${TERMS}`);
	print('  (and node_modules/harperdb/LICENSE, once it is installed).');
	print();
	for (const line of choice.notice) print(`  ${colour('yellow', line)}`);
	if (choice.notice.length > 0) print();
}

async function start() {
	try {
		return await main();
	} catch (error) {
		if (!(error instanceof UsageError)) throw error;
		printUsageError(error);
		return 2;
	}
}

// Whatever an ended demo has left open must not keep the process.
process.exit(await start());
