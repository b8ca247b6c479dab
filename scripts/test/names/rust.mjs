import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { repository } from '../../process.mjs';

const TEST = /^(\s*)#\[(?:wasm_bindgen_)?test\b/;
const FUNCTION = /^\s*(?:pub(?:\([^)]*\))? )?(?:async )?fn (\w+)/;
const MODULE = /^(\s*)(?:pub(?:\([^)]*\))? )?mod (\w+) \{/;

/**
 * The full names of Rust tests, as cargo prints them, read from the sources because cargo compiles before it tells.
 * That each line stands where rustfmt puts it tells which module it belongs to.
 *
 * @param {{wasm: boolean}} which those that run in Node.js, or those that run natively
 * @returns {Promise<string[]>}
 */
export async function rustTestNames({ wasm }) {
	const names = [];
	for (const folder of ['src', 'tests']) {
		const files = await readdir(join(repository, folder), { recursive: true }).catch(() => []);
		for (const file of files.filter((name) => name.endsWith('.rs')).sort()) {
			const text = await readFile(join(repository, folder, file), 'utf8');
			if (text.includes('#[wasm_bindgen_test') === wasm) names.push(...namesIn(text, modulesOf(folder, file)));
		}
	}
	return names;
}

/** The modules that a file is. The first folder below `tests` is a program of its own. */
function modulesOf(folder, file) {
	const path = file.replace(/(?:(?:^|\/)(?:mod|lib|main))?\.rs$/, '').split('/');
	return path.slice(folder === 'tests' ? 1 : 0).filter(Boolean);
}

function namesIn(text, modules) {
	const names = [];
	/** @type {{name: string, indent: number}[]} */
	const inner = [];
	let isTest = false;
	for (const line of text.split('\n')) {
		const module = MODULE.exec(line);
		const innermost = inner.at(-1);
		if (innermost && line.startsWith('}', innermost.indent) && line.trim() === '}') inner.pop();
		if (module) inner.push({ name: module[2], indent: module[1].length });
		if (TEST.test(line)) isTest = true;
		const name = isTest && FUNCTION.exec(line)?.[1];
		if (!name) continue;
		names.push([...modules, ...inner.map((one) => one.name), name].join('::'));
		isTest = false;
	}
	return names;
}
