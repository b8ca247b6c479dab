/** What one thread does for its node all the time: it looks whether something is to be done about the node's copies. */

import { findTable, withoutValues } from '../database.js';
import { oneByOne, regularly } from '../pulse.js';
import { noteOf } from './notes.js';

/** How often to look. */
const LOOK_MS = 2_000;
/** How long to wait after a step that failed. */
const RETRY_MS = 60_000;

/**
 * @typedef {object} Surroundings
 * @property {any} core
 * @property {number} haste Divides the waiting times.
 * @property {string} node
 * @property {() => {node: string, alive: boolean}[]} nodes
 * @property {() => boolean} isSpeaker Whether this thread looks for its node.
 * @property {() => [string, any][]} running The tables that this thread runs, each with its sync.
 * @property {(table: string) => string} targetOf The name of a table's target.
 * @property {{dead: boolean}} instance The instance of the core.
 */

export class NodeLook {
	#stopLooking = () => {};
	#stopped = new AbortController();
	/** Aborted when this is stopped. */
	signal = this.#stopped.signal;

	/**
	 * @param {Surroundings} surroundings
	 * @param {string} consequence What is not done while the looks fail.
	 */
	constructor({ core, haste, node, nodes, isSpeaker, running, targetOf, instance }, consequence) {
		this.core = core;
		this.haste = haste;
		this.node = node;
		this.nodes = nodes;
		this.isSpeaker = isSpeaker;
		this.running = running;
		this.targetOf = targetOf;
		this.instance = instance;
		this.consequence = consequence;
	}

	start() {
		const look = oneByOne(() => this.#look(), this.consequence);
		this.#stopLooking = regularly(look, LOOK_MS);
	}

	stop() {
		this.#stopped.abort();
		this.#stopLooking();
	}

	/** Whether nothing may be done any more, nor the core be called. */
	isOver() {
		return this.signal.aborted || this.instance.dead;
	}

	async #look() {
		if (this.isOver()) return;
		if (this.isSpeaker()) await this.lookAtAll();
		else this.forget();
	}

	/**
	 * Looks at everything once.
	 * @abstract
	 * @returns {Promise<void>}
	 */
	lookAtAll() {
		throw new Error('a look has to say what it looks at');
	}

	/** Forgets what it knows only while it looks for its node. */
	forget() {}

	/** @param {string} table */
	findTarget(table) {
		return findTable(this.targetOf(table));
	}

	/** This node's place among those that are alive. */
	rank() {
		const alive = this.nodes().flatMap((one) => (one.alive ? [one.node] : []));
		return Math.max(0, alive.sort().indexOf(this.node));
	}

	/**
	 * Takes a step, unless it failed a short time ago. If it fails now, the look goes on with others; of several failures in
	 * a row, the first one is logged.
	 * @template K
	 * @param {K} key
	 * @param {() => Promise<void>} step
	 * @param {{get(key: K): number | undefined, set(key: K, at: number): unknown, delete(key: K): unknown}} failures When
	 *   steps failed.
	 * @param {string} consequence What was not done then.
	 */
	async attempt(key, step, failures, consequence) {
		const failedAt = failures.get(key);
		if (this.isOver() || (failedAt !== undefined && performance.now() - failedAt < RETRY_MS)) return;
		try {
			await step();
			failures.delete(key);
		} catch (error) {
			if (this.isOver()) return;
			if (failedAt === undefined) {
				logger.warn?.(`bigquery-sync: ${consequence}: ${withoutValues(error.message)}`);
			}
			failures.set(key, performance.now());
		}
	}

	/** Tells the audit of a table. @param {string} table @param {import('./notes.js').Note} note */
	async tell(table, note) {
		await findTable('SyncAudit').put(noteOf(table, this.node, note));
	}
}
