/**
 * Child processes and temporary folders that never outlive the test process, however it ends.
 */

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const OUTPUT_CHARACTERS_MAX = 200_000;
const STOP_GRACE_MS = 10_000;

/** @type {Map<number, {group: boolean}>} The children that have not been reaped yet. */
const alive = new Map();
/** @type {Set<string>} */
const folders = new Set();
/** @type {import('node:child_process').ChildProcess | undefined} */
let guardian;
let hooked = false;

/**
 * Reads lines `+pid`, `-pid`, `+g pid`, `+/folder`, `-/folder`; at the end of its input, which comes when the test
 * process is gone for whatever reason (SIGKILL too), it ends and removes what is left.
 */
const GUARDIAN = `
const left = new Set();
const lines = require('node:readline').createInterface({ input: process.stdin });
lines.on('line', (line) => line[0] === '+' ? left.add(line.slice(1)) : left.delete(line.slice(1)));
lines.on('close', () => {
	for (const one of left) if (!one.startsWith('/')) try { process.kill(Number(one), 'SIGKILL'); } catch {}
	const remove = () => { for (const one of left) if (one.startsWith('/'))
		require('node:fs').rmSync(one, { recursive: true, force: true, maxRetries: 5 }); };
	setTimeout(remove, 300);
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => {});
`;

/** @param {string} line */
function tellGuardian(line) {
	if (!guardian) {
		guardian = spawn(process.execPath, ['-e', GUARDIAN], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
		guardian.unref();
		/** @type {import('node:net').Socket} */ (guardian.stdin).unref();
		guardian.stdin?.on('error', () => {});
		guardian.on('error', () => {});
	}
	guardian.stdin?.write(`${line}\n`);
}

/**
 * @param {number} pid
 * @param {NodeJS.Signals} signal
 * @param {boolean} group
 */
function send(pid, signal, group) {
	try {
		process.kill(group ? -pid : pid, signal);
	} catch (error) {
		if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'ESRCH') throw error;
	}
}

function endEverything() {
	for (const [pid, { group }] of alive) send(pid, 'SIGKILL', group);
	for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
	alive.clear();
	folders.clear();
}

function hook() {
	if (hooked) return;
	hooked = true;
	process.once('exit', endEverything);
	for (const [signal, number] of /** @type {const} */ ([
		['SIGINT', 2],
		['SIGTERM', 15],
		['SIGHUP', 1],
	])) {
		process.once(signal, () => process.exit(128 + number));
	}
}

/**
 * Makes a folder below the system's temporary folder that is removed at the end of this process at the latest.
 * @param {string} purpose Part of the folder's name.
 * @returns {{path: string, remove: () => void}}
 */
export function temporaryFolder(purpose) {
	hook();
	const folder = mkdtempSync(path.join(tmpdir(), `bigquery-sync-${purpose}-`));
	folders.add(folder);
	tellGuardian(`+${folder}`);
	return {
		path: folder,
		remove() {
			rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
			folders.delete(folder);
			tellGuardian(`-${folder}`);
		},
	};
}

/**
 * @typedef {object} RunningProcess
 * @property {number} pid
 * @property {() => string} output What it printed, both streams, the last 200,000 characters.
 * @property {Promise<{code: number | null, signal: NodeJS.Signals | null}>} exited Settles when it has been reaped.
 * @property {() => boolean} isAlive
 * @property {(signal: NodeJS.Signals) => Promise<void>} kill Sends the signal and waits for the end.
 * @property {() => Promise<void>} stop SIGTERM, after ten seconds SIGKILL; waits for the end.
 */

/**
 * Starts a process that ends with this one.
 *
 * @param {string} command
 * @param {string[]} args
 * @param {object} [options]
 * @param {string} [options.cwd]
 * @param {NodeJS.ProcessEnv} [options.env] The whole environment of the child.
 * @param {boolean} [options.group] The child leads a process group that is signalled as a whole.
 * @param {(line: string) => void} [options.log] Gets what the child prints.
 * @returns {Promise<RunningProcess>}
 */
export async function startProcess(command, args, { cwd, env, group = false, log } = {}) {
	hook();
	const child = spawn(command, args, { cwd, env, detached: group, stdio: ['ignore', 'pipe', 'pipe'] });
	await new Promise((resolve, reject) => {
		child.once('spawn', resolve);
		child.once('error', reject);
	});
	const pid = /** @type {number} */ (child.pid);
	const name = `${group ? -pid : pid}`;
	alive.set(pid, { group });
	tellGuardian(`+${name}`);
	let output = '';
	for (const stream of [child.stdout, child.stderr]) {
		stream.setEncoding('utf8');
		stream.on('data', (/** @type {string} */ text) => {
			output = (output + text).slice(-OUTPUT_CHARACTERS_MAX);
			log?.(text.trimEnd());
		});
	}
	const exited = new Promise((resolve) => {
		child.once('exit', (code, signal) => {
			alive.delete(pid);
			tellGuardian(`-${name}`);
			resolve({ code, signal });
		});
	});
	const kill = async (/** @type {NodeJS.Signals} */ signal) => {
		if (alive.has(pid)) send(pid, signal, group);
		await exited;
	};
	const stop = async () => {
		if (!alive.has(pid)) return;
		send(pid, 'SIGTERM', group);
		const grace = new AbortController();
		const late = sleep(STOP_GRACE_MS, 'late', { signal: grace.signal }).catch(() => undefined);
		if ((await Promise.race([exited, late])) === 'late') send(pid, 'SIGKILL', group);
		grace.abort();
		await exited;
	};
	return { pid, output: () => output, exited, isAlive: () => alive.has(pid), kill, stop };
}

/**
 * Takes over a process that a child has put in its own place; it ends with this one, too.
 * @param {number} pid
 * @returns {RunningProcess}
 */
export function adoptProcess(pid) {
	hook();
	alive.set(pid, { group: false });
	tellGuardian(`+${pid}`);
	const exited = untilGone(pid).then(() => {
		alive.delete(pid);
		tellGuardian(`-${pid}`);
		return { code: null, signal: null };
	});
	const kill = async (/** @type {NodeJS.Signals} */ signal) => {
		send(pid, signal, false);
		await exited;
	};
	const stop = async () => {
		send(pid, 'SIGTERM', false);
		const late = sleep(STOP_GRACE_MS, 'late', { ref: false });
		if ((await Promise.race([exited, late])) === 'late') await kill('SIGKILL');
	};
	return { pid, output: () => '', exited, isAlive: () => alive.has(pid), kill, stop };
}

/** @param {number} pid */
async function untilGone(pid) {
	while (isRunning(pid)) await sleep(20);
}

/**
 * Whether a process runs; one that has ended and waits for its parent to notice does not.
 * @param {number} pid
 */
function isRunning(pid) {
	try {
		process.kill(pid, 0);
		return !/^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
	} catch (error) {
		// Without /proc, on macOS, whoever can be signalled runs.
		return /** @type {NodeJS.ErrnoException} */ (error).code === 'ENOENT' && !existsSync('/proc/self');
	}
}

/**
 * Runs a command to its end.
 * @param {string} command
 * @param {string[]} args
 * @param {Parameters<typeof startProcess>[2]} [options]
 * @returns {Promise<{code: number | null, output: string}>}
 */
export async function run(command, args, options) {
	const running = await startProcess(command, args, options);
	const { code } = await running.exited;
	return { code, output: running.output() };
}
