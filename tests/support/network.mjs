/** A network between a BigQuery and its clients: answers take their time, and share one line. */

import { setTimeout as sleep } from 'node:timers/promises';

/** A line carries so much of an answer before it may carry a piece of another one. */
const PIECE_BYTES = 64 << 10;

/**
 * @typedef {import('./routes.mjs').RouteName} RouteName
 * @typedef {Partial<Record<RouteName, number>>} Delays In ms, before an answer begins.
 */

export class Network {
	/** @type {Delays} */
	delaysMs = {};
	/** Of all answers together. */
	bytesPerSecond = Infinity;
	/** When the line has carried everything that was given to it. */
	#freeAt_ms = 0;

	/** Takes over settings. @param {{delaysMs?: Delays, bytesPerSecond?: number}} settings */
	set({ delaysMs = {}, bytesPerSecond = Infinity }) {
		Object.assign(this, { delaysMs, bytesPerSecond });
	}

	get isLimited() {
		return Number.isFinite(this.bytesPerSecond);
	}

	/** Waits as long as an answer takes to begin. @param {RouteName} route */
	async delay(route) {
		const delay_ms = this.delaysMs[route] ?? 0;
		if (delay_ms > 0) await sleep(delay_ms, undefined, { ref: false });
	}

	/** Carries an answer's body, piece by piece. @param {Buffer} bytes */
	async *carry(bytes) {
		for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
			const piece = bytes.subarray(at, at + PIECE_BYTES);
			const start_ms = Math.max(performance.now(), this.#freeAt_ms);
			this.#freeAt_ms = start_ms + (piece.length / this.bytesPerSecond) * 1_000;
			await sleep(this.#freeAt_ms - performance.now());
			yield piece;
		}
	}
}
