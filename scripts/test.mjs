import { parseArgs } from 'node:util';
import { ensureBuilt } from './build.mjs';
import { ensureServers, together } from './setup.mjs';
import { colour, ExpectedFailure, formatSeconds, print, printFailure } from './terminal.mjs';
import { fileLine } from './test/line.mjs';
import { addFailure, addOutcome, describeOutcome, emptyOutcome } from './test/outcome.mjs';
import { runJobs } from './test/schedule.mjs';
import { chosenJobs, SUITES, testEnvironment } from './test/suites.mjs';

const HELP = `Usage: npm test -- [options]

  --quick           run what is worth running often: fewer simulated worlds, few integration tests
  --soak            run with many rows and worlds, for an hour or two; the same as npm run test:soak
  --only a,b        run these suites alone: native, wasm, node, bench, integration
  --filter text     run only the tests whose name contains the text
  --verbose         show everything that the tests print
  --help            show this text`;

const SERVER_SUITES = ['bench', 'integration'];

async function main() {
	const options = readOptions();
	if (!options) return;
	const started_ms = performance.now();
	const total = emptyOutcome();
	const suites = new Map();
	try {
		if (options.filter) await matchingJobs(options);
		const { wasmBindgen } = await setUp(options);
		const jobs = await matchingJobs(options);
		const { filter, verbose } = options;
		const env = testEnvironment(options);
		print();
		await runJobs(jobs, async (job, environment) => {
			const row = suites.get(job.suite) ?? { outcome: emptyOutcome(), duration_ms: 0 };
			suites.set(job.suite, row);
			const jobStarted_ms = performance.now();
			const outcome = await job.run({
				filter,
				verbose,
				wasmBindgen,
				env: { ...env, ...environment },
				tests: job.tests ?? [],
			});
			if (job.lane !== 'cargo') fileLine(job.name, outcome, jobStarted_ms);
			row.duration_ms += performance.now() - jobStarted_ms;
			addOutcome(row.outcome, outcome);
		});
	} catch (error) {
		printFailure(error);
		addFailure(total, 'set-up', '');
	}
	for (const { outcome } of suites.values()) addOutcome(total, outcome);
	if (suites.size > 0) {
		printFailures(total);
		printSummary(suites, performance.now() - started_ms);
	}
	print(describeOutcome(total));
	if (total.failed > 0) process.exitCode = 1;
}

async function setUp({ only }) {
	const needsServers = !only || only.some((id) => SERVER_SUITES.includes(id));
	const emulator = !process.env.BIGQUERY_EMULATOR_HOST;
	const built = ensureBuilt();
	await together([built, needsServers ? ensureServers({ emulator }) : undefined]);
	return built;
}

/**
 * The jobs that have a wanted test, or may have one; none at all is an error.
 *
 * @param {{filter?: string, only?: string[], quick?: boolean}} options
 */
async function matchingJobs({ filter, ...options }) {
	const jobs = await chosenJobs(options);
	if (filter === undefined) return jobs;
	const narrowed = jobs.map((job) => ({
		...job,
		tests: job.tests && job.tests.filter((name) => name.includes(filter)),
	}));
	const matching = narrowed.filter(({ tests }) => tests === null || tests.length > 0);
	if (matching.length > 0) return matching;
	const where = options.only || options.quick ? ' among those that are asked for' : '';
	throw new ExpectedFailure(`There is no test${where} whose name contains “${filter}”.`);
}

function readOptions() {
	try {
		const { values } = parseArgs({
			options: {
				quick: { type: 'boolean', default: false },
				soak: { type: 'boolean', default: false },
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
		if (values.quick && values.soak) throw new Error('--quick and --soak exclude each other.');
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
	for (const { name, error } of failures.filter((one) => one.error)) {
		print(`\n  ${colour('red', `✗ ${name}`)}`);
		print(
			error
				.trimEnd()
				.replace(/\n(?:[^\S\n]*\n){2,}/g, '\n\n')
				.replace(/^/gm, '    ')
		);
	}
}

/** Files run side by side, so that the suites' times add up to more than the whole. */
function printSummary(suites, duration_ms) {
	const heading = `${'suite'.padEnd(14)}${['passed', 'failed', 'skipped', 'time'].map(cell).join('')}`;
	print(`\n${colour('bold', heading)}`);
	for (const { id } of SUITES.filter((suite) => suites.has(suite.id))) {
		const { outcome, duration_ms: suite_ms } = suites.get(id);
		const counts = [outcome.passed, outcome.failed, outcome.skipped].map(cell).join('');
		const text = `${id.padEnd(14)}${counts}${cell(formatSeconds(suite_ms))}`;
		print(outcome.failed > 0 ? colour('red', text) : text);
	}
	print(`${'all, at once'.padEnd(44)}${cell(formatSeconds(duration_ms))}\n`);
}

function cell(value) {
	return String(value).padStart(10);
}

await main();
