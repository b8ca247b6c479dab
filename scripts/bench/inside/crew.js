/** The worker threads of this Harper process, as far as they work together for a measurement. */

import { BroadcastChannel } from 'node:worker_threads';

const CHANNEL = 'bigquery-sync-bench';

/**
 * One thread leads, the one that was asked; all take part. Each message goes to all threads, the sender's own too.
 */
export class Crew {
	#channel = new BroadcastChannel(CHANNEL);
	/** @type {Set<(message: any) => void>} */
	#listeners = new Set();

	/** @param {(message: any) => void} listener */
	constructor(listener) {
		this.index = server.workerIndex ?? 0;
		this.count = server.workerCount ?? 1;
		this.#listeners.add(listener);
		this.#channel.onmessage = ({ data }) => this.#take(data);
		this.#channel.unref();
	}

	/** @param {{kind: string, [more: string]: any}} message */
	tell(message) {
		const sent = { ...message, from: this.index };
		this.#channel.postMessage(sent);
		queueMicrotask(() => this.#take(sent));
	}

	#take(message) {
		for (const listener of [...this.#listeners]) listener(message);
	}

	/**
	 * Waits for a message.
	 * @param {(message: any) => boolean} isExpected
	 * @returns {Promise<any>} That message; rejected when a thread fails before.
	 */
	hear(isExpected) {
		return new Promise((resolve, reject) => {
			const listener = (message) => {
				const isFailure = message.kind === 'failed';
				if (!isFailure && !isExpected(message)) return;
				this.#listeners.delete(listener);
				if (isFailure) reject(new Error(`worker ${message.from}: ${message.message}`));
				else resolve(message);
			};
			this.#listeners.add(listener);
		});
	}

	/**
	 * Waits until each of some threads has told something of some kinds.
	 * @param {Set<number>} threads
	 * @param {string[]} kinds
	 * @returns {Promise<any[]>} What they told.
	 */
	async hearAll(threads, kinds) {
		const waiting = new Set(threads);
		/** @type {any[]} */
		const heard = [];
		if (waiting.size === 0) return heard;
		await this.hear((message) => {
			if (kinds.includes(message.kind) && waiting.delete(message.from)) heard.push(message);
			return waiting.size === 0;
		});
		return heard;
	}
}
