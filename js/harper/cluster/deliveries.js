/**
 * Looks whether the commits of other nodes' workers have arrived on this node. One thread does so for its node. The
 * core decides which commits are missing, and reads their rows again.
 */

import { Changes } from '../changes.js';
import { oneByOne, regularly } from '../pulse.js';
import { putProof, readArrived, readToldCommit } from '../sync/witnesses.js';
import { readWorkers } from './workers.js';

/** How often to look, and how often if nothing has been committed for a while. */
const LOOK_MS = 1_000;
const IDLE_LOOK_MS = 5_000;
const IDLE_AFTER_MS = 60_000;
/** How many witnesses are read in a turn of the event loop, and how often more are looked for in one look. */
const READ_AT_ONCE = 64;
const ROUNDS_MAX = 64;

export class Deliveries {
	#stopLooking = () => {};
	#stopped = false;
	#changes = new Changes();
	/** The other nodes' workers. @type {string[]} */
	#others = [];
	/** When each table's commits were last looked at, and when one was last new. @type {Map<string, {looked: number, news: number}>} */
	#times = new Map();
	/** The numbers of the last known commits, by table and worker. @type {Map<string, number>} */
	#told = new Map();

	/**
	 * @param {object} options
	 * @param {string} options.node
	 * @param {() => boolean} options.isSpeaker Whether this thread looks for its node.
	 * @param {() => [string, any][]} options.running The tables that this thread runs, each with its sync.
	 * @param {{dead: boolean}} options.instance The instance of the core.
	 */
	constructor({ node, isSpeaker, running, instance }) {
		this.node = node;
		this.isSpeaker = isSpeaker;
		this.running = running;
		this.instance = instance;
	}

	start() {
		const look = oneByOne(() => this.#lookAtAll(), "other nodes' commits are not looked at");
		this.#stopLooking = regularly(look, LOOK_MS);
	}

	stop() {
		this.#stopped = true;
		this.#stopLooking();
	}

	#isOver() {
		return this.#stopped || this.instance.dead;
	}

	async #lookAtAll() {
		if (this.#isOver()) this.#stopLooking();
		if (this.#isOver() || !this.isSpeaker()) return;
		const running = this.running().filter(([table]) => this.#isDue(table));
		if (running.length === 0) return;
		await this.#changes.look(() => this.#readOthers());
		if (this.#others.length === 0) return;
		for (const [table, sync] of running) {
			const heads = await Promise.all(this.#others.map((name) => readToldCommit(table, name)));
			if (this.#isOver()) return;
			await this.#lookAt(
				table,
				sync,
				heads.filter((head) => head?.number !== undefined)
			);
		}
	}

	async #readOthers() {
		const workers = await readWorkers();
		this.#others = workers.flatMap(({ node, name }) => (node === this.node ? [] : [name]));
	}

	/** @param {string} table */
	#isDue(table) {
		const now = Date.now();
		const times = this.#times.get(table) ?? { looked: -Infinity, news: now };
		const pause = now - times.news > IDLE_AFTER_MS ? IDLE_LOOK_MS : LOOK_MS;
		if (now - times.looked < pause - LOOK_MS / 2) return false;
		this.#times.set(table, { ...times, looked: now });
		return true;
	}

	/** @param {string} table @param {any} sync @param {any[]} heads */
	async #lookAt(table, sync, heads) {
		this.#note(table, heads);
		// A node that was away for long looks for many witnesses, some at a time.
		for (let round = 0; round < ROUNDS_MAX; round++) {
			const missing = sync.missing(heads);
			let found = 0;
			// Once even if there is nothing to find: what was missing before may count as lost by now.
			for (let at = 0; at === 0 || at < missing.length; at += READ_AT_ONCE) {
				const some = missing.slice(at, at + READ_AT_ONCE);
				const witnesses = await Promise.all(some.map(([worker, number]) => readArrived(table, worker, number)));
				if (this.#isOver()) return;
				const there = witnesses.filter((witness) => witness !== null);
				for (const proof of sync.arrived(there)) await putProof(proof, this.node, {});
				found += there.length;
				await new Promise((resolve) => setImmediate(resolve));
			}
			if (this.#isOver() || found === 0 || found < missing.length) return;
		}
	}

	/** @param {string} table @param {{owner: string, number: number}[]} heads */
	#note(table, heads) {
		for (const { owner, number } of heads) {
			const key = `${table}:${owner}`;
			if (this.#told.get(key) === number) continue;
			this.#told.set(key, number);
			this.#times.set(table, { looked: Date.now(), news: Date.now() });
		}
	}
}
