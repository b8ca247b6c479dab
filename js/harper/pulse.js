/**
 * Looks at things regularly. All regular looks of a thread share one timer: each time a resting thread is woken costs
 * more than most looks.
 */

/** How often the timer fires. A look comes with the pulse that is nearest to its time. */
export const PULSE_MS = 500;

/** @typedef {{look: () => unknown, everyMs: number, dueMs: number}} Regular */

export class Pulse {
	/** @type {Set<Regular>} */
	#regulars = new Set();
	/** @type {any} */
	#timer;

	/**
	 * @param {object} [surroundings]
	 * @param {() => number} [surroundings.now] In ms; never goes back.
	 * @param {(pulse: () => void) => any} [surroundings.begin] Starts a timer that does not keep the process alive.
	 * @param {(timer: any) => void} [surroundings.end]
	 */
	constructor({ now = () => performance.now(), begin = beginTimer, end = clearInterval } = {}) {
		this.now = now;
		this.begin = begin;
		this.end = end;
	}

	/**
	 * Looks from now on, for the first time after one interval.
	 * @param {() => unknown} look It handles its own failures.
	 * @param {number} everyMs
	 * @returns {() => void} Ends that.
	 */
	regularly(look, everyMs) {
		const regular = { look, everyMs, dueMs: this.now() + everyMs };
		this.#regulars.add(regular);
		this.#timer ??= this.begin(() => this.#beat());
		return () => {
			this.#regulars.delete(regular);
			if (this.#regulars.size > 0) return;
			this.end(this.#timer);
			this.#timer = undefined;
		};
	}

	#beat() {
		const now = this.now();
		for (const regular of this.#regulars) {
			if (regular.dueMs - now > PULSE_MS / 2) continue;
			regular.dueMs += regular.everyMs;
			// A thread that was busy for long does not make up for what it missed.
			if (regular.dueMs <= now) regular.dueMs = now + regular.everyMs;
			attempt(regular.look);
		}
	}
}

function beginTimer(pulse) {
	return setInterval(pulse, PULSE_MS).unref();
}

/** One look that fails must not hinder the others. @param {() => unknown} look */
function attempt(look) {
	try {
		look();
	} catch (error) {
		logger.error?.(`bigquery-sync: a regular look failed: ${error.stack ?? error}`);
	}
}

const pulse = new Pulse();

/**
 * Looks regularly from now on, with the timer that this thread's looks share.
 * @param {() => unknown} look
 * @param {number} everyMs
 * @returns {() => void} Ends that.
 */
export function regularly(look, everyMs) {
	return pulse.regularly(look, everyMs);
}

/**
 * Makes looks that take time regular: one begins only when the one before has ended, and of several failures in a row the
 * first one is logged.
 * @param {() => Promise<unknown>} look
 * @param {string} consequence What is not done while it fails.
 * @returns {() => Promise<void>}
 */
export function oneByOne(look, consequence) {
	let isLooking = false;
	let failed = false;
	return async () => {
		if (isLooking) return;
		isLooking = true;
		try {
			await look();
			failed = false;
		} catch (error) {
			if (!failed) logger.error?.(`bigquery-sync: ${consequence}: ${error.message}`);
			failed = true;
		} finally {
			isLooking = false;
		}
	};
}
