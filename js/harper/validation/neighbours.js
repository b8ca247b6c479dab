/**
 * Compares this node's copies of the tables with those of other nodes, without BigQuery (SyncCopy). One thread does so for
 * its node, when a node has returned. The core decides when, what is told, and which rows are put again.
 */

import { deletionsRemovedUntil, findTable, withoutValues } from '../database.js';
import { KeptById, KeptRecords } from '../kept-records.js';
import { oneByOne, regularly } from '../pulse.js';
import { replace } from '../stamps.js';
import { Turn } from '../sync/turn.js';
import { scanWritten } from './scan.js';

/** How often to look whether there is something to do. */
const LOOK_MS = 2_000;
/** How long to wait after a failure. */
const RETRY_MS = 60_000;
/** So many rows are put again in one transaction. */
const ROWS_AT_A_TIME = 1_000;

/** @typedef {{writtenAt: number, stamp: number, ids: string[], lacking: string[]}} Put */

export class Neighbours {
	#stopLooking = () => {};
	#stopped = new AbortController();
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

	/**
	 * @param {object} options
	 * @param {any} options.core
	 * @param {number} options.haste Divides the waiting times.
	 * @param {string} options.node
	 * @param {() => {node: string, alive: boolean}[]} options.nodes
	 * @param {() => boolean} options.isSpeaker Whether this thread compares for its node.
	 * @param {() => [string, any][]} options.running The tables that this thread runs.
	 * @param {(table: string) => string} options.targetOf The name of a table's target.
	 * @param {{dead: boolean}} options.instance The instance of the core.
	 */
	constructor({ core, haste, node, nodes, isSpeaker, running, targetOf, instance }) {
		this.core = core;
		this.haste = haste;
		this.node = node;
		this.nodes = nodes;
		this.isSpeaker = isSpeaker;
		this.running = running;
		this.targetOf = targetOf;
		this.instance = instance;
	}

	start() {
		const look = oneByOne(() => this.#lookAtAll(), "this node's copy is not compared with those of other nodes");
		this.#stopLooking = regularly(look, LOOK_MS);
	}

	stop() {
		this.#stopped.abort();
		this.#stopLooking();
	}

	#isOver() {
		return this.#stopped.signal.aborted || this.instance.dead;
	}

	async #lookAtAll() {
		if (this.#isOver()) return;
		const others = this.isSpeaker() ? this.nodes().filter(({ node }) => node !== this.node) : [];
		if (others.length === 0) {
			this.#decisions = undefined;
			this.#heard = undefined;
			return;
		}
		const beats = new Map((await this.#beats.read()).map((beat) => [beat.id, beat]));
		if (this.#isOver()) return;
		this.#decisions ??= new this.core.Neighbours(this.node, this.haste);
		const neighbour = ({ node, alive }) => {
			const { beat = 0, started = 0 } = beats.get(node) ?? {};
			return { node, alive, beat, started };
		};
		this.#decisions.observe(others.map(neighbour));
		for (const [table] of this.running()) await this.#try(table);
	}

	/** Looks at a table, and goes on with others if that fails. @param {string} table */
	async #try(table) {
		const failedAt = this.#failures.get(table);
		if (this.#isOver() || (failedAt !== undefined && performance.now() - failedAt < RETRY_MS)) return;
		try {
			await this.#lookAt(table);
			this.#failures.delete(table);
		} catch (error) {
			if (this.#isOver()) return;
			if (failedAt === undefined) {
				const reason = withoutValues(error.message);
				logger.warn?.(`bigquery-sync: ${table}: the copies of the nodes could not be compared: ${reason}`);
			}
			this.#failures.set(table, performance.now());
		}
	}

	/** @param {string} table */
	async #lookAt(table) {
		const target = findTable(this.targetOf(table));
		const removedUntil = target && deletionsRemovedUntil(target);
		if (removedUntil === undefined) return;
		const began = (await this.#proofs.read(`${table}@${this.node}`))?.began;
		if (began === undefined) return;
		const asked = (await this.#wishes.read(table))?.validations ?? 0;
		const summaries = await this.#summaries.read();
		if (this.#isOver()) return;
		if (summaries !== this.#heard) this.#decisions.hear(JSON.stringify(summaries));
		this.#heard = summaries;
		const step = this.#decisions.next(table, asked, removedUntil, began);
		if (step) await this.#take(step, table, target);
	}

	/** @param {any} step @param {string} table @param {any} target */
	async #take(step, table, target) {
		const written = step.bounds();
		if (written) {
			const take = (ids, times) => this.#isOver() || step.add(JSON.stringify(ids), times);
			await scanWritten(target, { written, take, signal: this.#stopped.signal });
		}
		if (this.#isOver()) return;
		const { summary, puts, note } = JSON.parse(step.end());
		for (const put of puts) await this.#tryToPutAgain(put, table, target);
		if (note) await findTable('SyncAudit').put(this.#entry(table, note, ''));
		if (!this.#isOver()) await replace('SyncCopy', summary);
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
		for (let at = 0; at < ids.length && !this.#isOver(); at += ROWS_AT_A_TIME) {
			const entries = ids.slice(at, at + ROWS_AT_A_TIME).map((id) => entryOf(target, id));
			const same = entries.filter(({ entry }) => entry?.version === writtenAt);
			if (same.length === 0) continue;
			const note = this.core.copyMended(this.node, lacking, writtenAt, same.length);
			const context = { timestamp: stamp };
			await transaction(context, async () => {
				// Harper may lose a small transaction that touches another table first.
				findTable('SyncAudit').put(this.#entry(table, note, `.${writtenAt}.${at}`), context);
				const turn = new Turn();
				for (const { key, entry } of same) {
					if (entry.value) target.put({ ...entry.value }, context);
					else target.delete(key, context);
					if (turn.isOver()) await turn.end();
				}
			});
		}
	}

	/** @param {string} tableId @param {{kind: string, reason: string}} note @param {string} which */
	#entry(tableId, { kind, reason }, which) {
		const at = new Date().toISOString();
		const id = `${tableId}:${kind}.${this.node}.${at}${which}`;
		return { id, tableId, kind, rowId: null, reason, nodeId: this.node, at };
	}
}

/** The entry of a record, by its id as a text. @param {any} target @param {string} id */
function entryOf({ primaryStore }, id) {
	const entry = primaryStore.getEntry(id);
	return entry ? { key: id, entry } : { key: Number(id), entry: primaryStore.getEntry(Number(id)) };
}
