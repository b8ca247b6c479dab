import { fileURLToPath } from 'node:url';
import { run } from '../../process.mjs';
import { ExpectedFailure } from '../../terminal.mjs';

const LIST = fileURLToPath(new URL('list.mjs', import.meta.url));
const TIMEOUT_S = 60;

/**
 * The full names of the tests that files declare, which needs a second and no server.
 *
 * @param {string[]} files
 * @returns {Promise<Record<string, string[] | null>>} null for a file that needs what is not set up yet
 */
export async function nodeTestNames(files) {
	if (files.length === 0) return {};
	const listed = await run(process.execPath, [LIST, ...files], { timeout_s: TIMEOUT_S });
	const line = listed.stdout.trimEnd().split('\n').at(-1) ?? '';
	if (listed.code !== 0 || !line) throw new ExpectedFailure('The tests could not be listed.', listed.output);
	return JSON.parse(line);
}
