/** Interrupts long work, so that the thread can do other things in between. */

import { setImmediate as nextTurn } from 'node:timers/promises';

/** How long this thread may be kept from everything else at a time. */
const TURN_MS = 4;

/** A piece of long work, from one interruption to the next. */
export class Turn {
	#began_ms = performance.now();

	isOver() {
		return performance.now() - this.#began_ms > TURN_MS;
	}

	/** Lets everything else have its turn. */
	async end() {
		await nextTurn();
		this.#began_ms = performance.now();
	}
}
