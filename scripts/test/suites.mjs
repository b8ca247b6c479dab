import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { repository } from '../process.mjs';
import { compileNativeTests, compileWasmTests, runNativeTests, runWasmTests, wasmTestTargets } from './cargo.mjs';
import { nodeTestNames } from './names/node.mjs';
import { rustTestNames } from './names/rust.mjs';
import { runTestFile } from './node.mjs';

/** Figures that another Harper would change: such a file runs when all other files have ended. */
const ALONE = /memory[^/]*$/;
/** Files that take long begin first, so that none of them is left alone at the end. */
const LONG = /cluster|faults|indexes|replication|restarts|division/;
/** What `--quick` runs of the integration tests. */
const QUICK_FILES = ['control', 'keys', 'sync', 'types'].map((name) => `tests/integration/${name}.test.mjs`);
/** Most worlds are for `npm run sim`. */
const USUAL_ENVIRONMENT = { SIMULATOR_SEEDS: '200' };
const QUICK_ENVIRONMENT = { SIMULATOR_SEEDS: '60' };
const SOAK_ENVIRONMENT = { SIMULATOR_SEEDS: '20000', BIGQUERY_SYNC_SOAK: '1' };

/**
 * @typedef {import('./outcome.mjs').Outcome} Outcome
 *
 * @typedef {object} RunOptions
 * @property {string[]} tests The full names of those that are wanted.
 * @property {string} [filter] What their names contain; without it, they are all that there are.
 * @property {boolean} [verbose]
 * @property {Record<string, string>} env
 * @property {string} wasmBindgen The folder with wasm-bindgen's commands.
 *
 * @typedef {object} Job What runs in one piece: a test file, or all tests of a crate.
 * @property {string} name
 * @property {string} suite
 * @property {'cargo' | 'shared' | 'alone'} lane Jobs of cargo run one after the other; shared ones side by side.
 * @property {() => Promise<void>} [prepare] What can be done long before the run.
 * @property {boolean} [sharesEmulator] It may be given a BigQuery emulator that others have used before.
 * @property {string[] | null} tests Full names; null if they cannot be told before everything is set up.
 * @property {(options: RunOptions) => Promise<Outcome>} run
 *
 * @typedef {object} Suite
 * @property {string} id
 * @property {() => Promise<Job[]>} jobs
 */

/** @type {Suite[]} */
export const SUITES = [
	{ id: 'native', jobs: nativeJobs },
	{ id: 'wasm', jobs: wasmJobs },
	fileSuite('node', 'tests/node', 300),
	fileSuite('bench', 'tests/bench-selftest', 900),
	fileSuite('integration', 'tests/integration', 1_800),
];

/**
 * What is asked for, without a look at names.
 *
 * @param {{only?: string[], quick?: boolean}} options
 */
export async function chosenJobs({ only, quick }) {
	const suites = SUITES.filter(({ id }) => (only ? only.includes(id) : !quick || id !== 'bench'));
	const unsorted = (await Promise.all(suites.map((suite) => suite.jobs()))).flat();
	const jobs = unsorted.sort((one, other) => Number(LONG.test(other.name)) - Number(LONG.test(one.name)));
	return jobs.filter(({ suite, name }) => !quick || suite !== 'integration' || QUICK_FILES.includes(name));
}

/** @param {{quick?: boolean, soak?: boolean}} options */
export function testEnvironment({ quick, soak }) {
	if (soak) return SOAK_ENVIRONMENT;
	return quick ? QUICK_ENVIRONMENT : USUAL_ENVIRONMENT;
}

/** @param {Record<string, string>} env */
function patienceOf(env) {
	return env.BIGQUERY_SYNC_SOAK ? 4 : 1;
}

async function nativeJobs() {
	const tests = await rustTestNames({ wasm: false });
	const lane = /** @type {const} */ ('cargo');
	return [{ name: 'cargo test', suite: 'native', lane, tests, prepare: compileNativeTests, run: runNativeTests }];
}

async function wasmJobs() {
	const targets = await wasmTestTargets();
	if (targets.length === 0) return [];
	const tests = await rustTestNames({ wasm: true });
	const prepare = () => compileWasmTests(targets);
	const run = (options) => runWasmTests({ ...options, targets });
	return [{ name: 'cargo test for wasm', suite: 'wasm', lane: /** @type {const} */ ('cargo'), tests, prepare, run }];
}

/** @param {string} id @param {string} folder @param {number} timeout_s Of each file. */
function fileSuite(id, folder, timeout_s) {
	const jobs = async () => {
		const files = (await readdir(join(repository, folder)).catch(() => []))
			.filter((name) => name.endsWith('.test.mjs'))
			.sort()
			.map((name) => `${folder}/${name}`);
		const names = await nodeTestNames(files);
		return files.map((file) => ({
			name: file,
			suite: id,
			lane: ALONE.test(file) ? /** @type {const} */ ('alone') : /** @type {const} */ ('shared'),
			sharesEmulator: id === 'integration',
			tests: names[file],
			run: (options) => runTestFile(file, { ...options, timeout_s: timeout_s * patienceOf(options.env) }),
		}));
	};
	return { id, jobs };
}
