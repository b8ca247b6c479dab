/**
 * Removes from this node's copy what the source no longer has, once a table was read again. One thread does so for its
 * node. The core decides when, and which records.
 */

import { readWorkers } from '../cluster/workers.js';
import { recordSequel } from '../commands.js';
import { KeptById, KeptCheckpoints } from '../kept-records.js';
import { replace } from '../stamps.js';
import { putHead, readToldCommit } from '../sync/witnesses.js';
import { NodeLook } from './node-look.js';
import { mendedAt, rejectedIds } from './notes.js';
import { scanRecords, textOf } from './scan.js';

/** The removals of one transaction. */
const REMOVALS_AT_A_TIME = 300;
/** How often it is stored how many there were so far. */
const TELL_MS = 5_000;

/** @typedef {[id: string, stampMs: number, syncedAt: string | null, cursor: string | null]} Candidate */

export class Sweeps extends NodeLook {
	#states = new KeptById('SyncControlState');
	#swept = new KeptById('SyncSweep');
	#progress = new KeptCheckpoints();

	/** @param {import('./node-look.js').Surroundings} surroundings */
	constructor(surroundings) {
		super(surroundings, 'rows that are gone from the source are not removed');
	}

	/** @override */
	async lookAtAll() {
		for (const [table, sync] of this.running()) {
			const number = (await this.#states.read(table))?.resync?.number ?? 0;
			const before = await this.#swept.read(`${table}@${this.node}`);
			const swept = before === null || before.state === 'removing' ? 0 : before.number;
			const target = this.findTarget(table);
			if (swept >= number || !target) continue;
			const checkpoints = await this.#progress.read(table);
			const [told, mended] = await Promise.all([this.#told(table), mendedAt(table, this.node)]);
			if (this.isOver()) return;
			const place = { node: this.node, rank: this.rank(), haste: this.haste };
			const sweep = sync.sweep(told, checkpoints, { swept, mendedAt: mended, removed: before?.removed ?? 0 }, place);
			if (sweep === undefined) continue;
			try {
				await this.#sweep(table, target, sweep);
			} finally {
				if (!this.instance.dead) sweep.free();
			}
		}
	}

	/** What the other nodes' workers tell of their last commits. @param {string} table */
	async #told(table) {
		const others = (await readWorkers()).filter(({ node }) => node !== this.node);
		const heads = await Promise.all(others.map(({ name }) => readToldCommit(table, name)));
		return heads.filter((head) => head?.number !== undefined);
	}

	/** @param {string} table @param {any} target @param {any} sweep */
	async #sweep(table, target, sweep) {
		if (sweep.mayRemove()) {
			sweep.excuse(JSON.stringify(await rejectedIds(table)));
			await this.#removeAll(table, target, sweep);
		}
		if (this.isOver()) return;
		const { swept, note, sequel } = sweep.end();
		await this.tell(table, note);
		if (sequel) await recordSequel(table, sequel);
		await replace('SyncSweep', swept);
		logger[swept.state === 'refused' ? 'error' : 'info']?.(`bigquery-sync: ${table}: ${note.reason}`);
	}

	/** @param {string} table @param {any} target @param {any} sweep */
	async #removeAll(table, target, sweep) {
		const staysFromMs = sweep.staysFromMs();
		const attribute = sweep.attribute();
		const outdatedBeforeMs = sweep.outdatedBeforeMs();
		const outdatedBefore = outdatedBeforeMs && new Date(outdatedBeforeMs).toISOString();
		let outdated = 0;
		let toldAt = performance.now();
		/** @type {{keys: any[], records: Candidate[]}} */
		let found = { keys: [], records: [] };
		/** @param {{key: any, value: any, version?: number}} entry */
		const visit = ({ key, value, version }) => {
			// A store that does not tell when a record was written tells of none that it is gone.
			if (version === undefined) return;
			if (version >= staysFromMs) {
				// The same text for the same time: so they can be compared as texts.
				if (outdatedBefore && value._syncedAt < outdatedBefore) outdated++;
				return;
			}
			const cursor = attribute === undefined ? null : textOf(value[attribute]);
			found.keys.push(key);
			found.records.push([String(key), version, textOf(value._syncedAt), cursor]);
		};
		const handOver = async () => {
			if (found.keys.length === 0 || this.isOver()) return;
			const { keys, records } = found;
			found = { keys: [], records: [] };
			for (const { stampMs, places } of sweep.taken(JSON.stringify(records))) {
				const gone = places.map((/** @type {number} */ place) => keys[place]);
				await this.#remove({ table, target, sweep }, gone, stampMs);
			}
			if (this.isOver() || performance.now() - toldAt < TELL_MS) return;
			toldAt = performance.now();
			await replace('SyncSweep', sweep.swept());
		};
		await scanRecords(target, { visit, handOver, signal: this.signal });
		if (!this.isOver()) sweep.foundOutdated(outdated);
	}

	/**
	 * Removes records with a time of writing that is earlier than those of all rows that were read since. So Harper drops
	 * the removal of a record that was written meanwhile, on whichever node.
	 * @param {{table: string, target: any, sweep: any}} what
	 * @param {any[]} keys
	 * @param {number} timestamp
	 */
	async #remove({ table, target, sweep }, keys, timestamp) {
		const writer = { tableId: table, owner: `${this.node}-sweep`, node: this.node };
		for (let from = 0; from < keys.length && !this.isOver(); from += REMOVALS_AT_A_TIME) {
			const some = keys.slice(from, from + REMOVALS_AT_A_TIME);
			const context = { timestamp };
			await transaction(context, async () => {
				putHead(writer, null, context);
				for (const key of some) await target.delete(key, context);
			});
			if (!this.isOver()) sweep.removed(some.length);
		}
	}
}
