import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir, hostname } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { endRunning, repository, run, runOrFail } from './process.mjs';
import { ExpectedFailure, hint, step } from './terminal.mjs';

export { repository, run, runOrFail } from './process.mjs';
export { ExpectedFailure, hint, print, runMain, step } from './terminal.mjs';

const WASM_TARGET = 'wasm32-unknown-unknown';
const LOCK_POLL_MS = 500;
const LOCK_AGE_MAX_MS = 30 * 60_000;

/** Folder for tools that are built once per machine and shared by all checkouts. */
export function cacheFolder() {
	return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'bigquery-sync');
}

/**
 * Sets up everything that building and testing need. Each piece is done once; when all is there it takes a moment.
 * What does not need each other is done side by side.
 *
 * @returns {Promise<{rust: string, wasmBindgen: string}>} Rust's version and the folder of wasm-bindgen's commands
 */
export async function ensureToolchain() {
	const rust = ensureRustForWasm();
	const wasmBindgen = rust.then(ensureWasmBindgen);
	await together([ensureNodeModules(), rust, wasmBindgen]);
	return { rust: await rust, wasmBindgen: await wasmBindgen };
}

/**
 * Waits for several pieces of work. When one fails, the processes of the others are ended.
 *
 * @param {(Promise<unknown> | undefined)[]} pieces
 */
export async function together(pieces) {
	try {
		await Promise.all(pieces);
	} catch (error) {
		endRunning();
		throw error;
	}
}

/** @type {Promise<string> | undefined} */
let rustForWasm;

/** @returns {Promise<string>} the version of Rust, which has its WebAssembly target */
export function ensureRustForWasm() {
	rustForWasm ??= (async () => {
		const version = await ensureRust();
		await ensureWasmTarget();
		return version;
	})();
	return rustForWasm;
}

/**
 * Installs what tests and demo start beside the component: Harper and a BigQuery emulator.
 *
 * @param {{emulator?: boolean}} [options] emulator: false if none is needed
 */
export async function ensureServers({ emulator: isNeeded = true } = {}) {
	const { emulatorIsInstalled, ensureEmulator } = await import('../tests/support/emulator.mjs');
	const { ensureHarperTemplate } = await import('../tests/support/harper-template.mjs');
	const emulator = async () => {
		if (!isNeeded || emulatorIsInstalled()) return;
		await step('emulator', async () => {
			hint('installing a BigQuery emulator once, about a minute');
			await ensureEmulator();
		});
	};
	await together([emulator(), ensureNodeModules().then(ensureHarperTemplate)]);
}

/** Refuses a Node.js that is older than package.json's `engines` asks for. */
export async function ensureNode() {
	const { engines } = JSON.parse(await readRepositoryFile('package.json'));
	const wanted = engines.node.replace('>=', '');
	if (isOlder(process.versions.node, wanted)) {
		throw new ExpectedFailure(
			`Node.js ${wanted} or newer is needed; this is ${process.versions.node}.\nInstall a current one from https://nodejs.org or with your version manager.`
		);
	}
}

/** @type {Promise<void> | undefined} */
let nodeModules;

/** Installs the npm packages of package-lock.json unless exactly these are installed already. */
export function ensureNodeModules() {
	nodeModules ??= installNodeModules();
	return nodeModules;
}

async function installNodeModules() {
	await ensureNode();
	if (await nodeModulesAreCurrent()) return;
	await withLock(`node-modules-${checkoutName()}`, async () => {
		if (await nodeModulesAreCurrent()) return;
		await step('npm packages', async () => {
			hint('installing the npm packages of package-lock.json, about a minute');
			const args = ['ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'];
			await runOrFail('The npm packages could not be installed; the output above says why.', 'npm', args);
			return 'installed';
		});
	});
}

/**
 * Finds Rust, also where rustup put it without the PATH of this shell knowing.
 *
 * @returns {Promise<string>} the compiler's version, for example `1.95.0`
 */
export async function ensureRust() {
	addCargoToPath();
	const [cargo, rustc] = await Promise.all([run('cargo', ['--version']), run('rustc', ['--version'])]);
	if (!cargo.found || !rustc.found) {
		throw new ExpectedFailure(
			'Rust was not found. Install it with rustup, as https://rustup.rs describes, then run this again.'
		);
	}
	if (cargo.code !== 0 || rustc.code !== 0) {
		throw new ExpectedFailure('Rust is installed but does not start.', cargo.output + rustc.output);
	}
	const version = rustc.stdout.split(' ')[1] ?? 'unknown';
	const wanted = /^rust-version = "(.+)"$/m.exec(await readRepositoryFile('Cargo.toml'))?.[1] ?? '0';
	if (isOlder(version, wanted)) {
		throw new ExpectedFailure(`Rust ${wanted} or newer is needed; this is ${version}. Run \`rustup update stable\`.`);
	}
	return version;
}

/** Adds Rust's WebAssembly target where it is missing. */
export async function ensureWasmTarget() {
	const sysroot = (await run('rustc', ['--print', 'sysroot'])).stdout.trim();
	if (existsSync(join(sysroot, 'lib', 'rustlib', WASM_TARGET, 'lib'))) return;
	await step('wasm target', async () => {
		hint(`adding Rust's target ${WASM_TARGET} once`);
		const result = await run('rustup', ['target', 'add', WASM_TARGET]);
		if (!result.found) {
			throw new ExpectedFailure(
				`Rust's target ${WASM_TARGET} is missing, and there is no rustup to add it.\nInstall the target with the package manager that Rust came from, or install Rust with rustup (https://rustup.rs).`
			);
		}
		if (result.code !== 0) {
			throw new ExpectedFailure(
				`rustup could not add the target ${WASM_TARGET}; the output above says why.\nOnce \`rustup target add ${WASM_TARGET}\` works in this folder, run this again.`,
				result.output
			);
		}
	});
}

/**
 * Provides the wasm-bindgen commands in exactly the version that Cargo.lock holds, built once per machine.
 *
 * @returns {Promise<string>} the folder with `wasm-bindgen` and `wasm-bindgen-test-runner`
 */
export async function ensureWasmBindgen() {
	const version = await lockedVersion('wasm-bindgen');
	const folder = join(cacheFolder(), `wasm-bindgen-${version}`);
	const commands = join(folder, 'bin');
	if (existsSync(join(commands, 'wasm-bindgen'))) return commands;
	await withLock(`wasm-bindgen-${version}`, async () => {
		if (existsSync(join(commands, 'wasm-bindgen'))) return;
		await step('wasm-bindgen', async () => {
			hint(`building wasm-bindgen ${version} once, about a minute`);
			await installWasmBindgen(version, folder);
			return version;
		});
	});
	return commands;
}

/**
 * Does work while no other process does work under the same name, on this machine. Waits for its turn.
 * A lock whose process has ended, or that is older than half an hour, does not count.
 *
 * @template T
 * @param {string} name
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withLock(name, work) {
	await mkdir(cacheFolder(), { recursive: true });
	const path = join(cacheFolder(), `${name}.lock`);
	let told = false;
	while (!(await takeLock(path))) {
		if (await removeStaleLock(path)) continue;
		if (!told) hint(`waiting for another process that is busy with ${name}`);
		told = true;
		await sleep(LOCK_POLL_MS);
	}
	try {
		return await work();
	} finally {
		await rm(path, { force: true });
	}
}

/** A short name for this checkout, so that two checkouts do not wait for each other. */
export function checkoutName() {
	return createHash('sha256').update(repository).digest('hex').slice(0, 12);
}

/** @param {string} path relative to the repository */
export function readRepositoryFile(path) {
	return readFile(join(repository, path), 'utf8');
}

/** Compiling it fast matters more than running it fast, but for the crates in which it spends its time. */
const QUICK_BUILD = {
	CARGO_PROFILE_RELEASE_OPT_LEVEL: '0',
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS: '256',
	CARGO_PROFILE_RELEASE_DEBUG: '0',
};
const OPTIMISED_CRATES = ['walrus', 'wasmparser', 'wasm-encoder'];

async function installWasmBindgen(version, folder) {
	const unfinished = `${folder}.${process.pid}`;
	await rm(unfinished, { recursive: true, force: true });
	const crate = ['wasm-bindgen-cli', '--version', version, '--no-default-features'];
	const commands = ['--bin', 'wasm-bindgen', '--bin', 'wasm-bindgen-test-runner'];
	const optimised = OPTIMISED_CRATES.flatMap((name) => ['--config', `profile.release.package.${name}.opt-level=1`]);
	const args = ['install', ...crate, ...commands, ...optimised, '--root', unfinished];
	try {
		await mkdir(unfinished, { recursive: true });
		await runOrFail(`wasm-bindgen ${version} could not be built; the output above says why.`, 'cargo', args, {
			cwd: unfinished,
			env: {
				...QUICK_BUILD,
				CARGO_TARGET_DIR: join(unfinished, 'target'),
				CARGO_BUILD_TARGET: undefined,
				RUSTFLAGS: undefined,
			},
		});
		await rm(join(unfinished, 'target'), { recursive: true, force: true });
		await rm(folder, { recursive: true, force: true });
		await rename(unfinished, folder);
	} finally {
		await rm(unfinished, { recursive: true, force: true });
	}
}

async function nodeModulesAreCurrent() {
	const installed = await readFile(join(repository, 'node_modules', '.package-lock.json'), 'utf8').catch(() => '');
	if (!installed) return false;
	const there = JSON.parse(installed).packages;
	const wanted = Object.entries(JSON.parse(await readRepositoryFile('package-lock.json')).packages);
	return wanted.every(([path, { version, optional, devOptional, peer }]) => {
		if (path === '') return true;
		return there[path] ? there[path].version === version : Boolean(optional || devOptional || peer);
	});
}

/**
 * The version of an npm package that package-lock.json holds.
 *
 * @param {string} name
 */
export async function lockedPackageVersion(name) {
	return JSON.parse(await readRepositoryFile('package-lock.json')).packages[`node_modules/${name}`].version;
}

async function lockedVersion(crate) {
	const lock = await readRepositoryFile('Cargo.lock');
	const version = new RegExp(`^name = "${crate}"\nversion = "(.+)"$`, 'm').exec(lock)?.[1];
	if (!version) throw new ExpectedFailure(`Cargo.lock does not name ${crate}. Run \`cargo update --workspace\`.`);
	return version;
}

function addCargoToPath() {
	const folder = join(process.env.CARGO_HOME || join(homedir(), '.cargo'), 'bin');
	const folders = (process.env.PATH ?? '').split(delimiter);
	if (existsSync(folder) && !folders.includes(folder)) process.env.PATH = [...folders, folder].join(delimiter);
}

async function takeLock(path) {
	try {
		await writeFile(path, JSON.stringify({ pid: process.pid, host: hostname() }), { flag: 'wx' });
		return true;
	} catch (error) {
		if (/** @type {NodeJS.ErrnoException} */ (error).code === 'EEXIST') return false;
		throw error;
	}
}

async function removeStaleLock(path) {
	const text = await readFile(path, 'utf8').catch(() => '');
	const status = await stat(path).catch(() => undefined);
	if (!status) return false;
	const isOld = Date.now() - status.mtimeMs > LOCK_AGE_MAX_MS;
	if (!isOld && (!text || holderIsAlive(JSON.parse(text)))) return false;
	await rm(path, { force: true });
	return true;
}

/** A holder on another host, of a shared home folder, can only be judged by the lock's age. */
function holderIsAlive({ pid, host }) {
	if (host !== hostname()) return true;
	try {
		process.kill(pid, 0);
		return true;
	} catch (error) {
		return /** @type {NodeJS.ErrnoException} */ (error).code === 'EPERM';
	}
}

function isOlder(version, wanted) {
	const [left, right] = [version, wanted].map((text) => text.split('.').map(Number.parseFloat));
	for (let index = 0; index < right.length; index += 1) {
		const difference = (left[index] || 0) - right[index];
		if (difference !== 0) return difference < 0;
	}
	return false;
}
