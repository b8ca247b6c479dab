import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ensureBuilt } from './build.mjs';
import { checkRepository } from './lint/repository.mjs';
import { repository, run, runOrFail } from './process.mjs';
import { ExpectedFailure, hint, print, printFailure, runMain, step } from './terminal.mjs';

const WASM_TARGET = 'wasm32-unknown-unknown';
const CLIPPY = ['--', '-D', 'warnings', '-D', 'clippy::too_many_lines'];

async function main() {
	const { fix } = readOptions();
	// The types that JavaScript is checked against include those of the built core.
	await ensureBuilt({ quiet: true });
	await ensureRustComponents();
	let failed = 0;
	for (const [name, check] of checks(fix)) {
		try {
			await step(name, check);
		} catch (error) {
			failed += 1;
			printFailure(error);
		}
	}
	if (failed > 0) {
		const advice = fix ? '' : ' `npm run lint -- --fix` repairs formatting and some more.';
		throw new ExpectedFailure(`${failed} of ${checks(fix).length} checks failed.${advice}`);
	}
	print('  All checks passed.');
}

/** @returns {[string, () => Promise<string | void>][]} */
function checks(fix) {
	return [
		['rustfmt', () => tool('cargo', ['fmt', ...(fix ? [] : ['--check', '--', '--color=never'])])],
		['clippy', () => tool('cargo', ['clippy', '--quiet', '--all-targets', ...fixRust(fix), ...CLIPPY])],
		['clippy wasm', async () => tool('cargo', [...(await wasmClippy()), ...fixRust(fix), ...CLIPPY])],
		['eslint', () => node('eslint/bin/eslint.js', ['.', '--max-warnings=0', ...(fix ? ['--fix'] : [])])],
		['prettier', () => node('prettier/bin/prettier.cjs', ['.', '--log-level=warn', fix ? '--write' : '--check'])],
		['types', () => node('typescript/bin/tsc', ['--noEmit', '--project', 'tsconfig.json'])],
		['lock file', checkLockFile],
		['repository', checkRepository],
	];
}

async function wasmClippy() {
	const names = await readdir(join(repository, 'tests')).catch(() => []);
	const tests = names.filter((name) => /^wasm.*\.rs$/.test(name)).map((name) => name.replace('.rs', ''));
	return ['clippy', '--quiet', '--target', WASM_TARGET, '--lib', ...tests.flatMap((name) => ['--test', name])];
}

function fixRust(fix) {
	return fix ? ['--fix', '--allow-dirty', '--allow-staged'] : [];
}

/** A registry that lacks a package for another platform makes npm leave it out, and then npm refuses its own file. */
async function checkLockFile() {
	const failure =
		'package-lock.json does not fit package.json. Run `npm install`, and keep the lines about other platforms.';
	await runOrFail(failure, 'npm', [
		'ci',
		'--dry-run',
		'--ignore-scripts',
		'--no-audit',
		'--no-fund',
		'--loglevel=error',
	]);
}

async function tool(command, args) {
	await runOrFail(`\`${[command, ...args].join(' ')}\` found something to repair.`, command, args);
}

async function node(script, args) {
	const name = script.split('/')[0];
	const path = join(repository, 'node_modules', script);
	await runOrFail(`${name} found something to repair.`, process.execPath, [path, ...args]);
}

async function ensureRustComponents() {
	for (const [component, command] of [
		['rustfmt', 'fmt'],
		['clippy', 'clippy'],
	]) {
		if ((await run('cargo', [command, '--version'])).code === 0) continue;
		await step(component, async () => {
			hint(`adding Rust's component ${component} once`);
			const failure = `Rust's component ${component} is missing. Add it with \`rustup component add ${component}\`.`;
			await runOrFail(failure, 'rustup', ['component', 'add', component]);
		});
	}
}

function readOptions() {
	try {
		return parseArgs({ options: { fix: { type: 'boolean', default: false } } }).values;
	} catch (error) {
		throw new ExpectedFailure(`${error instanceof Error ? error.message : error}\n\nUsage: npm run lint -- [--fix]`);
	}
}

await runMain(main);
