/** The component on one worker thread: its configuration, the tables it runs, what it tells of them. */

import { BigQueryConnection } from '../bigquery.js';
import { loadCore } from '../core.js';
import { findTable, readAll, readMembers } from './database.js';
import { SchemaWatch } from './schema/watch.js';
import { TableHost } from './sync/table-host.js';
import { completeTargets } from './schema/target.js';

/** How often this worker's row in SyncWorker is written while something changes. */
const PUBLISH_INTERVAL_MS = 2_000;
/** A row that old is written anew although nothing changed, to show that the worker lives. */
const HEARTBEAT_MS = 30_000;
/** How often a node tells the others that it lives, and its workers look who else does. */
const BEAT_MS = 5_000;
/** How often this worker looks for commands that were given elsewhere. */
const WISH_LOOK_MS = 500;
/** Pause before a core that failed is replaced; it doubles with each failure. */
const REPLACE_DELAY_MS = 1_000;
const REPLACE_DELAY_MS_MAX = 60_000;

/**
 * @typedef {{key: string, message: string}} Problem
 * @typedef {{sync: any, host: TableHost, ended: Promise<unknown>, running: boolean, wish: number}} Run The wish is the
 *   version of the command that it follows.
 */

export class Component {
	/** @type {Problem[]} */
	problems = [];
	/** @type {string[]} */
	controlRoles = [];
	/** @type {{id: string, targetTable: string, autoStart: boolean, mayCreate: boolean}[]} */
	tables = [];
	version = '';
	/** Whether an application lists the component as a plugin. */
	isPlugin = false;

	/** @type {Map<string, Run>} */
	#runs = new Map();
	/** @type {any} */
	#configuration;
	/** @type {any} What this worker knows of the cluster. */
	#cluster;
	/** @type {any} */
	#connection;
	/** @type {any} */
	#scope;
	/** @type {Promise<void>} */
	#queue = Promise.resolve();
	#closed = false;
	/** @type {() => Promise<void>} Takes the same configuration again. */
	#restart = async () => {};
	/** The instance of the core that the tables run on; a panic ends it, and all of them with it. */
	#instance = { dead: false };
	#deaths = 0;
	/** @type {Map<string, any>} What is readable over REST by the doing of this worker. */
	#exposed = new Map();
	/** Whether the last attempt to complete the targets failed. */
	#incomplete = false;
	/** @type {Map<string, string>} The warning that was logged last of each table. */
	#warned = new Map();
	/** @type {Map<string, string>} What was logged last of each table. */
	#news = new Map();
	#published = { text: '', at: 0 };
	/** @type {NodeJS.Timeout | undefined} */
	#timer;
	/** @type {NodeJS.Timeout | undefined} */
	#beat;
	/** @type {Set<string>} The cluster's nodes, as they were seen last. */
	#members = new Set();
	/** @type {NodeJS.Timeout | undefined} */
	#wishTimer;
	/** @type {SchemaWatch | undefined} */
	#watch;

	constructor() {
		this.node = server.hostname ?? 'localhost';
		this.index = server.workerIndex ?? 0;
		this.count = server.workerCount ?? 1;
		this.name = `${this.node}-${this.index}`;
	}

	/**
	 * Takes a configuration, the first or a changed one. Returns at once; the tables start in the background.
	 * @param {any} scope
	 * @param {unknown} root
	 * @param {boolean} sharedRoot Whether other components' sections stand in it too.
	 */
	configure(scope, root, sharedRoot) {
		this.#scope = scope;
		this.#restart = () => this.configure(scope, root, sharedRoot);
		return this.#enqueue(async () => {
			await this.#stopAll();
			if (this.#closed) return;
			this.#instance = { dead: false };
			const core = await loadCore();
			this.version = core.version();
			this.#cluster = new core.Cluster(this.node);
			try {
				const surroundings = { emulatorHost: process.env.BIGQUERY_EMULATOR_HOST ?? null, sharedRoot };
				this.#configuration = new core.Configuration(JSON.parse(JSON.stringify(root ?? {})), surroundings);
			} catch (problems) {
				this.#refuse(problems);
				return;
			}
			await this.#begin();
		});
	}

	/** Follows the operators' wishes, which are in SyncControlState. */
	follow() {
		return this.#enqueue(() => this.#follow());
	}

	/**
	 * Follows them from now on, whichever worker of whichever node they are told to. A subscription would make Harper
	 * decode each row again that anybody writes into this database.
	 */
	followWishes() {
		let known = '';
		let failing = false;
		const look = async () => {
			try {
				const wishes = JSON.stringify(await readAll('SyncControlState'));
				failing = false;
				if (wishes === known) return;
				known = wishes;
				this.follow();
			} catch (error) {
				if (!failing) logger.error?.(`bigquery-sync: commands given on other workers are not noticed: ${error}`);
				failing = true;
			}
		};
		clearInterval(this.#wishTimer);
		this.#wishTimer = setInterval(look, WISH_LOOK_MS);
		this.#wishTimer.unref();
	}

	/** Ends everything, promptly and at a safe point. */
	close() {
		this.#closed = true;
		clearInterval(this.#timer);
		clearInterval(this.#beat);
		clearInterval(this.#wishTimer);
		this.#watch?.stop();
		if (!this.#instance.dead) for (const run of this.#runs.values()) stop(run);
		return this.#enqueue(() => this.#stopAll());
	}

	/** What this worker tells of itself. */
	snapshot() {
		const tables = this.#instance.dead ? [] : [...this.#runs.values()].map(({ sync }) => sync.status());
		const { name: id, node, index, version, problems } = this;
		return { id, node, index, version, tables, problems };
	}

	/** What this worker knows of the cluster's nodes. */
	nodes() {
		return this.#instance.dead ? [] : (this.#cluster?.nodes() ?? []);
	}

	/**
	 * Whether operators want a table to run.
	 * @param {{autoStart: boolean}} table
	 * @param {{desired: string} | undefined} wish
	 */
	static desired(table, wish) {
		return wish?.desired ?? (table.autoStart ? 'started' : 'stopped');
	}

	/**
	 * Compares a table's source with what is stored.
	 * @param {string} id
	 */
	schemaDiff(id) {
		if (!this.#watch) throw new Error('the component has not started yet');
		return this.#watch.report(id);
	}

	/** One thing at a time: starting, stopping and following never overlap. */
	#enqueue(action) {
		const done = this.#queue.then(action);
		this.#queue = done.catch((error) => logger.error?.(`bigquery-sync: ${error.stack ?? error}`));
		return this.#queue;
	}

	#refuse(problems) {
		if (!Array.isArray(problems)) throw problems;
		this.problems = problems;
		this.tables = [];
		if (this.index === 0) {
			for (const { key, message } of problems) logger.error?.(`bigquery-sync: configuration: ${key} ${message}`);
		}
		this.#startPublishing();
	}

	async #begin() {
		const summary = this.#configuration.summary();
		this.problems = [];
		this.tables = summary.tables;
		this.controlRoles = summary.controlRoles;
		this.#connection = new BigQueryConnection(summary.connection, this.#scope.directory ?? process.cwd());
		if (this.index === 0) {
			for (const { key, message } of summary.warnings) logger.warn?.(`bigquery-sync: configuration: ${key} ${message}`);
		}
		for (const { targetTable } of this.tables) this.#expose(targetTable);
		await this.#startBeating();
		const { tables, name } = this;
		const options = { configuration: this.#configuration, connection: this.#connection, tables, node: this.node, name };
		this.#watch?.stop();
		this.#watch = new SchemaWatch({ ...options, nodes: () => this.nodes(), instance: this.#instance });
		if (this.index === 0) this.#watch.start();
		await this.#follow();
		this.#startPublishing();
	}

	/** Tells the other nodes that this one lives, and looks who else does, again and again. */
	async #startBeating() {
		clearInterval(this.#beat);
		this.#beat = setInterval(() => this.#observe(true), BEAT_MS);
		this.#beat.unref();
		await this.#observe(true);
	}

	/** @param {boolean} [beats] Whether the node is to give a sign of life; its first worker does. */
	async #observe(beats = false) {
		try {
			if (beats && this.index === 0) {
				const now = new Date();
				const beat = { id: this.node, workers: this.count, beat: now.getTime(), updatedAt: now.toISOString() };
				await findTable('SyncNode').put(beat);
			}
			const [nodes, members] = await Promise.all([readAll('SyncNode'), readMembers()]);
			if (this.index === 0) await this.#tellRemoved(nodes, members);
			if (this.#instance.dead || this.#closed) return;
			this.#cluster.observe(nodes, members);
			const standing = this.#standing();
			for (const { sync } of this.#runs.values()) sync.place(standing);
		} catch (error) {
			logger.warn?.(`bigquery-sync: the cluster was not looked at: ${error}`);
		}
	}

	/** Tells who was removed from the cluster: Harper's own news of it may not arrive everywhere. */
	async #tellRemoved(nodes, members) {
		const gone = nodes.filter(({ id, removed }) => this.#members.has(id) && !members.includes(id) && !removed);
		for (const node of gone) {
			if (node.id !== this.node) await findTable('SyncNode').put({ ...node, removed: true });
		}
		this.#members = new Set(members);
	}

	#standing() {
		return this.#cluster.standing(this.index, this.count);
	}

	async #follow() {
		if (this.#closed || this.tables.length === 0) return;
		const wishes = new Map((await readAll('SyncControlState')).map((wish) => [wish.id, wish]));
		for (const table of this.tables) {
			const wish = wishes.get(table.id);
			const wanted = Component.desired(table, wish);
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

	#start(table, wish) {
		const worker = { node: this.node, index: this.index };
		const sync = this.#configuration.table(table.id, worker, this.#standing());
		const host = new TableHost({
			table,
			connection: this.#connection,
			onReport: (status) => this.#report(status),
			onTarget: (name) => this.#expose(name),
			instance: this.#instance,
			onDeath: (error) => this.#replaceCore(error),
		});
		/** @type {Run} */
		const run = { sync, host, running: true, ended: Promise.resolve(), wish };
		run.ended = host.run(sync).finally(() => {
			run.running = false;
		});
		this.#runs.set(table.id, run);
	}

	/** Goes on with a new instance of the core, from the checkpoints, after a pause that grows with each death. */
	#replaceCore(error) {
		const delay_ms = Math.min(REPLACE_DELAY_MS * 2 ** this.#deaths++, REPLACE_DELAY_MS_MAX);
		logger.error?.(`bigquery-sync: the core failed; it is replaced in ${delay_ms / 1000} s: ${error.stack ?? error}`);
		setTimeout(() => this.#restart(), delay_ms).unref();
	}

	async #stopAll() {
		this.#watch?.stop();
		const runs = [...this.#runs.values()];
		for (const run of runs) {
			// Nothing may be asked of a dead instance any more.
			if (this.#instance.dead) run.host.cancel();
			else stop(run);
		}
		if (!this.#instance.dead) await Promise.all(runs.map((run) => run.ended));
		this.#runs.clear();
		this.tables = [];
	}

	/** Makes a target readable over REST on this worker; tables made at run time are not by themselves. */
	#expose(name) {
		const table = findTable(name);
		const { resources } = this.#scope;
		const current = resources.get(name)?.Resource;
		// A table that was made anew is another one; whatever an application exports under the name stays.
		if (!table || current === table || (current && current !== this.#exposed.get(name))) return;
		resources.set(name, table);
		this.#exposed.set(name, table);
	}

	/** Whoever runs no sync of a table needs it complete, too: the rows arrive here all the same. */
	async #completeTargets() {
		try {
			await completeTargets(this.tables);
			this.#incomplete = false;
		} catch (error) {
			const { message } = error;
			if (!this.#incomplete) logger.error?.(`bigquery-sync: indexes of targets are missing on this node: ${message}`);
			this.#incomplete = true;
		}
	}

	/** Logs what people should know: neither each poll, nor each attempt. */
	#report(status) {
		const { id, state, lastError, warning } = status;
		// Who has no share of a table has nothing to say of it.
		if (state === 'standby') return;
		if (state === 'starting') {
			// A new run has news of its own, also if they are those of the run before.
			this.#news.delete(id);
			return;
		}
		if (warning !== null && this.#warned.get(id) !== warning) {
			this.#warned.set(id, warning);
			logger.warn?.(`bigquery-sync: ${id}: ${warning}`);
		}
		const news = lastError?.code ?? (state === 'running' ? 'idle' : state);
		if (this.#news.get(id) === news) return;
		this.#news.set(id, state === 'running' && lastError === null ? state : news);
		if (lastError === null) {
			const what = state === 'idle' ? 'up to date' : state;
			logger.info?.(`bigquery-sync: ${id}: ${what}, ${status.rows} rows, watermark ${status.watermark ?? 'none yet'}`);
		} else {
			const level = state === 'retrying' ? 'warn' : 'error';
			logger[level]?.(`bigquery-sync: ${id}: ${state} after ${lastError.code}: ${lastError.message}`);
		}
	}

	#startPublishing() {
		clearInterval(this.#timer);
		const publish = () =>
			this.#publish().catch((error) => logger.warn?.(`bigquery-sync: status not published: ${error}`));
		this.#timer = setInterval(publish, PUBLISH_INTERVAL_MS);
		this.#timer.unref();
		publish();
	}

	/** Tells the other workers and nodes what this one is doing. */
	async #publish() {
		await this.#completeTargets();
		for (const { targetTable } of this.tables) this.#expose(targetTable);
		const record = this.snapshot();
		const text = JSON.stringify(record);
		if (text === this.#published.text && Date.now() - this.#published.at < HEARTBEAT_MS) return;
		this.#published = { text, at: Date.now() };
		await findTable('SyncWorker').put({ ...record, updatedAt: new Date().toISOString() });
	}
}

function stop(run) {
	run.sync.stop();
	run.host.cancel();
}

/**
 * Returns this thread's component. Harper may load this module under several addresses, so the instance is kept
 * where all of them find it.
 * @returns {Component}
 */
export function component() {
	const key = Symbol.for('bigquery-sync.component');
	const place = /** @type {Record<symbol, Component>} */ (globalThis);
	place[key] ??= new Component();
	return place[key];
}
