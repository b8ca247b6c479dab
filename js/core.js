/** Loads the core: Rust compiled to WebAssembly. */

import { readFileSync } from 'node:fs';

import { makeCore } from '../pkg/instance.js';

const WASM_URL = new URL('../pkg/bigquery_sync_bg.wasm', import.meta.url);

/** @type {WebAssembly.Module | undefined} */
let compiled;

/**
 * Makes a new instance of the core. A trap leaves an instance unusable, so each call gives one of its own; its memory is
 * freed when nobody uses it any more.
 * @returns {Promise<typeof import('../pkg/bigquery_sync.js')>}
 */
export async function loadCore() {
	compiled ??= await WebAssembly.compile(readFileSync(WASM_URL));
	const core = makeCore();
	core.initSync({ module: compiled });
	return core;
}
