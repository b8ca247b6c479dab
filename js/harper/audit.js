/** Removes entries of SyncAudit after their retention time. One thread of the cluster does so, in small steps. */

import { findTable } from './database.js';

const DAY_MS = 86_400_000;
/** When a worker first looks for old entries after its start, and how often from then on. */
const FIRST_LOOK_MS = 5_000;
const LOOK_MS = 3_600_000;
/** The entries that are removed at a time, and the pause after them. */
const ENTRIES_AT_A_TIME = 100;
const PAUSE_MS = 1_000;

export class AuditRetention {
	/** @type {NodeJS.Timeout | undefined} */
	#timer;
	#stopped = false;

	/**
	 * @param {number} days
	 * @param {() => boolean} isDue Whether this worker has to do it.
	 */
	constructor(days, isDue) {
		this.days = days;
		this.isDue = isDue;
	}

	start() {
		this.#lookIn(FIRST_LOOK_MS);
	}

	stop() {
		this.#stopped = true;
		clearTimeout(this.#timer);
	}

	/** @param {number} delayMs */
	#lookIn(delayMs) {
		if (this.#stopped) return;
		this.#timer = setTimeout(() => this.#look(), delayMs);
		this.#timer.unref();
	}

	async #look() {
		let removed = 0;
		try {
			if (this.isDue()) removed = await this.#removeSome();
		} catch (error) {
			logger.warn?.(`bigquery-sync: old entries of SyncAudit were not removed: ${error}`);
		}
		this.#lookIn(removed === ENTRIES_AT_A_TIME ? PAUSE_MS : LOOK_MS);
	}

	async #removeSome() {
		const bound = new Date(Date.now() - this.days * DAY_MS).toISOString();
		const isOld = { attribute: 'at', comparator: 'less_than', value: bound };
		const audit = findTable('SyncAudit');
		const ids = [];
		for await (const { id } of audit.search({ conditions: [isOld], limit: ENTRIES_AT_A_TIME })) ids.push(id);
		const context = {};
		if (ids.length > 0) {
			await transaction(context, () => {
				for (const id of ids) audit.delete(id, context);
			});
		}
		return ids.length;
	}
}
