import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import { ExpectedFailure } from './terminal.mjs';

const OUTPUT_CHARACTERS_MAX = 16_000_000;
const KILL_GRACE_MS = 5_000;
const PIPE_GRACE_MS = 2_000;

/** The repository's folder. */
export const repository = fileURLToPath(new URL('..', import.meta.url));

/** @type {Set<import('node:child_process').ChildProcess>} */
const children = new Set();

for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
	process.once(signal, () => {
		for (const child of children) signalGroup(child, signal);
		process.exit(128 + constants.signals[signal]);
	});
}

/** No command starts any more. */
let isEnding = false;

/** Ends all commands that are running, with their children; further ones fail without being started. */
export function endRunning() {
	isEnding = true;
	for (const child of children) signalGroup(child, 'SIGTERM');
}

/**
 * @typedef {object} RunOptions
 * @property {string} [cwd] default: the repository
 * @property {Record<string, string | undefined>} [env] added to the environment; undefined removes a variable
 * @property {number} [timeout_s] after it the process and its children are ended
 * @property {(line: string) => void} [onLine] called for each line of stdout
 * @property {boolean} [echo] also shows the output as it comes
 * @property {boolean} [endGroup] ends what the process started in its group and left behind
 * @property {boolean} [merge] lets stderr go to stdout, so that their lines keep their order
 */

/**
 * @typedef {object} RunResult
 * @property {number} code exit code; 128 + the signal's number when a signal ended the process
 * @property {string} stdout
 * @property {string} output stdout and stderr in the order of arrival
 * @property {boolean} timedOut
 * @property {boolean} found whether the command exists
 */

/**
 * Runs a command without a shell and without stdin, as a process group of its own, and collects its output.
 * Never rejects: a command that does not exist gives `found: false`.
 *
 * @param {string} command
 * @param {string[]} [args]
 * @param {RunOptions} [options]
 * @returns {Promise<RunResult>}
 */
export function run(command, args = [], options = {}) {
	return new Promise((resolve) => {
		if (isEnding) return resolve({ code: 1, stdout: '', output: '', timedOut: false, found: true });
		const [program, ...parameters] = options.merge ? mergeStreams(command, args) : [command, ...args];
		const child = spawn(program, parameters, {
			cwd: options.cwd ?? repository,
			env: { ...process.env, ...options.env },
			stdio: ['ignore', 'pipe', 'pipe'],
			detached: true,
		});
		const result = { code: 1, stdout: '', output: '', timedOut: false, found: true };
		children.add(child);
		collect(child, result, options);
		const cancelTimeout = endAfter(options.timeout_s, child, result);
		const finish = () => {
			cancelTimeout();
			children.delete(child);
			resolve(result);
		};
		child.once('error', (error) => {
			result.found = /** @type {NodeJS.ErrnoException} */ (error).code !== 'ENOENT';
			result.output += error.message;
			finish();
		});
		child.once('exit', () => {
			if (options.endGroup) signalGroup(child, 'SIGTERM');
			releasePipes(child);
		});
		child.once('close', (code, signal) => {
			result.code = code ?? 128 + (signal ? constants.signals[signal] : 0);
			finish();
		});
	});
}

/**
 * Runs a command that must succeed.
 *
 * @param {string} failure what the user reads when it does not, above which the command's output is shown
 * @param {string} command
 * @param {string[]} [args]
 * @param {RunOptions} [options]
 * @returns {Promise<RunResult>}
 */
export async function runOrFail(failure, command, args, options) {
	const result = await run(command, args, options);
	if (!result.found) throw new ExpectedFailure(`${failure}\nThe command \`${command}\` was not found.`);
	if (result.timedOut) {
		throw new ExpectedFailure(`${failure}\nIt took longer than ${options?.timeout_s} s.`, result.output);
	}
	if (result.code !== 0) throw new ExpectedFailure(failure, result.output);
	return result;
}

function mergeStreams(command, args) {
	return ['sh', '-c', 'exec "$0" "$@" 2>&1', command, ...args];
}

/**
 * @param {import('node:child_process').ChildProcessByStdio<null, import('node:stream').Readable, import('node:stream').Readable>} child
 * @param {RunResult} result
 * @param {RunOptions} options
 */
function collect(child, result, { onLine, echo }) {
	let rest = '';
	child.stdout.setEncoding('utf8');
	child.stderr.setEncoding('utf8');
	child.stdout.on('data', (text) => {
		result.stdout = keepEnd(result.stdout + text);
		result.output = keepEnd(result.output + text);
		if (echo) process.stdout.write(text);
		if (!onLine) return;
		const lines = (rest + text).split('\n');
		rest = lines.pop() ?? '';
		for (const line of lines) onLine(line);
	});
	child.stdout.on('end', () => {
		if (onLine && rest) onLine(rest);
	});
	child.stderr.on('data', (text) => {
		result.output = keepEnd(result.output + text);
		if (echo) process.stderr.write(text);
	});
}

/** A process that outlives its parent may hold the parent's pipes open; it is not waited for. */
function releasePipes(child) {
	const timer = setTimeout(() => {
		child.stdout.destroy();
		child.stderr.destroy();
	}, PIPE_GRACE_MS);
	child.once('close', () => clearTimeout(timer));
}

function keepEnd(text) {
	return text.length > OUTPUT_CHARACTERS_MAX ? text.slice(-OUTPUT_CHARACTERS_MAX) : text;
}

function endAfter(timeout_s, child, result) {
	if (!timeout_s) return () => {};
	let killTimer;
	const timer = setTimeout(() => {
		result.timedOut = true;
		signalGroup(child, 'SIGTERM');
		killTimer = setTimeout(() => signalGroup(child, 'SIGKILL'), KILL_GRACE_MS);
	}, timeout_s * 1000);
	return () => {
		clearTimeout(timer);
		clearTimeout(killTimer);
	};
}

function signalGroup(child, signal) {
	if (!child.pid) return;
	try {
		process.kill(-child.pid, signal);
	} catch {
		// The group has ended already.
	}
}
