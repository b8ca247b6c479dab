/**
 * Tells whether the database may hold something new, so that who looks at it regularly reads it only then. The number of
 * the last transaction is in the memory that the threads share; one that another node made counts here too.
 */

import { lastTransaction } from './database.js';

export class Changes {
	/** @type {number | undefined} */
	#seen;
	/** Whether to read once more although nothing has changed since. */
	#again = true;

	/**
	 * @param {() => number | undefined} [last] The number of the last transaction; undefined if the store does not tell,
	 *   and each look has to read.
	 */
	constructor(last = lastTransaction) {
		this.last = last;
	}

	/**
	 * Reads, unless nothing has changed since the last look. Each change is read twice, at two looks: a thread may read in
	 * a snapshot from a moment before.
	 * @param {() => Promise<void>} read What has failed is read again at the next look.
	 */
	async look(read) {
		const last = this.last();
		const isNew = last === undefined || last !== this.#seen;
		if (!isNew && !this.#again) return;
		this.#seen = last;
		this.#again = isNew;
		try {
			await read();
		} catch (error) {
			this.#again = true;
			throw error;
		}
	}
}
