/** Messages between the worker threads of one node, without the database. */

import { BroadcastChannel } from 'node:worker_threads';

/** The number changes with the messages: threads of another version may run beside these for a while. */
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
		// Listening alone must not keep the thread alive.
		/** @type {any} */ (this.#channel).unref();
	}

	/**
	 * Sets the listener for messages of one kind.
	 * @param {string} kind
	 * @param {(content: any) => void} listener
	 */
	on(kind, listener) {
		this.#listeners.set(kind, listener);
	}

	/**
	 * Sends a message to all other threads.
	 * @param {string} kind
	 * @param {unknown} [content]
	 */
	tell(kind, content) {
		this.#channel.postMessage({ kind, content });
	}
}
