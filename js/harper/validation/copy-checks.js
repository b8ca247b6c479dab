/**
 * Compares this node's copy of the tables with what BigQuery counted (SyncLeaves). One thread does so for its node. The
 * core decides when to compare, what follows from it, and what is read again.
 */

import { findTable } from '../database.js';
import { KeptById, KeptRecords, keptCheckpoints } from '../kept-records.js';
import { oneByOne, regularly } from '../pulse.js';
import { replace } from '../stamps.js';
import { deleteRows } from './deletion.js';
import { scan } from './scan.js';

/** How often to look whether there is something to compare. */
const LOOK_MS = 2_000;
/** How long to wait after a comparison that failed. */
const RETRY_MS = 60_000;
/** What BigQuery answers when the list of keys is gone. It keeps lists for a day. */
const GONE = 404;

/** What is worth a line in the log. */
const ALARMS = new Set(['validation_differs', 'deletes_refused']);

/** @typedef {{id: string, tableId: string, countedAt: string, asked: number, listing?: any, refusal?: string}} Leaves A row of SyncLeaves. */

export class CopyChecks {
	#stopLooking = () => {};
	#stopped = new AbortController();
	/** When comparisons with leaves failed. @type {WeakMap<Leaves, number>} */
	#failures = new WeakMap();
	#leaves = new KeptRecords('SyncLeaves');
	#checks = new KeptById('SyncCheck');
	#states = new KeptById('SyncControlState');
	/** @type {Map<string, KeptRecords>} */
	#progress = new Map();
	/** The leaves that need no look before there are newer ones. @type {WeakSet<Leaves>} */
	#done = new WeakSet();

	/**
	 * @param {object} options
	 * @param {any} options.core
	 * @param {import('../../bigquery.js').BigQueryConnection} options.connection
	 * @param {number} options.haste Divides the waiting times.
	 * @param {string} options.node
	 * @param {() => string[]} options.nodes The nodes that are alive.
	 * @param {() => boolean} options.isSpeaker Whether this thread compares for its node.
	 * @param {() => [string, any][]} options.running The tables that this thread runs, each with its sync.
	 * @param {(table: string) => string} options.targetOf The name of a table's target.
	 * @param {{dead: boolean}} options.instance The instance of the core.
	 */
	constructor({ core, connection, haste, node, nodes, isSpeaker, running, targetOf, instance }) {
		this.core = core;
		this.connection = connection;
		this.haste = haste;
		this.node = node;
		this.nodes = nodes;
		this.isSpeaker = isSpeaker;
		this.running = running;
		this.targetOf = targetOf;
		this.instance = instance;
	}

	start() {
		const look = oneByOne(() => this.#lookAtAll(), "this node's copy is not compared with the source");
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
		if (this.#isOver() || !this.isSpeaker()) return;
		const syncs = new Map(this.running());
		for (const leaves of await this.#leaves.read()) {
			const sync = syncs.get(leaves.tableId);
			const target = sync && findTable(this.targetOf(leaves.tableId));
			if (this.#done.has(leaves) || !target || sync.isRepairing()) continue;
			const before = await this.#checks.read(`${leaves.id}@${this.node}`);
			if (this.#isOver()) return;
			const progress = await this.#progressOf(leaves.tableId).read();
			if (this.#isOver()) return;
			const failedAt = this.#failures.get(leaves);
			if (failedAt !== undefined && performance.now() - failedAt < RETRY_MS) continue;
			if (this.core.isCheckDue(before, leaves, progress)) await this.#try(leaves, before, target, sync);
			else if (before?.againAt === null && isOf(before, leaves)) this.#done.add(leaves);
		}
	}

	/** @param {string} tableId */
	#progressOf(tableId) {
		const known = this.#progress.get(tableId) ?? keptCheckpoints(tableId);
		this.#progress.set(tableId, known);
		return known;
	}

	/**
	 * Compares the copy, and goes on with other tables if that fails.
	 * @param {Leaves} leaves
	 * @param {any} before
	 * @param {any} target
	 * @param {any} sync
	 */
	async #try(leaves, before, target, sync) {
		try {
			await this.#compare(leaves, before, target, sync);
			this.#failures.delete(leaves);
		} catch (error) {
			if (this.#isOver()) return;
			if (!this.#failures.has(leaves)) {
				logger.warn?.(`bigquery-sync: ${leaves.tableId}: this node's copy could not be compared: ${error.message}`);
			}
			this.#failures.set(leaves, performance.now());
		}
	}

	/** @param {Leaves} leaves @param {any} before @param {any} target @param {any} sync */
	async #compare(leaves, before, target, sync) {
		const comparison = new this.core.CopyComparison(leaves);
		try {
			comparison.vet(sync, before);
			if (!leaves.refusal && !(await this.#addRows(comparison, leaves, target))) return;
			const rank = Math.max(0, this.nodes().sort().indexOf(this.node));
			const repairs = (await this.#states.read(leaves.tableId))?.repairs ?? 0;
			if (this.#isOver()) return;
			const isCertain = repairs > 0 && leaves.asked === repairs;
			const { check, repair, deletion, note } = comparison.conclude(before, this.node, rank, this.haste, isCertain);
			if (note) await this.#tell(leaves.tableId, note);
			await replace('SyncCheck', check);
			if (repair && !this.#isOver()) sync.repair(repair);
			if (deletion) await deleteRows(leaves.tableId, target, deletion, this.node, () => this.#isOver());
		} finally {
			if (!this.instance.dead) comparison.free();
		}
	}

	/** Adds all rows of both sides. Returns false if it could not. */
	async #addRows(comparison, leaves, target) {
		comparison.excuse(JSON.stringify(await rejectedIds(leaves, target)));
		do {
			if (!(await this.#addKeys(comparison))) {
				this.#done.add(leaves);
				return false;
			}
			await scan(target, {
				bounds: comparison.bounds(),
				attribute: comparison.cursorAttribute(),
				take: (texts) => this.#isOver() || comparison.add(JSON.stringify(texts)),
				signal: this.#stopped.signal,
			});
			if (this.#isOver()) return false;
		} while (comparison.looksCloser());
		return true;
	}

	/** Reads the list of keys, if there is one. Returns false if it is gone. */
	async #addKeys(comparison) {
		for (let request; !this.#isOver() && (request = comparison.request());) {
			const { status, body } = await this.connection.send(request, this.#stopped.signal);
			if (status === GONE) return false;
			if (status !== 200) throw new Error(`BigQuery answered ${status} when the keys were read`);
			if (!this.#isOver()) comparison.addPage(body);
		}
		return !this.#isOver();
	}

	/** @param {string} tableId @param {{kind: string, reason: string}} note */
	async #tell(tableId, { kind, reason }) {
		const at = new Date().toISOString();
		const id = `${tableId}:${kind}.${this.node}.${at}`;
		await findTable('SyncAudit').put({ id, tableId, kind, rowId: null, reason, nodeId: this.node, at });
		if (ALARMS.has(kind)) logger.warn?.(`bigquery-sync: ${tableId}: ${reason}`);
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
async function rejectedIds({ tableId, listing }, target) {
	const conditions = [
		{ attribute: 'tableId', value: tableId },
		{ attribute: 'kind', value: 'rejected_row' },
	];
	const ids = [];
	for await (const { rowId } of findTable('SyncAudit').search({ conditions })) {
		if (rowId && (listing || !(await target.get(rowId)))) ids.push(rowId);
	}
	return ids;
}
