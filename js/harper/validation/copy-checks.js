/**
 * Compares this node's copy of the tables with what BigQuery counted (SyncLeaves). One thread does so for its node. The
 * core decides when to compare, what follows from it, and what is read again.
 */

import { KeptById, KeptCheckpoints, KeptRecords } from '../kept-records.js';
import { replace } from '../stamps.js';
import { deleteRows } from './deletion.js';
import { NodeLook } from './node-look.js';
import { rejectedIds } from './notes.js';
import { scan } from './scan.js';

/** What BigQuery answers when the list of keys is gone. It keeps lists for a day. */
const GONE = 404;

/** What is worth a line in the log. */
const ALARMS = new Set(['validation_differs', 'deletes_refused']);

/** @typedef {{id: string, tableId: string, countedAt: string, asked: number, listing?: any, refusal?: string}} Leaves A row of SyncLeaves. */

export class CopyChecks extends NodeLook {
	/** When comparisons with leaves failed. @type {WeakMap<Leaves, number>} */
	#failures = new WeakMap();
	#leaves = new KeptRecords('SyncLeaves');
	#checks = new KeptById('SyncCheck');
	#states = new KeptById('SyncControlState');
	#progress = new KeptCheckpoints();
	/** The leaves that need no look before there are newer ones. @type {WeakSet<Leaves>} */
	#done = new WeakSet();

	/**
	 * @param {import('./node-look.js').Surroundings} surroundings
	 * @param {import('../../bigquery.js').BigQueryConnection} connection
	 */
	constructor(surroundings, connection) {
		super(surroundings, "this node's copy is not compared with the source");
		this.connection = connection;
	}

	/** @override */
	async lookAtAll() {
		const syncs = new Map(this.running());
		for (const leaves of await this.#leaves.read()) {
			const sync = syncs.get(leaves.tableId);
			const target = sync && this.findTarget(leaves.tableId);
			if (this.#done.has(leaves) || !target || sync.isRepairing()) continue;
			const before = await this.#checks.read(`${leaves.id}@${this.node}`);
			if (this.isOver()) return;
			const progress = await this.#progress.read(leaves.tableId);
			if (this.isOver()) return;
			if (this.core.isCheckDue(before, leaves, progress)) {
				const compare = () => this.#compare(leaves, before, target, sync);
				const consequence = `${leaves.tableId}: this node's copy could not be compared`;
				await this.attempt(leaves, compare, this.#failures, consequence);
			} else if (before?.againAt === null && isOf(before, leaves)) {
				this.#done.add(leaves);
			}
		}
	}

	/** @param {Leaves} leaves @param {any} before @param {any} target @param {any} sync */
	async #compare(leaves, before, target, sync) {
		const comparison = new this.core.CopyComparison(leaves);
		try {
			comparison.vet(sync, before);
			if (!leaves.refusal && !(await this.#addRows(comparison, leaves, target))) return;
			const repairs = (await this.#states.read(leaves.tableId))?.repairs ?? 0;
			if (this.isOver()) return;
			const isCertain = repairs > 0 && leaves.asked === repairs;
			const rank = this.rank();
			const { check, repair, deletion, note } = comparison.conclude(before, this.node, rank, this.haste, isCertain);
			if (note) await this.tell(leaves.tableId, note);
			await replace('SyncCheck', check);
			if (repair && !this.isOver()) sync.repair(repair);
			if (deletion) await deleteRows(leaves.tableId, target, deletion, this.node, () => this.isOver());
		} finally {
			if (!this.instance.dead) comparison.free();
		}
	}

	/** Adds all rows of both sides. Returns false if it could not. */
	async #addRows(comparison, leaves, target) {
		comparison.excuse(JSON.stringify(await excusedIds(leaves, target)));
		do {
			if (!(await this.#addKeys(comparison))) {
				this.#done.add(leaves);
				return false;
			}
			await scan(target, {
				bounds: comparison.bounds(),
				attribute: comparison.cursorAttribute(),
				take: (texts) => this.isOver() || comparison.add(JSON.stringify(texts)),
				signal: this.signal,
			});
			if (this.isOver()) return false;
		} while (comparison.looksCloser());
		return true;
	}

	/** Reads the list of keys, if there is one. Returns false if it is gone. */
	async #addKeys(comparison) {
		for (let request; !this.isOver() && (request = comparison.request());) {
			const { status, body } = await this.connection.send(request, this.signal);
			if (status === GONE) return false;
			if (status !== 200) throw new Error(`BigQuery answered ${status} when the keys were read`);
			if (!this.isOver()) comparison.addPage(body);
		}
		return !this.isOver();
	}

	/** @override @param {string} table @param {import('./notes.js').Note} note */
	async tell(table, note) {
		await super.tell(table, note);
		if (ALARMS.has(note.kind)) logger.warn?.(`bigquery-sync: ${table}: ${note.reason}`);
	}
}

/** Whether it was these leaves that the copy was compared with. @param {any} check @param {any} leaves */
function isOf(check, leaves) {
	return check.countedAt === leaves.countedAt && check.asked === leaves.asked;
}

/**
 * The ids of rows that cannot be written: BigQuery counts them. Of a row with a key, an older version may be stored.
 * @param {Leaves} leaves
 * @param {any} target
 */
async function excusedIds({ tableId, listing }, target) {
	const rejected = await rejectedIds(tableId);
	if (listing) return rejected;
	const ids = [];
	for (const id of rejected) if (!(await target.get(id))) ids.push(id);
	return ids;
}
