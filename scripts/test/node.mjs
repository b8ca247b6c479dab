import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { repository, run } from '../process.mjs';
import { busy } from '../terminal.mjs';
import { fileLine } from './line.mjs';
import { addFailure, addOutcome, countTests, emptyOutcome } from './outcome.mjs';

const REPORTER = fileURLToPath(new URL('reporter.mjs', import.meta.url));
/** Several Harper nodes, or figures that another load would change. */
const DEMANDING = /(cluster|harper|memory|replication)[^/]*$/;
const OUTPUT_LINES_MAX = 40;

/**
 * The test files of a folder, in the order in which they run.
 *
 * @param {string} folder relative to the repository
 */
export async function testFiles(folder) {
	const names = await readdir(join(repository, folder)).catch(() => []);
	return names
		.filter((name) => name.endsWith('.test.mjs'))
		.sort()
		.map((name) => `${folder}/${name}`);
}

/**
 * Runs test files, each in a process of its own: first two at a time, for most of them wait as much as they work; then
 * one by one those that keep the machine busy by themselves, or measure it.
 *
 * @param {import('./cargo.mjs').SuiteOptions & {files: string[], fileTimeout_s: number}} options
 */
export async function runNodeSuite({ files, filter, verbose, timeout_s, fileTimeout_s }) {
	const total = emptyOutcome();
	const deadline_ms = performance.now() + timeout_s * 1000;
	const runNext = async (/** @type {string[]} */ queue) => {
		for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
			const name = file;
			const left_s = Math.max(1, Math.ceil((deadline_ms - performance.now()) / 1000));
			const options = { filter, verbose, timeout_s: Math.min(left_s, fileTimeout_s) };
			const started_ms = performance.now();
			const outcome = await busy(name, () => runFile(name, options));
			addOutcome(total, outcome);
			if (countTests(outcome) > 0) fileLine(name, outcome, started_ms);
		}
	};
	const shared = files.filter((file) => !DEMANDING.test(file));
	await Promise.all([runNext(shared), runNext(shared)]);
	await runNext(files.filter((file) => DEMANDING.test(file)));
	return total;
}

async function runFile(file, { filter, verbose, timeout_s }) {
	const folder = await mkdtemp(join(tmpdir(), 'bigquery-sync-test-'));
	const report = join(folder, 'report');
	const args = [`--test-reporter=${REPORTER}`, `--test-reporter-destination=${report}`];
	if (verbose) args.push('--test-reporter=spec', '--test-reporter-destination=stdout');
	if (filter) args.push(`--test-name-pattern=${filter}`);
	try {
		const result = await run(process.execPath, [...args, file], { timeout_s, echo: verbose, endGroup: true });
		const { outcome, unfinished, diagnostics } = readReport(await readFile(report, 'utf8').catch(() => ''));
		judgeEnd(file, outcome, { result, unfinished, diagnostics, filter, timeout_s });
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
function judgeEnd(file, outcome, { result, unfinished, diagnostics, filter, timeout_s }) {
	const lines = result.output.trimEnd().split('\n').slice(-OUTPUT_LINES_MAX);
	const output = [...diagnostics, ...lines].join('\n');
	if (result.timedOut) {
		const where = unfinished ? `, during “${unfinished}”` : '';
		addFailure(outcome, file, `The file did not end within ${timeout_s} s${where}.\n${output}`);
	} else if (result.code !== 0 && outcome.failed === 0) {
		addFailure(outcome, file, `The file ended with exit code ${result.code}.\n${output}`);
	} else if (countTests(outcome) === 0 && !filter) {
		addFailure(outcome, file, 'The file contains no tests.');
	}
}
