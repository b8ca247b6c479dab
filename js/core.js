/** Loads the core: Rust compiled to WebAssembly. */

import { readFileSync } from 'node:fs';

import { makeCore } from '../pkg/instance.js';

const WASM_URL = new URL('../pkg/bigquery_sync_bg.wasm', import.meta.url);

/** @type {WebAssembly.Module | undefined} */
let compiled;

/**
 * Creates a new instance of the core. Each call creates another one, because a trap leaves an instance unusable. Its
 * memory is freed when it is no longer used.
 * @returns {Promise<typeof import('../pkg/bigquery_sync.js')>}
 */
export async function loadCore() {
	compiled ??= await WebAssembly.compile(readFileSync(WASM_URL));
	const core = makeCore();
	core.initSync({ module: compiled });
	return core;
}
