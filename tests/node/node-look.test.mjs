/** What the looks at a node's copies have in common. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';

import { NodeLook } from '../../js/harper/validation/node-look.js';

const MINUTE_MS = 60_000;

const globals = /** @type {Record<string, any>} */ (globalThis);
let now = 0;
/** @type {string[]} */
let warnings = [];

beforeEach(() => {
	now = 0;
	warnings = [];
	mock.method(performance, 'now', () => now);
	globals.logger = { warn: (/** @type {string} */ text) => warnings.push(text) };
});
afterEach(() => {
	mock.restoreAll();
	delete globals.logger;
});

/** @param {object} [surroundings] */
function startLook(surroundings = {}) {
	const nodes = () => [
		{ node: 'c', alive: true },
		{ node: 'a', alive: false },
		{ node: 'b', alive: true },
	];
	const others = { core: {}, haste: 1, isSpeaker: () => true, running: () => [], targetOf: () => '' };
	return new NodeLook({ ...others, node: 'c', nodes, instance: { dead: false }, ...surroundings }, 'nothing is done');
}

test('a step that failed is taken again after a minute, and the first failure is logged', async () => {
	const look = startLook();
	const failures = new Map();
	let taken = 0;
	let fails = true;
	const step = async () => {
		taken++;
		if (fails) throw new Error('the value "secret" is wrong');
	};
	const attempt = () => look.attempt('t', step, failures, 't: it was not done');
	await attempt();
	now = MINUTE_MS - 1;
	await attempt();
	assert.equal(taken, 1);
	now = MINUTE_MS;
	await attempt();
	assert.equal(taken, 2);
	assert.deepEqual(warnings, ['bigquery-sync: t: it was not done: the value … is wrong']);
	[now, fails] = [2 * MINUTE_MS, false];
	await attempt();
	await attempt();
	assert.equal(taken, 4);
});

test('a look that has ended takes no step, and a failure at its end is none', async () => {
	const instance = { dead: false };
	const look = startLook({ instance });
	let taken = 0;
	const step = async () => {
		taken++;
		instance.dead = true;
		throw new Error('the core is gone');
	};
	for (let time = 0; time < 2; time++) await look.attempt('t', step, new Map(), 't: it was not done');
	assert.equal(taken, 1);
	assert.deepEqual(warnings, []);
	assert.ok(look.isOver());
});

test('a look that was stopped is over, and what it waits for ends', () => {
	const look = startLook();
	assert.ok(!look.isOver());
	look.stop();
	assert.ok(look.isOver() && look.signal.aborted);
});

test('a node has its place among those that are alive', () => {
	assert.equal(startLook().rank(), 1);
	assert.equal(startLook({ node: 'b' }).rank(), 0);
	assert.equal(startLook({ node: 'a' }).rank(), 0);
});
