/**
 * Waits on conditions instead of on the clock, so that tests are as fast as the machine and as patient as needed.
 */

import { setTimeout as sleep } from 'node:timers/promises';

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
 * @param {number} [options.everyMs] Pause between two looks, default 50.
 * @param {string} [options.what] What is waited for, for the error message.
 * @param {() => Error | undefined | null | false} [options.giveUp] Ends the wait early with this error.
 * @returns {Promise<NonNullable<T>>}
 */
export async function until(condition, { deadlineMs = 30_000, everyMs = 50, what = 'a condition', giveUp } = {}) {
	const end = performance.now() + deadlineMs;
	let lastError;
	let lastValue;
	for (;;) {
		const reason = giveUp?.();
		if (reason) throw reason;
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
		await sleep(everyMs);
	}
}
