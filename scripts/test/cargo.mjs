import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { repository, run } from '../process.mjs';
import { busy } from '../terminal.mjs';
import { compiledLine, fileLine } from './line.mjs';
import { addFailure, addOutcome, countTests, emptyOutcome } from './outcome.mjs';

const ERROR_LINES_MAX = 60;

/** Where a panic went through code that is not ours. */
const FOREIGN_FRAME = /^\s+at .*(?:wasm:\/\/|wasm-bindgen-test\.js)/;

const TIMEOUT_S = 3_600;

const NATIVE = ['test', '--no-fail-fast'];
/** There are few wasm tests: compiling for speed takes longer than running without it. */
const PLAIN = ['--config', 'profile.test.package.bigquery-sync.opt-level=0'];
const WASM = ['test', '--no-fail-fast', '--target', 'wasm32-unknown-unknown', ...PLAIN];

/** @typedef {import('./suites.mjs').RunOptions} RunOptions */

/**
 * Runs the native Rust tests: units, integration tests, examples in the documentation.
 *
 * @param {RunOptions} options
 */
export function runNativeTests(options) {
	return runCargo(NATIVE, {}, options);
}

/** Compiles them, and leaves it to the run to tell of a failure. */
export async function compileNativeTests() {
	await compile(NATIVE);
}

/**
 * Runs the tests of the wasm boundary in Node.js.
 *
 * @param {RunOptions & {targets: string[]}} options targets: as `wasmTestTargets` returns them
 */
export function runWasmTests(options) {
	const environment = {
		CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER: join(options.wasmBindgen, 'wasm-bindgen-test-runner'),
		WASM_BINDGEN_TEST_TIMEOUT: String(TIMEOUT_S),
	};
	return runCargo([...WASM, ...options.targets], environment, options);
}

/**
 * Compiles them, and leaves it to the run to tell of a failure.
 *
 * @param {string[]} targets as `wasmTestTargets` returns them
 */
export async function compileWasmTests(targets) {
	await compile([...WASM, ...targets]);
}

/** The cargo arguments that name all wasm tests, empty when there are none: `tests/wasm*.rs`, and the crate's own. */
export async function wasmTestTargets() {
	const names = await readdir(join(repository, 'tests')).catch(() => []);
	const files = names.filter((name) => /^wasm.*\.rs$/.test(name)).sort();
	const targets = files.flatMap((name) => ['--test', name.replace('.rs', '')]);
	if (await sourceHasWasmTests()) targets.unshift('--lib');
	return targets;
}

async function sourceHasWasmTests() {
	const folder = join(repository, 'src');
	const names = await readdir(folder, { recursive: true }).catch(() => []);
	for (const name of names.filter((name) => name.endsWith('.rs'))) {
		if ((await readFile(join(folder, name), 'utf8')).includes('#[wasm_bindgen_test')) return true;
	}
	return false;
}

/**
 * @param {string[]} args
 * @param {Record<string, string>} env
 * @param {RunOptions} options
 */
async function runCargo(args, env, { filter, verbose, env: wanted }) {
	const environment = { RUST_BACKTRACE: verbose ? '1' : '0', ...wanted, ...env, CARGO_TERM_COLOR: 'never' };
	const started_ms = performance.now();
	const limits = { env: environment, timeout_s: TIMEOUT_S };
	const compiled = await compile(args);
	if (compiled.code !== 0) return failed('compiling', compiled);
	compiledLine(started_ms);

	const reader = new CargoReader();
	const result = await run('cargo', [...args, ...(filter ? [filter] : [])], {
		...limits,
		merge: true,
		echo: verbose,
		onLine: (line) => reader.read(line),
	});
	const outcome = reader.finish();
	if (result.timedOut || (result.code !== 0 && outcome.failed === 0)) {
		addOutcome(outcome, failed('cargo test', result));
	}
	return outcome;
}

/** @param {string[]} args */
function compile(args) {
	const limits = { env: { CARGO_TERM_COLOR: 'never' }, timeout_s: TIMEOUT_S };
	return busy('compiling', () => run('cargo', [...args, '--no-run'], limits));
}

function failed(name, result) {
	const outcome = emptyOutcome();
	const reason = result.timedOut ? `It did not end within ${TIMEOUT_S} s.\n` : '';
	addFailure(outcome, name, reason + end(result.output));
	return outcome;
}

function end(output) {
	return output.trimEnd().split('\n').slice(-ERROR_LINES_MAX).join('\n');
}

/** Reads cargo's and the test programs' lines, and prints one line for each program that has tests. */
class CargoReader {
	#total = emptyOutcome();
	#program = 'cargo test';
	#started_ms = performance.now();
	#current = emptyOutcome();
	#ended = true;
	/** @type {Map<string, string[]>} */
	#details = new Map();
	/** @type {string[] | undefined} */
	#detail;
	/** @type {string[]} */
	#lines = [];

	/** @param {string} line */
	read(line) {
		const program = /^ +(?:Running (?:unittests )?(\S+)|(Doc-tests) )/.exec(line);
		if (program) return this.#begin(program[1] ?? 'examples in doc comments');
		const test = /^test (.+) \.\.\. (ok|FAILED|FAIL|ignored|skipped)\b/.exec(line);
		if (test) return this.#count(test[1], test[2]);
		if (/^test result: |^no tests to run!/.test(line)) return this.#endProgram();
		this.#lines.push(line);
		const detail = /^---- (.+?) (?:stdout|output) ----$/.exec(line);
		if (detail) {
			this.#detail = [];
			this.#details.set(detail[1], this.#detail);
		} else if (/^failures:$/.test(line)) this.#detail = undefined;
		else this.#detail?.push(line);
	}

	finish() {
		if (!this.#ended) {
			const lines = this.#lines.join('\n');
			addFailure(this.#current, this.#program, `The test program ended before its last test.\n${end(lines)}`);
			this.#endProgram();
		}
		return this.#total;
	}

	#begin(program) {
		this.finish();
		this.#program = program;
		this.#started_ms = performance.now();
		this.#current = emptyOutcome();
		this.#ended = false;
		this.#lines = [];
		this.#details = new Map();
		this.#detail = undefined;
	}

	#count(name, result) {
		if (result === 'ok') this.#current.passed += 1;
		else if (result.startsWith('FAIL')) addFailure(this.#current, name, '');
		else this.#current.skipped += 1;
	}

	#endProgram() {
		this.#ended = true;
		for (const failure of this.#current.failures) {
			const detail = (this.#details.get(failure.name) ?? []).filter((line) => !FOREIGN_FRAME.test(line));
			failure.error ||= detail
				.join('\n')
				.trim()
				.replace(/\n+note: run with `RUST_BACKTRACE.*/s, '');
		}
		addOutcome(this.#total, this.#current);
		if (countTests(this.#current) > 0) fileLine(this.#program, this.#current, this.#started_ms);
		this.#current = emptyOutcome();
	}
}
