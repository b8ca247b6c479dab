import { parseArgs } from 'node:util';
import { ensureBuilt } from './build.mjs';
import { ensureToolchain } from './setup.mjs';
import { colour, ExpectedFailure, formatSeconds, print, printFailure } from './terminal.mjs';
import { runNativeSuite, runWasmSuite, wasmTestTargets } from './test/cargo.mjs';
import { runNodeSuite, testFiles } from './test/node.mjs';
import { addFailure, addOutcome, countTests, describeOutcome, emptyOutcome } from './test/outcome.mjs';

const HELP = `Usage: npm test -- [options]

  --only a,b        run these suites alone: native, wasm, node, bench, integration
  --filter pattern  run only the tests whose name contains the pattern
  --verbose         show everything that the tests print
  --help            show this text`;

const SUITES = [
	{ id: 'native', title: 'the core, natively', timeout_s: 1200, prepare: async () => ({}), run: runNativeSuite },
	{
		id: 'wasm',
		title: 'the boundary, as WebAssembly in Node.js',
		timeout_s: 900,
		prepare: prepareWasm,
		run: runWasmSuite,
	},
	nodeSuite('node', 'the built package', 'tests/node', { timeout_s: 600, fileTimeout_s: 300 }),
	nodeSuite('bench', 'the test bench itself', 'tests/bench-selftest', { timeout_s: 1200, fileTimeout_s: 600 }),
	nodeSuite('integration', 'against real servers', 'tests/integration', { timeout_s: 3600, fileTimeout_s: 900 }),
];

async function main() {
	const options = readOptions();
	if (!options) return;
	const total = emptyOutcome();
	const rows = [];
	try {
		const { wasmBindgen } = await ensureToolchain();
		await ensureBuilt();
		for (const suite of SUITES.filter(({ id }) => !options.only || options.only.includes(id))) {
			const row = await runSuite(suite, { ...options, wasmBindgen });
			rows.push(row);
			addOutcome(total, row.outcome);
		}
	} catch (error) {
		printFailure(error);
		addFailure(total, 'set-up', '');
	}
	if (countTests(total) === 0) {
		print(colour('red', '\nNo test ran.'));
		process.exitCode = 1;
	}
	printSummary(rows);
	print(describeOutcome(total));
	if (total.failed > 0) process.exitCode = 1;
}

async function runSuite(suite, options) {
	print(`\n${colour('bold', suite.id)}  ${suite.title}`);
	const started_ms = performance.now();
	const outcome = emptyOutcome();
	const prepared = await suite.prepare();
	if (!prepared) {
		print(colour('yellow', '  absent: it has no test files'));
		if (options.only) addFailure(outcome, suite.id, 'The suite was asked for and has no test files.');
	} else {
		addOutcome(outcome, await suite.run({ ...options, ...prepared, timeout_s: suite.timeout_s }));
		if (countTests(outcome) === 0 && !options.filter) addFailure(outcome, suite.id, 'The suite ran no test.');
	}
	printFailures(outcome);
	return { id: suite.id, outcome, absent: !prepared, duration_ms: performance.now() - started_ms };
}

async function prepareWasm() {
	const targets = await wasmTestTargets();
	return targets.length > 0 ? { targets } : undefined;
}

function nodeSuite(id, title, folder, { timeout_s, fileTimeout_s }) {
	const prepare = async () => {
		const files = await testFiles(folder);
		return files.length > 0 ? { files, fileTimeout_s } : undefined;
	};
	return { id, title, timeout_s, prepare, run: runNodeSuite };
}

function readOptions() {
	try {
		const { values } = parseArgs({
			options: {
				only: { type: 'string' },
				filter: { type: 'string' },
				verbose: { type: 'boolean', default: false },
				help: { type: 'boolean', default: false },
			},
		});
		if (values.help) {
			print(HELP);
			return undefined;
		}
		return { ...values, only: readOnly(values.only) };
	} catch (error) {
		const message = error instanceof Error ? error.message : String(error);
		printFailure(new ExpectedFailure(`${message}\n\n${HELP}`));
		process.exitCode = 2;
		return undefined;
	}
}

function readOnly(text) {
	if (text === undefined) return undefined;
	const ids = text.split(',').map((id) => id.trim());
	const unknown = ids.find((id) => !SUITES.some((suite) => suite.id === id));
	if (unknown !== undefined) throw new ExpectedFailure(`There is no suite “${unknown}”.`);
	return ids;
}

function printFailures({ failures }) {
	for (const { name, error } of failures) {
		print(`\n  ${colour('red', `✗ ${name}`)}`);
		print(
			error
				.trimEnd()
				.replace(/\n(?:[^\S\n]*\n){2,}/g, '\n\n')
				.replace(/^/gm, '    ')
		);
	}
}

function printSummary(rows) {
	print(`\n${colour('bold', `${'suite'.padEnd(14)}${['passed', 'failed', 'skipped', 'time'].map(cell).join('')}`)}`);
	for (const { id, outcome, absent, duration_ms } of rows) {
		const { passed, failed, skipped } = outcome;
		const counts = absent ? 'absent'.padStart(30) : [passed, failed, skipped].map(cell).join('');
		const text = `${id.padEnd(14)}${counts}${absent ? '' : cell(formatSeconds(duration_ms))}`;
		print(failed > 0 ? colour('red', text) : text);
	}
	print();
}

function cell(value) {
	return String(value).padStart(10);
}

await main();
