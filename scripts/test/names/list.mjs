/** Prints a JSON object: for each test file in the arguments its tests' full names, null where it cannot be loaded. */

import { register } from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

register('./hooks.mjs', import.meta.url, { data: { standIn: 'recorder.mjs' } });
const { takeNames } = await import('./recorder.mjs');
/** @type {Record<string, string[] | null>} */
const found = {};
for (const file of process.argv.slice(2)) {
	const url = pathToFileURL(resolve(file)).href;
	found[file] = await import(url).then(takeNames, () => null);
	takeNames();
}
process.stdout.write(`${JSON.stringify(found)}\n`, () => process.exit());
