/** Starts and stops the tables that this worker runs, as the operators command. */

import { desired } from '../commands.js';
import { TableHost } from './table-host.js';

/**
 * @typedef {{sync: any, host: TableHost, ended: Promise<unknown>, running: boolean, wish: number, validations?: number, resync?: number}} Run
 *   The wish is the version of the command that it follows.
 * @typedef {{id: string, targetTable: string, autoStart: boolean, pollIntervalMs: number, isValidated: boolean, isMirrored: boolean}} Table
 */

export class Runs {
	/** Grows with whatever may change what this worker does. */
	steps = 0;
	/** @type {Map<string, Run>} */
	#runs = new Map();
	/** @type {Map<string, import('../commands.js').Wish>} The commands that were followed last. */
	#wishes = new Map();

	/**
	 * @param {object} options
	 * @param {any} options.configuration
	 * @param {import('../../bigquery.js').BigQueryConnection} options.connection
	 * @param {Table[]} options.tables
	 * @param {{node: string, index: number}} options.worker
	 * @param {(table: string) => any} options.standing The worker's place in the cluster, for a table.
	 * @param {(table: string, sync: any) => void} options.place Tells a table's sync that place.
	 * @param {import('./descriptions.js').Descriptions} options.descriptions
	 * @param {(name: string) => void} options.onTarget Called when a target table is there.
	 * @param {(name: string) => void} options.onIndexes Called when a target need not wait for its indexes.
	 * @param {{dead: boolean}} options.instance The instance of the core that the configuration belongs to.
	 * @param {(error: unknown) => void} options.onDeath Called when it died.
	 */
	constructor({ configuration, tables, worker, standing, place, instance, ...surroundings }) {
		this.configuration = configuration;
		this.tables = tables;
		this.worker = worker;
		this.standing = standing;
		this.tellPlace = place;
		this.instance = instance;
		this.surroundings = { ...surroundings, worker, instance, onStep: () => this.steps++ };
	}

	/** @param {Map<string, import('../commands.js').Wish>} wishes */
	async follow(wishes) {
		this.#wishes = wishes;
		this.steps++;
		for (const table of this.tables) {
			const wish = wishes.get(table.id);
			const wanted = desired(table, wish);
			const run = this.#runs.get(table.id);
			// A run that gave up starts again only after a new command for its own table.
			const isDue = !run || (!run.running && run.wish !== (wish?.version ?? 0));
			if (wanted === 'started' && isDue) this.#start(table, wish?.version ?? 0);
			if (wanted === 'stopped' && run?.running) {
				stop(run);
				await run.ended;
			}
			if (run?.running && run.validations !== wish?.validations) run.sync.wake();
			if (run?.running && wish?.resync && run.resync !== wish.resync.number) run.sync.resync(wish.resync);
			if (run) [run.validations, run.resync] = [wish?.validations, wish?.resync?.number];
		}
	}

	/** Tells all tables the worker's place in the cluster. */
	place() {
		for (const [id, { sync }] of this.#runs) this.tellPlace(id, sync);
	}

	/** The tables that are being read, each with its sync. @returns {[string, any][]} */
	running() {
		return [...this.#runs].filter(([, run]) => run.running).map(([id, run]) => [id, run.sync]);
	}

	/** What this worker does for each table. The cluster divides the work by this. */
	work() {
		return this.tables.map(({ id }) => {
			const commanded = this.#wishes.has(id);
			const run = this.#runs.get(id);
			return run ? run.sync.work(commanded) : { id, effort: null, commanded, of: 0, partitions: [] };
		});
	}

	/** The tables that are to be read. */
	wanted() {
		const isWanted = (table) => desired(table, this.#wishes.get(table.id)) === 'started';
		return this.tables.filter(isWanted).map(({ id }) => id);
	}

	/** The statuses of the tables; none if the instance is dead, because it cannot be asked any more. */
	statuses() {
		return this.instance.dead ? [] : [...this.#runs.values()].map(({ sync }) => sync.status());
	}

	/** Asks all tables to stop. */
	stop() {
		for (const run of this.#runs.values()) {
			if (this.instance.dead) run.host.cancel();
			else stop(run);
		}
	}

	/** Stops all tables and waits until they have ended. With a dead instance, it does not wait: none would end. */
	async end() {
		this.stop();
		const runs = [...this.#runs.values()];
		if (!this.instance.dead) await Promise.all(runs.map((run) => run.ended));
		this.#runs.clear();
		for (const run of runs) this.#free(run);
	}

	/** Frees the memory of a run at once, because it may be large. @param {Run} run */
	#free(run) {
		run.host.leave();
		if (!this.instance.dead) run.sync.free();
	}

	/** @param {Table} table @param {number} wish */
	#start(table, wish) {
		const former = this.#runs.get(table.id);
		if (former) this.#free(former);
		const sync = this.configuration.table(table.id, this.worker, this.standing(table.id));
		const host = new TableHost({ table, ...this.surroundings });
		/** @type {Run} */
		const run = { sync, host, running: true, ended: Promise.resolve(), wish };
		run.ended = host.run(sync).finally(() => {
			run.running = false;
			this.steps++;
		});
		this.#runs.set(table.id, run);
		this.steps++;
	}
}

/** @param {Run} run */
function stop(run) {
	run.sync.stop();
	run.host.cancel();
}
