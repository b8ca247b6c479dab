/** `npm test` itself: what its options choose. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { run } from '../support/index.mjs';

const RUNNER = fileURLToPath(new URL('../../scripts/test.mjs', import.meta.url));

/** @param {string[]} args */
const runTests = (...args) => run(process.execPath, [RUNNER, ...args], { env: process.env });

test('a filter that no test has in its name is told before anything is set up', async () => {
	const { code, output } = await runTests('--filter', 'no-such-name');
	assert.equal(code, 1, output);
	const told = 'There is no test whose name contains “no-such-name”.';
	assert.deepEqual(output.split('\n').filter(Boolean), [told, '0 passed, 1 failed, 0 skipped']);
});

test('a filter runs the tests that have it in their names, and of other files nothing', async () => {
	const { code, output } = await runTests('--only', 'bench,integration', '--filter', 'cells_become');
	assert.equal(code, 0, output);
	assert.match(output, /bench-selftest\/values\.test\.mjs +1 passed/);
	assert.doesNotMatch(output, /integration|emulator|proxy/);
	assert.match(output, /^1 passed, 0 failed, 0 skipped$/m);
});

test('a filter finds the name of a suite, and tests whose names are made in a loop', async () => {
	const { output } = await runTests('--only', 'node', '--filter', 'the rows that a query selects');
	assert.match(output, /^3 passed, 0 failed, 0 skipped$/m, output);
});

test('options that do not exist or exclude each other are told', async () => {
	for (const [args, reason] of /** @type {[string[], RegExp][]} */ ([
		[['--fliter', 'x'], /--fliter/],
		[['--only', 'nodes'], /There is no suite “nodes”/],
		[['--quick', '--soak'], /exclude each other/],
	])) {
		const { code, output } = await runTests(...args);
		assert.equal(code, 2, output);
		assert.match(output, reason);
	}
});
