/**
 * A real BigQuery emulator (local-bigquery on DuckDB) that the bench installs, starts and ends by itself.
 */

import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { freePort, isPortFree } from './ports.mjs';
import { run, startProcess, temporaryFolder } from './processes.mjs';
import { until } from './wait.mjs';

const VERSION = '0.3.2';
const DUCKDB_VERSION = '1.5.5';
const PACKAGES = [
	`local-bigquery==${VERSION}`,
	`duckdb==${DUCKDB_VERSION}`,
	`duckdb-extensions==${DUCKDB_VERSION}`,
	`duckdb-extension-ducklake==${DUCKDB_VERSION}`,
	`duckdb-extension-icu==${DUCKDB_VERSION}`,
	`duckdb-extension-spatial==${DUCKDB_VERSION}`,
	// Its web server takes them if they are there, and answers faster.
	'httptools==0.9.0',
	'uvloop==0.23.0',
];
/** All that the emulator loads at its start; it would download a missing one, and without a network not start. */
const EXTENSIONS = ['ducklake', 'icu', 'spatial'];
/** What Python runs first in the emulator. */
const SITE = fileURLToPath(new URL('emulator-site', import.meta.url));
const SETUP = fileURLToPath(new URL('local_bigquery_setup.py', import.meta.url));
const START_ATTEMPTS = 5;
const START_DEADLINE_MS = 120_000;

/** The modules that set-up needs; Debian ships Python without ensurepip unless asked. */
const PROBE = 'import sys, venv, ensurepip, fcntl; sys.exit(0 if sys.version_info >= (3, 13) else 1)';

/**
 * @typedef {object} Emulator
 * @property {string} url `http://127.0.0.1:PORT`
 * @property {string} project
 * @property {number | undefined} pid Undefined for an emulator that was there already.
 * @property {() => Promise<void>} stop
 */

/**
 * @param {string} code
 * @param {string} message
 */
function failure(code, message) {
	return Object.assign(new Error(message), { code });
}

/** Python commands worth a try, the versions that are known to work first. */
async function pythonCandidates() {
	const roots = [process.env.PYENV_ROOT, path.join(homedir(), '.pyenv')].filter((root) => root !== undefined);
	const pyenv = [...new Set(roots)].flatMap((root) => {
		const versions = path.join(root, 'versions');
		if (!existsSync(versions)) return [];
		return readdirSync(versions)
			.filter((name) => /^3\.1[34]\./.test(name))
			.sort()
			.map((name) => path.join(versions, name, 'bin', 'python3'));
	});
	const uv = await Promise.all(
		['3.13', '3.14'].map((version) => run('uv', ['python', 'find', version]).catch(() => undefined))
	);
	const found = uv.filter((answer) => answer?.code === 0).map((answer) => /** @type {any} */ (answer).output.trim());
	return ['python3.13', ...pyenv, ...found, 'python3.14', 'python3'];
}

async function findPython() {
	for (const candidate of await pythonCandidates()) {
		const probe = await run(candidate, ['-c', PROBE]).catch(() => undefined);
		if (probe?.code === 0) return candidate;
	}
	throw failure(
		'NO_EMULATOR',
		'The BigQuery emulator needs CPython 3.13 or newer with venv and ensurepip, and none was found on PATH, in pyenv ' +
			'or in uv. Install one (for example `pyenv install 3.13` or `uv python install 3.13`), or set ' +
			'BIGQUERY_EMULATOR_HOST=host:port to an emulator that is already running.'
	);
}

/**
 * Tells whether an installation ended well, and with the packages of today.
 * @param {string} marker
 */
function isComplete(marker) {
	return existsSync(marker) && readFileSync(marker, 'utf8') === PACKAGES.join('\n');
}

/** Where the emulator is, or will be. */
function installation() {
	const cache = process.env.XDG_CACHE_HOME || path.join(homedir(), '.cache');
	const folder = path.join(cache, 'bigquery-sync', `local-bigquery-${VERSION}`, `duckdb-${DUCKDB_VERSION}`);
	return { folder, command: path.join(folder, 'bin', 'local-bigquery'), home: path.join(folder, 'home') };
}

export function emulatorIsInstalled() {
	return isComplete(path.join(installation().folder, 'complete'));
}

/**
 * Installs the emulator into the user's cache folder unless it is there. Two processes may do so at once.
 * @param {{log?: (line: string) => void}} [options]
 * @returns {Promise<{command: string, home: string}>}
 */
export async function ensureEmulator({ log } = {}) {
	const { folder, ...installed } = installation();
	if (emulatorIsInstalled()) return installed;
	const python = await findPython();
	log?.(`Installing local-bigquery ${VERSION} with ${python} into ${folder}`);
	const options = { group: true, log };
	const setUp = await run(python, [SETUP, folder, PACKAGES.join(' '), EXTENSIONS.join(' ')], options);
	if (setUp.code !== 0) {
		throw failure('NO_EMULATOR', `local-bigquery ${VERSION} could not be installed:\n${setUp.output.slice(-2000)}`);
	}
	return installed;
}

/**
 * Brings the usual ways of writing BIGQUERY_EMULATOR_HOST to `http://host:port`.
 * @param {string} host `host:port`, `http://host:port` or `http://host:port/bigquery/v2`.
 * @returns {string}
 */
export function emulatorUrl(host) {
	const url = new URL(/^https?:\/\//.test(host) ? host : `http://${host}`);
	return url.origin;
}

/**
 * Starts an emulator with a data folder of its own, or hands out the one that BIGQUERY_EMULATOR_HOST names.
 *
 * @param {object} [options]
 * @param {string} [options.project]
 * @param {string} [options.dataDir] Kept at the end when given, otherwise a temporary one.
 * @param {number} [options.port] Chosen when not given. A taken one is an error with code PORT_TAKEN.
 * @param {(line: string) => void} [options.log]
 * @returns {Promise<Emulator>}
 */
export async function startEmulator({ project = 'test-project', dataDir, port, log } = {}) {
	if (process.env.BIGQUERY_EMULATOR_HOST) {
		const url = emulatorUrl(process.env.BIGQUERY_EMULATOR_HOST);
		return { url, project, pid: undefined, stop: async () => {} };
	}
	const installed = await ensureEmulator({ log });
	if (port !== undefined) return startOnPort(installed, { project, dataDir, port, log });
	for (let attempt = 1; ; attempt++) {
		try {
			return await startOnPort(installed, { project, dataDir, port: await freePort(), log });
		} catch (error) {
			const taken = /** @type {any} */ (error).code === 'PORT_TAKEN';
			if (!taken || attempt === START_ATTEMPTS) throw error;
		}
	}
}

/**
 * @param {{command: string, home: string}} installed
 * @param {{project: string, dataDir?: string, port: number, log?: (line: string) => void}} options
 * @returns {Promise<Emulator>}
 */
async function startOnPort(installed, { project, dataDir, port, log }) {
	const taken = () => failure('PORT_TAKEN', `Port ${port} of 127.0.0.1 is taken; the emulator cannot listen there.`);
	if (!(await isPortFree(port))) throw taken();
	const folder = dataDir ? undefined : temporaryFolder('emulator');
	const data = dataDir ?? /** @type {{path: string}} */ (folder).path;
	const ports = ['--port', `${port}`, '--grpc-port', `${await freePort()}`];
	const args = ['--host', '127.0.0.1', ...ports, '--project', project, '--data-dir', data, 'serve'];
	const running = await startProcess(installed.command, args, {
		cwd: data,
		env: {
			PATH: process.env.PATH,
			HOME: installed.home,
			PYTHONPATH: SITE,
			// Else it would write into this repository.
			PYTHONDONTWRITEBYTECODE: '1',
			TZ: 'UTC',
			LANG: 'C.UTF-8',
		},
		log,
	});
	const stop = async () => {
		await running.stop();
		folder?.remove();
	};
	const url = `http://127.0.0.1:${port}`;
	const ended = () => {
		if (running.isAlive()) return undefined;
		if (/address already in use/i.test(running.output())) return taken();
		return failure('NO_EMULATOR', `The emulator ended at its start:\n${running.output().slice(-2000)}`);
	};
	try {
		const ready = async () => (await fetch(`${url}/bigquery/v2/projects/${project}/datasets`)).ok;
		await until(ready, { deadlineMs: START_DEADLINE_MS, what: `the emulator on port ${port}`, giveUp: ended });
	} catch (error) {
		await stop();
		throw error;
	}
	return { url, project, pid: running.pid, stop };
}
