/** Loads the core: Rust compiled to WebAssembly. */

import { readFileSync } from 'node:fs';

const MODULE_URL = new URL('../pkg/bigquery_sync.js', import.meta.url);
const WASM_URL = new URL('../pkg/bigquery_sync_bg.wasm', import.meta.url);

let instances = 0;
/** @type {WebAssembly.Module | undefined} */
let compiled;

/**
 * Makes a new instance of the core. A trap leaves an instance unusable, so each call gives one of its own.
 * @returns {Promise<typeof import('../pkg/bigquery_sync.js')>}
 */
export async function loadCore() {
	compiled ??= await WebAssembly.compile(readFileSync(WASM_URL));
	instances += 1;
	const core = await import(`${MODULE_URL.href}?instance=${instances}`);
	core.initSync({ module: compiled });
	return core;
}
