/**
 * Compares this node's copy of the tables with what BigQuery counted (SyncLeaves). One thread does so for its node. The
 * core decides when to compare, what follows from it, and what is read again.
 */

import { findTable } from '../database.js';
import { KeptById, KeptRecords, keptCheckpoints } from '../kept-records.js';
import { regularly } from '../pulse.js';
import { replace } from '../stamps.js';
import { scanIds } from './scan.js';

/** How often to look whether there is something to compare. */
const LOOK_MS = 2_000;

/** @typedef {{id: string, tableId: string, countedAt: string}} Leaves A row of SyncLeaves. */

export class CopyChecks {
	#stopLooking = () => {};
	#stopped = new AbortController();
	#isLooking = false;
	/** Whether the last look failed. This is logged once. */
	#failed = false;
	#leaves = new KeptRecords('SyncLeaves');
	#checks = new KeptById('SyncCheck');
	/** @type {Map<string, KeptRecords>} */
	#progress = new Map();
	/** The leaves that need no look before there are newer ones. @type {WeakSet<Leaves>} */
	#done = new WeakSet();

	/**
	 * @param {object} options
	 * @param {any} options.core
	 * @param {number} options.haste Divides the waiting times.
	 * @param {string} options.node
	 * @param {() => string[]} options.nodes The nodes that are alive.
	 * @param {() => boolean} options.isSpeaker Whether this thread compares for its node.
	 * @param {() => [string, any][]} options.running The tables that this thread runs, each with its sync.
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
		this.#stopLooking = regularly(() => this.#look(), LOOK_MS);
	}

	stop() {
		this.#stopped.abort();
		this.#stopLooking();
	}

	#isOver() {
		return this.#stopped.signal.aborted || this.instance.dead;
	}

	async #look() {
		if (this.#isLooking) return;
		this.#isLooking = true;
		try {
			if (!this.#isOver() && this.isSpeaker()) await this.#lookAtAll();
			this.#failed = false;
		} catch (error) {
			if (!this.#failed) logger.warn?.(`bigquery-sync: this node's copy is not compared with the source: ${error}`);
			this.#failed = true;
		}
		this.#isLooking = false;
	}

	async #lookAtAll() {
		const syncs = new Map(this.running());
		for (const leaves of await this.#leaves.read()) {
			const sync = syncs.get(leaves.tableId);
			const target = sync && findTable(this.targetOf(leaves.tableId));
			if (this.#done.has(leaves) || !target) continue;
			const before = await this.#checks.read(`${leaves.id}@${this.node}`);
			if (this.#isOver()) return;
			const progress = await this.#progressOf(leaves.tableId).read();
			if (this.#isOver()) return;
			if (this.core.isCheckDue(before, leaves, progress)) await this.#compare(leaves, before, target, sync);
			else if (before?.againAt === null && isOf(before, leaves)) this.#done.add(leaves);
		}
	}

	/** @param {string} tableId */
	#progressOf(tableId) {
		const known = this.#progress.get(tableId) ?? keptCheckpoints(tableId);
		this.#progress.set(tableId, known);
		return known;
	}

	/** @param {Leaves} leaves @param {any} before @param {any} target @param {any} sync */
	async #compare(leaves, before, target, sync) {
		const comparison = new this.core.CopyComparison(leaves);
		try {
			const add = (/** @type {string[]} */ ids) => comparison.add(`${ids.join('\n')}\n`);
			const [first, last] = comparison.bounds();
			await scanIds(target, { first, last, take: (ids) => this.#isOver() || add(ids), signal: this.#stopped.signal });
			if (this.#isOver()) return;
			const rejected = await rejectedIds(leaves.tableId, target);
			if (rejected.length > 0) add(rejected);
			const rank = Math.max(0, this.nodes().sort().indexOf(this.node));
			const { check, windows, note } = comparison.conclude(before, this.node, rank, this.haste);
			if (note) await this.#tell(leaves.tableId, note);
			await replace('SyncCheck', check);
			if (windows.length > 0 && !this.#isOver()) sync.repair(windows);
		} finally {
			if (!this.instance.dead) comparison.free();
		}
	}

	/** @param {string} tableId @param {{kind: string, reason: string}} note */
	async #tell(tableId, { kind, reason }) {
		const at = new Date().toISOString();
		const id = `${tableId}:${kind}.${this.node}.${at}`;
		await findTable('SyncAudit').put({ id, tableId, kind, rowId: null, reason, nodeId: this.node, at });
		if (kind === 'validation_differs') logger.warn?.(`bigquery-sync: ${tableId}: ${reason}`);
	}
}

/** Whether it was these leaves that the copy was compared with. @param {any} check @param {any} leaves */
function isOf(check, leaves) {
	return check.countedAt === leaves.countedAt && check.asked === leaves.asked;
}

/** The ids of rows that cannot be written: BigQuery counts them. @param {string} tableId @param {any} target */
async function rejectedIds(tableId, target) {
	const conditions = [
		{ attribute: 'tableId', value: tableId },
		{ attribute: 'kind', value: 'rejected_row' },
	];
	const ids = [];
	for await (const { rowId } of findTable('SyncAudit').search({ conditions })) {
		if (rowId && !(await target.get(rowId))) ids.push(rowId);
	}
	return ids;
}
