/**
 * Compares this node's copies of the tables with those of other nodes, without BigQuery (SyncCopy). One thread does so for
 * its node, when a node has returned. The core decides when, what is told, and which rows are put again.
 */

import { deletionsRemovedUntil, findTable, withoutValues } from '../database.js';
import { KeptById, KeptRecords } from '../kept-records.js';
import { replace } from '../stamps.js';
import { Turn } from '../sync/turn.js';
import { NodeLook } from './node-look.js';
import { noteOf } from './notes.js';
import { scanWritten } from './scan.js';

/** So many rows are put again in one transaction. */
const ROWS_AT_A_TIME = 1_000;

/** @typedef {{writtenAt: number, stamp: number, ids: string[], lacking: string[]}} Put */

export class Neighbours extends NodeLook {
	#summaries = new KeptRecords('SyncCopy');
	#beats = new KeptRecords('SyncNode');
	#wishes = new KeptById('SyncControlState');
	#proofs = new KeptById('SyncProof');
	/** What this thread knows since it compares for its node. @type {any} */
	#decisions;
	/** The rows of SyncCopy that it knows. @type {any[] | undefined} */
	#heard;
	/** When steps failed, by the tables' ids. @type {Map<string, number>} */
	#failures = new Map();

	/** @param {import('./node-look.js').Surroundings} surroundings */
	constructor(surroundings) {
		super(surroundings, "this node's copy is not compared with those of other nodes");
	}

	/** @override */
	forget() {
		this.#decisions = undefined;
		this.#heard = undefined;
	}

	/** @override */
	async lookAtAll() {
		const others = this.nodes().filter(({ node }) => node !== this.node);
		if (others.length === 0) return this.forget();
		const beats = new Map((await this.#beats.read()).map((beat) => [beat.id, beat]));
		if (this.isOver()) return;
		this.#decisions ??= new this.core.Neighbours(this.node, this.haste);
		const neighbour = ({ node, alive }) => {
			const { beat = 0, started = 0 } = beats.get(node) ?? {};
			return { node, alive, beat, started };
		};
		this.#decisions.observe(others.map(neighbour));
		for (const [table] of this.running()) {
			const consequence = `${table}: the copies of the nodes could not be compared`;
			await this.attempt(table, () => this.#lookAt(table), this.#failures, consequence);
		}
	}

	/** @param {string} table */
	async #lookAt(table) {
		const target = this.findTarget(table);
		const removedUntil = target && deletionsRemovedUntil(target);
		if (removedUntil === undefined) return;
		const began = (await this.#proofs.read(`${table}@${this.node}`))?.began;
		if (began === undefined) return;
		const asked = (await this.#wishes.read(table))?.validations ?? 0;
		const summaries = await this.#summaries.read();
		if (this.isOver()) return;
		if (summaries !== this.#heard) this.#decisions.hear(JSON.stringify(summaries));
		this.#heard = summaries;
		const step = this.#decisions.next(table, asked, removedUntil, began);
		if (step) await this.#take(step, table, target);
	}

	/** @param {any} step @param {string} table @param {any} target */
	async #take(step, table, target) {
		const written = step.bounds();
		if (written) {
			const take = (ids, times) => this.isOver() || step.add(JSON.stringify(ids), times);
			await scanWritten(target, { written, take, signal: this.signal });
		}
		if (this.isOver()) return;
		const { summary, puts, note } = JSON.parse(step.end());
		for (const put of puts) await this.#tryToPutAgain(put, table, target);
		if (note) await this.tell(table, note);
		if (!this.isOver()) await replace('SyncCopy', summary);
	}

	/** Rows that Harper refuses are left as they are. @param {Put} put @param {string} table @param {any} target */
	async #tryToPutAgain(put, table, target) {
		try {
			await this.#putAgain(put, table, target);
		} catch (error) {
			if (error.statusCode !== 400) throw error;
			const reason = withoutValues(error.message);
			logger.warn?.(`bigquery-sync: ${table}: rows that other nodes lack were refused: ${reason}`);
		}
	}

	/**
	 * Puts rows of one commit again as they are, unless they have changed meanwhile.
	 * @param {Put} put
	 * @param {string} table
	 * @param {any} target
	 */
	async #putAgain({ writtenAt, stamp, ids, lacking }, table, target) {
		for (let at = 0; at < ids.length && !this.isOver(); at += ROWS_AT_A_TIME) {
			const entries = ids.slice(at, at + ROWS_AT_A_TIME).map((id) => entryOf(target, id));
			const same = entries.filter(({ entry }) => entry?.version === writtenAt);
			if (same.length === 0) continue;
			const note = this.core.copyMended(this.node, lacking, writtenAt, same.length);
			const context = { timestamp: stamp };
			await transaction(context, async () => {
				// Harper may lose a small transaction that touches another table first.
				findTable('SyncAudit').put(noteOf(table, this.node, note, `.${writtenAt}.${at}`), context);
				const turn = new Turn();
				for (const { key, entry } of same) {
					if (entry.value) target.put({ ...entry.value }, context);
					else target.delete(key, context);
					if (turn.isOver()) await turn.end();
				}
			});
		}
	}
}

/** The entry of a record, by its id as a text. @param {any} target @param {string} id */
function entryOf({ primaryStore }, id) {
	const entry = primaryStore.getEntry(id);
	return entry ? { key: id, entry } : { key: Number(id), entry: primaryStore.getEntry(Number(id)) };
}
