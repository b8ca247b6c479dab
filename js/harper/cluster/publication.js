/** Tells the other workers and nodes what this one is doing. */

import { findTable } from '../database.js';

/** How often it is told while something changes. */
const PUBLISH_MS = 2_000;
/** What was told so long ago is told again although nothing changed, to show that the worker lives. */
const STALE_MS = 30_000;

export class Publication {
	#told = { text: '', at: 0 };
	/** @type {NodeJS.Timeout | undefined} */
	#timer;

	/**
	 * @param {object} options
	 * @param {() => Promise<void>} options.prepare Called before each time.
	 * @param {() => {id: string}} options.snapshot What there is to tell.
	 */
	constructor({ prepare, snapshot }) {
		this.prepare = prepare;
		this.snapshot = snapshot;
	}

	start() {
		clearInterval(this.#timer);
		const publish = () =>
			this.#publish().catch((error) => logger.warn?.(`bigquery-sync: status not published: ${error}`));
		this.#timer = setInterval(publish, PUBLISH_MS);
		this.#timer.unref();
		publish();
	}

	stop() {
		clearInterval(this.#timer);
	}

	async #publish() {
		await this.prepare();
		const record = this.snapshot();
		const text = JSON.stringify(record);
		if (text === this.#told.text && Date.now() - this.#told.at < STALE_MS) return;
		this.#told = { text, at: Date.now() };
		await findTable('SyncWorker').put({ ...record, updatedAt: new Date().toISOString() });
	}
}
