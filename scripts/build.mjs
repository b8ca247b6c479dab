import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import {
	checkoutName,
	ensureNode,
	ensureRustForWasm,
	ensureToolchain,
	lockedPackageVersion,
	repository,
	runOrFail,
	together,
	withLock,
} from './setup.mjs';
import { ExpectedFailure, formatBytes, hint, print, runMain, step } from './terminal.mjs';

const NAME = 'bigquery_sync';
const PACKAGE = join(repository, 'pkg');
const STAMP = join(PACKAGE, '.stamp');
const WASM = `${NAME}_bg.wasm`;

/** What rustc uses for this target without being asked. Never all features: Node.js would refuse the module. */
const FEATURES = [
	'bulk-memory',
	'bulk-memory-opt',
	'call-indirect-overlong',
	'multivalue',
	'mutable-globals',
	'nontrapping-float-to-int',
	'reference-types',
	'sign-ext',
];

/**
 * Builds the wasm core into `pkg/` unless it is there already, built from the same sources by the same tools; and sets up
 * what that needs, meanwhile where it can.
 *
 * @param {{quiet?: boolean}} [options] quiet: says nothing when there is nothing to do
 * @returns {Promise<{wasmBindgen: string}>} the folder of wasm-bindgen's commands
 */
export async function ensureBuilt({ quiet = false } = {}) {
	await ensureNode();
	const toolchain = ensureToolchain();
	const built = ensureRustForWasm().then((rust) => {
		return withLock(`build-${checkoutName()}`, () => buildUnlessThere({ rust, toolchain, quiet }));
	});
	await together([toolchain, built]);
	return toolchain;
}

async function buildUnlessThere({ rust, toolchain, quiet }) {
	const stamp = await sourceStamp(rust);
	const built = await readFile(STAMP, 'utf8').catch(() => '');
	if (built === stamp && existsSync(join(PACKAGE, WASM))) {
		if (!quiet) await step('wasm core', async () => `${await describeSize()}, unchanged`);
		return;
	}
	let compiled = '';
	await step('Rust core', async () => {
		compiled = await compile();
	});
	const { wasmBindgen } = await toolchain;
	await step('wasm core', async () => {
		await finish(compiled, wasmBindgen, stamp);
		return describeSize();
	});
}

/** Keeps the folders of whoever builds it out of the module, where panics would name them. */
function pathFlags() {
	const cargoHome = process.env.CARGO_HOME ?? join(homedir(), '.cargo');
	const rustupHome = process.env.RUSTUP_HOME ?? join(homedir(), '.rustup');
	return [
		`--remap-path-prefix=${repository}=`,
		`--remap-path-prefix=${cargoHome}=cargo`,
		`--remap-path-prefix=${rustupHome}=rustup`,
	];
}

function targetFolder() {
	return process.env.CARGO_TARGET_DIR ?? join(repository, 'target');
}

/** @returns {Promise<string>} the module as the compiler leaves it */
async function compile() {
	const target = targetFolder();
	const cargo = ['build', '--quiet', '--release', '--lib', '--target', 'wasm32-unknown-unknown'];
	if (process.env.CI) cargo.push('--locked');
	hint('compiling the Rust core; the first time it takes a minute or two');
	await runOrFail('The Rust core does not compile for WebAssembly.', 'cargo', cargo, {
		env: { CARGO_TARGET_DIR: target, CARGO_ENCODED_RUSTFLAGS: pathFlags().join('\x1f') },
	});
	return join(target, 'wasm32-unknown-unknown', 'release', `${NAME}.wasm`);
}

/** Makes the package of the compiled module. */
async function finish(compiled, wasmBindgen, stamp) {
	const unfinished = join(targetFolder(), 'pkg-unfinished');
	await rm(unfinished, { recursive: true, force: true });
	const bindgen = ['--target', 'web', '--out-dir', unfinished, '--out-name', NAME, compiled];
	await runOrFail('wasm-bindgen refused the compiled core.', join(wasmBindgen, 'wasm-bindgen'), bindgen);
	await optimise(join(unfinished, WASM));
	await makeRepeatable(unfinished);
	await publish(unfinished, stamp);
}

/**
 * wasm-bindgen's module has one instance, for as long as the process lives. As a function, it makes one with each call,
 * of which nothing stays once nobody uses it any more.
 */
async function makeRepeatable(folder) {
	const module = join(folder, `${NAME}.js`);
	const text = await readFile(module, 'utf8');
	const last = /^export \{ initSync, .*\};$/m;
	const names = [...text.matchAll(/^export (?:class|function) (\w+)/gm)].map(([, name]) => name);
	if (!last.test(text) || names.length === 0) throw new ExpectedFailure('wasm-bindgen wrote another kind of module.');
	const body = text.replace(last, '').replace(/^export (?=class|function)/gm, '');
	const made = `return { ${[...names, 'initSync'].join(', ')} };`;
	await writeFile(join(folder, 'instance.js'), `export function makeCore() {\n${body}\n${made}\n}\n`);
	const types = `export function makeCore(): typeof import('./${NAME}.js');\n`;
	await writeFile(join(folder, 'instance.d.ts'), types);
	await rm(module);
}

async function optimise(wasm) {
	const optimiser = join(repository, 'node_modules', 'binaryen', 'bin', 'wasm-opt');
	const features = FEATURES.map((feature) => `--enable-${feature}`);
	const args = [optimiser, '-O3', ...features, wasm, '-o', wasm];
	await runOrFail('wasm-opt refused the compiled core.', process.execPath, args);
}

/** Each file is replaced in one step, so that a reader never meets half a file; the stamp comes last. */
async function publish(unfinished, stamp) {
	await mkdir(PACKAGE, { recursive: true });
	await rm(STAMP, { force: true });
	const names = await readdir(unfinished);
	for (const name of names) await rename(join(unfinished, name), join(PACKAGE, name));
	for (const name of await readdir(PACKAGE)) if (!names.includes(name)) await rm(join(PACKAGE, name));
	await rm(unfinished, { recursive: true, force: true });
	await writeFile(STAMP, stamp);
}

async function describeSize() {
	const wasm = await readFile(join(PACKAGE, WASM));
	return `${formatBytes(wasm.length)}, ${formatBytes(gzipSync(wasm).length)} gzip`;
}

async function sourceStamp(rust) {
	const hash = createHash('sha256').update(rust);
	hash.update(await lockedPackageVersion('binaryen'));
	const source = await readdir(join(repository, 'src'), { recursive: true, withFileTypes: true });
	const files = source.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
	const others = ['Cargo.toml', 'Cargo.lock', '.cargo/config.toml', 'scripts/build.mjs'];
	for (const path of [...files.sort(), ...others.map((name) => join(repository, name))]) {
		const text = await readFile(path).catch(() => Buffer.alloc(0));
		hash.update(`${relative(repository, path)}\0${text.length}\0`).update(text);
	}
	return hash.digest('hex');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
	await runMain(async () => {
		await ensureBuilt();
		print('  The core is in pkg/.');
	});
}
