/** Messages between the worker threads of one node, without the database. */

import { BroadcastChannel } from 'node:worker_threads';

/** The number changes with the messages: threads of another version may run beside these for a while. */
const CHANNEL = 'bigquery-sync/2';

export class Threads {
	#channel = new BroadcastChannel(CHANNEL);
	/** @type {Map<string, (content: any) => void>} */
	#listeners = new Map();
	/** What is sent together: each message wakes all other threads. @type {{kind: string, content: unknown}[]} */
	#outgoing = [];

	constructor() {
		this.#channel.onmessage = (message) => {
			for (const { kind, content } of /** @type {any} */ (message).data) this.#listeners.get(kind)?.(content);
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
	 * Sends a message to all other threads, together with the others of this turn of the event loop.
	 * @param {string} kind
	 * @param {unknown} [content] It must not be changed afterwards.
	 */
	tell(kind, content) {
		if (this.#outgoing.push({ kind, content }) === 1) setImmediate(() => this.#send());
	}

	#send() {
		const outgoing = this.#outgoing;
		// First, because a message that cannot be sent must not hold back all later ones.
		this.#outgoing = [];
		this.#channel.postMessage(outgoing);
	}
}
