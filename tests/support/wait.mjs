/**
 * Waits on conditions instead of on the clock, so that tests are as fast as the machine and as patient as needed.
 */

import { setTimeout as sleep } from 'node:timers/promises';

/** Looks cost time that what is waited for may need; a wait gets this much longer by their pauses. */
const PAUSE_SHARE = 0.2;
/** A pause is this many times longer than the look before it. */
const PAUSE_PER_LOOK = 2;
const PAUSE_MIN_MS = 100;
const PAUSE_MAX_MS = 2_000;

/** A condition did not come true in time. */
export class DeadlineError extends Error {
	/**
	 * @param {string} message
	 * @param {unknown} cause The last error that the condition threw, if any.
	 */
	constructor(message, cause) {
		super(message, { cause });
		this.name = 'DeadlineError';
		this.code = 'DEADLINE';
	}
}

/**
 * Polls a condition until it returns a truthy value, and returns that value.
 * A condition that throws counts as not yet true; its last error becomes the cause of the DeadlineError.
 *
 * @template T
 * @param {() => T | Promise<T>} condition
 * @param {object} [options]
 * @param {number} [options.deadlineMs] Default 30,000.
 * @param {number} [options.everyMs] Pause between two looks; default 100 at first, and more the longer the wait is and
 *   the longer a look takes.
 * @param {string} [options.what] What is waited for, for the error message.
 * @param {() => Error | undefined | null | false} [options.giveUp] Ends the wait early with this error.
 * @returns {Promise<NonNullable<T>>}
 */
export async function until(condition, { deadlineMs = 30_000, everyMs, what = 'a condition', giveUp } = {}) {
	const start = performance.now();
	const end = start + deadlineMs;
	let lastError;
	let lastValue;
	for (;;) {
		const reason = giveUp?.();
		if (reason) throw reason;
		const lookedAt = performance.now();
		try {
			lastValue = await condition();
			if (lastValue) return lastValue;
			lastError = undefined;
		} catch (error) {
			lastError = error;
		}
		if (performance.now() >= end) {
			const seen = lastError ? `last error: ${lastError.message}` : `last value: ${String(lastValue)}`;
			throw new DeadlineError(`Waited ${deadlineMs} ms in vain for ${what} (${seen})`, lastError);
		}
		const now = performance.now();
		const wanted = Math.max(PAUSE_MIN_MS, (now - start) * PAUSE_SHARE, (now - lookedAt) * PAUSE_PER_LOOK);
		await sleep(everyMs ?? Math.min(PAUSE_MAX_MS, wanted));
	}
}

/**
 * Waits for a condition for as long as something changes on the way to it.
 *
 * @template T
 * @param {() => T | Promise<T>} condition
 * @param {object} options
 * @param {() => Promise<string>} options.progress What changes.
 * @param {number} options.standstillMs Gives up when nothing has changed for so long.
 * @param {number} options.deadlineMs
 * @param {string} options.what
 * @returns {Promise<NonNullable<T>>}
 */
export async function untilWhileMoving(condition, { progress, standstillMs, deadlineMs, what }) {
	let seen = await progress();
	let changedAt = performance.now();
	/** @type {DeadlineError | undefined} */
	let standstill;
	const look = async () => {
		const result = await condition();
		if (result) return result;
		const now = await progress();
		if (now !== seen) changedAt = performance.now();
		else if (performance.now() - changedAt > standstillMs) {
			standstill = new DeadlineError(`Nothing moves on the way to ${what}: ${now}`, undefined);
		}
		seen = now;
		return result;
	};
	return until(look, { deadlineMs, what, giveUp: () => standstill });
}
