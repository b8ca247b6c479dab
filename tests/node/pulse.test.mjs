/** The timer that all regular looks of a thread share, over a clock that the tests turn. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';

import { PULSE_MS, Pulse, oneByOne } from '../../js/harper/pulse.js';

const globals = /** @type {Record<string, any>} */ (globalThis);
/** @type {number} */
let now;
/** @type {Set<() => void>} */
let timers;
/** @type {Pulse} */
let pulse;

beforeEach(() => {
	now = 1_000_000;
	timers = new Set();
	const begin = (/** @type {() => void} */ beat) => {
		timers.add(beat);
		return beat;
	};
	pulse = new Pulse({ now: () => now, begin, end: (timer) => timers.delete(timer) });
});

afterEach(() => {
	delete globals.logger;
});

/** Lets time pass, with the pulses in it, each some milliseconds late. @param {number} ms */
function pass(ms) {
	for (const end = now + ms; now + PULSE_MS <= end;) {
		now += PULSE_MS + 1;
		for (const beat of timers) beat();
	}
}

/** Notes when it is called. @param {number} everyMs */
function watched(everyMs) {
	/** @type {number[]} */
	const times = [];
	return { times, stop: pulse.regularly(() => times.push(now), everyMs) };
}

test('looks of all intervals share one timer, and each comes as often as it should', () => {
	const looks = [500, 1_000, 1_667, 2_000, 5_000].map((everyMs) => ({ everyMs, ...watched(everyMs) }));
	assert.equal(timers.size, 1);
	const begun = now;
	pass(600_000);
	for (const { everyMs, times } of looks) {
		assert.ok(times[0] - begun <= everyMs + PULSE_MS, `${everyMs}: the first look`);
		const expected = (now - begun) / everyMs;
		assert.ok(Math.abs(times.length - expected) <= 1 + expected / 400, `${everyMs}: ${times.length} of ${expected}`);
		const longest = Math.max(...times.slice(1).map((time, at) => time - times[at]));
		assert.ok(longest <= everyMs + PULSE_MS + 2, `${everyMs}: ${longest} between two looks`);
	}
});

test('a look that was ended is not called again, and with the last one the timer ends', () => {
	const [one, other] = [watched(500), watched(500)];
	pass(1_000);
	one.stop();
	const seen = one.times.length;
	pass(2_000);
	assert.equal(one.times.length, seen);
	assert.ok(other.times.length > seen);
	other.stop();
	other.stop();
	assert.equal(timers.size, 0);
	const again = watched(500);
	pass(1_000);
	assert.equal(again.times.length, 1);
});

test('a look may end itself and begin others', () => {
	/** @type {ReturnType<typeof watched>[]} */
	const begun = [];
	const stop = pulse.regularly(() => {
		stop();
		begun.push(watched(500));
	}, 500);
	pass(3_000);
	assert.equal(begun.length, 1);
	assert.ok(begun[0].times.length > 1);
	assert.equal(timers.size, 1);
});

test('after the thread was busy, looks are not made up for', () => {
	const { times } = watched(500);
	pass(1_000);
	now += 60_000;
	const before = times.length;
	pass(2_000);
	assert.ok(times.length - before <= 4, `${times.length - before} looks`);
});

test('a look that fails is logged, and hinders neither itself nor the others', () => {
	/** @type {string[]} */
	const logged = [];
	globals.logger = { error: (/** @type {string} */ text) => logged.push(text) };
	const fail = () => {
		throw new Error('out of order');
	};
	pulse.regularly(fail, 1_000);
	const { times } = watched(1_000);
	pass(5_000);
	assert.ok(times.length >= 4);
	assert.equal(logged.length, times.length);
	assert.match(logged[0], /a regular look failed: Error: out of order/);
});

test('a look that takes time does not overlap itself, and is logged when it begins to fail', async () => {
	/** @type {string[]} */
	const logged = [];
	globals.logger = { error: (/** @type {string} */ text) => logged.push(text) };
	let [begun, fails] = [0, true];
	const look = oneByOne(async () => {
		begun += 1;
		await null;
		if (fails) throw new Error('out of order');
	}, 'nothing is seen');
	await Promise.all([look(), look()]);
	await look();
	assert.deepEqual([begun, logged], [2, ['bigquery-sync: nothing is seen: out of order']]);
	fails = false;
	await look();
	fails = true;
	await look();
	assert.deepEqual([begun, logged.length], [4, 2]);
});
