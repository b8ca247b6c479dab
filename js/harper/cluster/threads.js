/** Messages between the worker threads of one node, without the database. */

import { BroadcastChannel } from 'node:worker_threads';

/** Threads of another version, which may live for a while beside these, tell other things. */
const CHANNEL = 'bigquery-sync/1';

export class Threads {
	#channel = new BroadcastChannel(CHANNEL);
	/** @type {Map<string, (content: any) => void>} */
	#listeners = new Map();

	constructor() {
		this.#channel.onmessage = (message) => {
			const { kind, content } = /** @type {any} */ (message).data;
			this.#listeners.get(kind)?.(content);
		};
		// Whoever only listens does not keep the thread alive.
		/** @type {any} */ (this.#channel).unref();
	}

	/**
	 * Says what to do with what the others tell; one listener for each kind.
	 * @param {string} kind
	 * @param {(content: any) => void} listener
	 */
	on(kind, listener) {
		this.#listeners.set(kind, listener);
	}

	/**
	 * Tells all other threads something.
	 * @param {string} kind
	 * @param {unknown} [content]
	 */
	tell(kind, content) {
		this.#channel.postMessage({ kind, content });
	}
}
