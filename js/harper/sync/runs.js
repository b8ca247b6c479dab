/** The tables that this worker runs: each one is started, stopped and left alone as the operators want it. */

import { desired } from '../commands.js';
import { TableHost } from './table-host.js';

/**
 * @typedef {{sync: any, host: TableHost, ended: Promise<unknown>, running: boolean, wish: number}} Run The wish is the
 *   version of the command that it follows.
 * @typedef {{id: string, targetTable: string, autoStart: boolean}} Table
 */

export class Runs {
	/** @type {Map<string, Run>} */
	#runs = new Map();

	/**
	 * @param {object} options
	 * @param {any} options.configuration
	 * @param {import('../../bigquery.js').BigQueryConnection} options.connection
	 * @param {Table[]} options.tables
	 * @param {{node: string, index: number}} options.worker
	 * @param {() => any} options.standing Where the worker stands in the cluster.
	 * @param {(name: string) => void} options.onTarget Called when a target table is there.
	 * @param {{dead: boolean}} options.instance The instance of the core that the configuration belongs to.
	 * @param {(error: unknown) => void} options.onDeath Called when it died.
	 */
	constructor({ configuration, connection, tables, worker, standing, onTarget, instance, onDeath }) {
		this.configuration = configuration;
		this.tables = tables;
		this.worker = worker;
		this.standing = standing;
		this.instance = instance;
		this.surroundings = { connection, onTarget, instance, onDeath };
	}

	/** @param {Map<string, import('../commands.js').Wish>} wishes */
	async follow(wishes) {
		for (const table of this.tables) {
			const wish = wishes.get(table.id);
			const wanted = desired(table, wish);
			const run = this.#runs.get(table.id);
			// A run that gave up is started again by a command for its own table only.
			const isDue = !run || (!run.running && run.wish !== (wish?.version ?? 0));
			if (wanted === 'started' && isDue) this.#start(table, wish?.version ?? 0);
			if (wanted === 'stopped' && run?.running) {
				stop(run);
				await run.ended;
			}
		}
	}

	/** Tells all where the worker stands now. */
	place() {
		const standing = this.standing();
		for (const { sync } of this.#runs.values()) sync.place(standing);
	}

	/** What the tables are doing; nothing may be asked of a dead instance any more. */
	statuses() {
		return this.instance.dead ? [] : [...this.#runs.values()].map(({ sync }) => sync.status());
	}

	/** Asks all to end. */
	stop() {
		for (const run of this.#runs.values()) {
			if (this.instance.dead) run.host.cancel();
			else stop(run);
		}
	}

	/** Waits until all have ended, which a dead instance never tells. */
	async end() {
		this.stop();
		if (!this.instance.dead) await Promise.all([...this.#runs.values()].map((run) => run.ended));
		this.#runs.clear();
	}

	/** @param {Table} table @param {number} wish */
	#start(table, wish) {
		const sync = this.configuration.table(table.id, this.worker, this.standing());
		const host = new TableHost({ table, ...this.surroundings });
		/** @type {Run} */
		const run = { sync, host, running: true, ended: Promise.resolve(), wish };
		run.ended = host.run(sync).finally(() => {
			run.running = false;
		});
		this.#runs.set(table.id, run);
	}
}

/** @param {Run} run */
function stop(run) {
	run.sync.stop();
	run.host.cancel();
}
