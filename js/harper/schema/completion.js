/**
 * Completes the targets on this worker again and again: also those of tables that it does not run, because their rows
 * arrive here too. While they are complete, it looks less often, and at all of them only if something has changed.
 */

import { findTable } from '../database.js';
import { KeptRecords } from '../kept-records.js';
import { oneByOne, regularly } from '../pulse.js';
import { completeTargets } from './target.js';

/** How often to look while a target is incomplete. */
const LOOK_MS = 2_000;
/** How often to look whether something has changed while all are complete. */
const CALM_LOOK_MS = 6_000;
/** How often to look at all targets although nothing seems to have changed. */
const LOOK_AT_ALL_MS = 30_000;

/** @typedef {{targetTable: string, mayCreate: boolean}} Table */

export class Completion {
	#stop = () => {};
	#records = [new KeptRecords('SyncTarget'), new KeptRecords('SyncIndex')];
	/** What was there when all targets were found complete; undefined if they were not. @type {unknown[] | undefined} */
	#complete;
	#lookedAt = -Infinity;
	#lookedAtAll = -Infinity;

	/**
	 * @param {object} options
	 * @param {() => Table[]} options.tables
	 * @param {() => import('./indexes.js').Indexes | undefined} options.indexes None while the worker cannot look.
	 */
	constructor({ tables, indexes }) {
		this.tables = tables;
		this.indexes = indexes;
	}

	/** Looks now, and regularly from now on. */
	start() {
		this.#stop();
		this.#stop = regularly(() => this.#isDue() && this.look(), LOOK_MS);
		this.#complete = undefined;
		this.look();
	}

	stop() {
		this.#stop();
	}

	#isDue() {
		if (this.#complete === undefined || this.indexes()?.isBusy()) return true;
		// Another thread or node may have made it by now, and this thread may have missed that.
		if (this.tables().some(({ targetTable }) => !findTable(targetTable))) return true;
		// One of the looks comes nearest to that time.
		return performance.now() - this.#lookedAt >= CALM_LOOK_MS - LOOK_MS / 2;
	}

	/** Looks now whether anything has changed. */
	look = oneByOne(async () => {
		const indexes = this.indexes();
		if (!indexes) return;
		this.#lookedAt = performance.now();
		await this.#lookIfDue(indexes);
	}, 'indexes of targets are missing on this node');

	/** @param {import('./indexes.js').Indexes} indexes */
	async #lookIfDue(indexes) {
		const before = await this.#sight();
		const isOld = performance.now() - this.#lookedAtAll >= LOOK_AT_ALL_MS;
		if (!isOld && !indexes.isBusy() && areSame(before, this.#complete)) return;
		this.#complete = undefined;
		this.#lookedAtAll = performance.now();
		const areComplete = await completeTargets(this.tables(), indexes);
		// What changes during the look is looked at again.
		if (areComplete && areSame(await this.#sight(), before)) this.#complete = before;
	}

	/** What tells whether a target may be incomplete. */
	async #sight() {
		const records = await Promise.all(this.#records.map((kept) => kept.read()));
		return [...records, ...this.tables().map(({ targetTable }) => findTable(targetTable))];
	}
}

/** @param {unknown[]} one @param {unknown[] | undefined} other */
function areSame(one, other) {
	return one.length === other?.length && one.every((element, index) => element === other[index]);
}
