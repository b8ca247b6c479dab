import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../process.mjs';
import { addFailure, countTests, emptyOutcome } from './outcome.mjs';

const REPORTER = fileURLToPath(new URL('reporter.mjs', import.meta.url));
const CHOOSE = new URL('names/choose.mjs', import.meta.url).href;
const OUTPUT_LINES_MAX = 40;

/**
 * Runs a test file in a process of its own.
 *
 * @param {string} file
 * @param {import('./suites.mjs').RunOptions & {timeout_s: number}} options
 */
export async function runTestFile(file, { tests, filter, verbose, timeout_s, env }) {
	const folder = await mkdtemp(join(tmpdir(), 'bigquery-sync-test-'));
	const report = join(folder, 'report');
	const args = [`--test-reporter=${REPORTER}`, `--test-reporter-destination=${report}`];
	if (verbose) args.push('--test-reporter=spec', '--test-reporter-destination=stdout');
	if (filter) args.push(`--import=${CHOOSE}`);
	// A test of node's may have started this program; the file must not believe that it is part of it.
	const environment = { ...env, CHOSEN_TESTS: JSON.stringify(tests), NODE_TEST_CONTEXT: undefined };
	try {
		const result = await run(process.execPath, [...args, file], {
			env: environment,
			timeout_s,
			echo: verbose,
			endGroup: true,
		});
		const { outcome, unfinished, diagnostics } = readReport(await readFile(report, 'utf8').catch(() => ''));
		judgeEnd(file, outcome, { result, unfinished, diagnostics, tests, timeout_s });
		return outcome;
	} finally {
		await rm(folder, { recursive: true, force: true });
	}
}

function readReport(text) {
	const outcome = emptyOutcome();
	const unfinished = new Set();
	const diagnostics = [];
	const complete = text.slice(0, text.lastIndexOf('\n') + 1);
	for (const row of complete.split('\n').filter(Boolean)) {
		const { started, diagnostic, name, result, error } = JSON.parse(row);
		if (diagnostic) diagnostics.push(diagnostic);
		if (started) unfinished.add(started);
		if (!name) continue;
		unfinished.delete(name);
		if (result === 'failed') addFailure(outcome, name, error);
		else if (result !== 'container') outcome[result] += 1;
	}
	return { outcome, unfinished: [...unfinished].pop(), diagnostics };
}

/** Notices what the tests themselves cannot report: a time-out, a crash, a file without tests. */
function judgeEnd(file, outcome, { result, unfinished, diagnostics, tests, timeout_s }) {
	const lines = result.output.trimEnd().split('\n').slice(-OUTPUT_LINES_MAX);
	const output = [...diagnostics, ...lines].join('\n');
	if (result.timedOut) {
		const where = unfinished ? `, during “${unfinished}”` : '';
		addFailure(outcome, file, `The file did not end within ${timeout_s} s${where}.\n${output}`);
	} else if (result.code !== 0 && outcome.failed === 0) {
		addFailure(outcome, file, `The file ended with exit code ${result.code}.\n${output}`);
	} else if (countTests(outcome) === 0) {
		addFailure(outcome, file, 'The file contains no tests.');
	} else if (outcome.failed === 0 && countTests(outcome) < tests.length) {
		addFailure(outcome, file, `Of ${tests.length} tests, ${countTests(outcome)} ran.\n${output}`);
	}
}
