/** The component on one worker thread: takes the configuration, and starts and stops everything that it requires. */

import { createHash } from 'node:crypto';

import { BigQueryConnection } from '../bigquery.js';
import { loadCore } from '../core.js';
import { AuditRetention } from './audit.js';
import { Deliveries } from './cluster/deliveries.js';
import { Heartbeat } from './cluster/heartbeat.js';
import { Reports } from './cluster/reports.js';
import { Threads } from './cluster/threads.js';
import { Commands } from './commands.js';
import { Exposure } from './rest/exposure.js';
import { Completion } from './schema/completion.js';
import { Indexes } from './schema/indexes.js';
import { SchemaWatch } from './schema/watch.js';
import { Descriptions } from './sync/descriptions.js';
import { Runs } from './sync/runs.js';
import { timeZones } from './time-zones.js';
import { CopyChecks } from './validation/copy-checks.js';
import { Neighbours } from './validation/neighbours.js';
import { Sweeps } from './validation/sweeps.js';

/** Divides the times for which the nodes of a cluster wait for each other. Tests set it. */
const HASTE = Number(process.env.BIGQUERY_SYNC_CLUSTER_HASTE ?? 1);

/** Pause before a core that failed is replaced; it doubles with each failure. */
const REPLACE_DELAY_MS = 1_000;
const REPLACE_DELAY_MS_MAX = 60_000;

/**
 * @typedef {{key: string, message: string}} Problem
 * @typedef {{id: string, targetTable: string, autoStart: boolean, mayCreate: boolean,
 *   pollIntervalMs: number, isValidated: boolean, isMirrored: boolean}} Table
 */

export class Component {
	/** @type {Problem[]} */
	problems = [];
	/** @type {string[]} */
	controlRoles = [];
	/** @type {Table[]} */
	tables = [];
	version = '';
	/** Whether an application lists the component as a plugin. */
	isPlugin = false;

	#exposure = new Exposure();
	#commands = new Commands(() => this.follow());
	#threads = new Threads();
	#descriptions = new Descriptions(this.#threads);
	/** @type {Reports} */
	#reports;
	#completion = new Completion({
		tables: () => this.tables,
		indexes: () => (this.#instance.dead ? undefined : this.#indexes),
	});
	/** @type {Heartbeat | undefined} */
	#heartbeat;
	/** @type {Deliveries | undefined} */
	#deliveries;
	/** What is done about this node's copies. @type {import('./validation/node-look.js').NodeLook[]} */
	#copyLooks = [];
	/** @type {SchemaWatch | undefined} */
	#watch;
	/** @type {Indexes | undefined} */
	#indexes;
	/** @type {AuditRetention | undefined} */
	#retention;
	/** @type {Runs | undefined} */
	#runs;
	/** @type {any} */
	#scope;
	/** @type {Promise<void>} */
	#queue = Promise.resolve();
	#closed = false;
	/** @type {() => Promise<void>} Takes the same configuration again. */
	#restart = async () => {};
	/** The instance of the core that everything here uses; a panic ends it. */
	#instance = { dead: false };
	#deaths = 0;

	constructor() {
		this.node = server.hostname ?? 'localhost';
		this.index = server.workerIndex ?? 0;
		this.count = server.workerCount ?? 1;
		this.name = `${this.node}-${this.index}`;
		this.#reports = new Reports({
			node: this.node,
			count: this.count,
			threads: this.#threads,
			snapshot: () => this.#snapshot(),
			isSpeaker: () => this.#heartbeat?.isSpeaker() ?? false,
			others: () => this.nodes().flatMap(({ node, alive }) => (alive && node !== this.node ? [node] : [])),
		});
	}

	/**
	 * Takes a configuration, the first or a changed one. Returns at once; the tables start in the background.
	 * @param {any} scope
	 * @param {unknown} root
	 * @param {boolean} sharedRoot Whether it also contains other components' sections.
	 */
	configure(scope, root, sharedRoot) {
		this.#scope = scope;
		this.#restart = () => this.configure(scope, root, sharedRoot);
		return this.#enqueue(async () => {
			await this.#end();
			if (this.#closed) return;
			this.#instance = { dead: false };
			const core = await loadCore();
			this.version = core.version();
			const cluster = new core.Cluster(this.node, this.index, this.count, HASTE);
			const text = JSON.stringify(root ?? {});
			const fingerprint = createHash('sha256').update(text).digest('base64');
			const plainRoot = JSON.parse(text);
			const emulatorHost = process.env.BIGQUERY_EMULATOR_HOST ?? null;
			const zones = await timeZones(core.zoneNames(plainRoot));
			let configuration;
			try {
				configuration = new core.Configuration(plainRoot, { emulatorHost, sharedRoot, timeZones: zones });
			} catch (problems) {
				this.#refuse(problems);
			}
			await this.#begin(core, cluster, fingerprint, configuration);
			this.#completion.start();
		});
	}

	/** Follows the operators' commands from now on, whichever worker of whichever node got them. */
	followCommands() {
		this.#commands.watch();
	}

	/** Makes the targets that this thread knows readable over REST. Whichever thread made them tells nobody. */
	exposeTargets() {
		for (const { targetTable } of this.tables) this.#exposure.expose(this.#scope.resources, targetTable);
	}

	/** Follows the commands that are recorded now. */
	follow() {
		return this.#enqueue(async () => {
			if (!this.#closed) await this.#runs?.follow(await this.#commands.read());
		});
	}

	/** Ends everything, promptly and at a safe point. */
	close() {
		this.#closed = true;
		this.#completion.stop();
		this.#reports.stop();
		this.#commands.stop();
		this.#stopLooking();
		this.#runs?.stop();
		return this.#enqueue(() => this.#end());
	}

	/** Returns the statuses of all workers of all nodes that answer. */
	workers() {
		return this.#reports.gather();
	}

	/** What this worker knows of the cluster's nodes. */
	nodes() {
		return this.#heartbeat?.nodes() ?? [];
	}

	/** Returns the problems that have lasted for a while. */
	alarms() {
		return this.#heartbeat?.alarms() ?? [];
	}

	/** The partitions of a table that no worker reads. @param {string} table */
	unread(table) {
		return this.#heartbeat?.unread(table) ?? null;
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

	/** @param {unknown} problems What the core finds wrong with the configuration. */
	#refuse(problems) {
		if (!Array.isArray(problems)) throw problems;
		this.problems = problems;
		this.#log('error', problems);
	}

	/**
	 * Starts the heartbeat and the tables. A node whose configuration is refused has a heartbeat too, and tells the
	 * others that it runs nothing.
	 * @param {any} core
	 * @param {any} cluster
	 * @param {string} fingerprint Of the configuration.
	 * @param {any} [configuration]
	 */
	async #begin(core, cluster, fingerprint, configuration) {
		const { node, index, count } = this;
		this.#heartbeat = new Heartbeat({
			cluster,
			haste: HASTE,
			node,
			index,
			count,
			threads: this.#threads,
			configuration: fingerprint,
			instance: this.#instance,
			work: () => (configuration === undefined ? [] : (this.#runs?.work() ?? null)),
			steps: () => this.#runs?.steps,
			wanted: () => this.#runs?.wanted() ?? [],
			onNews: () => this.#runs?.place(),
		});
		if (configuration !== undefined) this.#take(configuration);
		await this.#heartbeat.start(this.tables.map(({ id }) => id));
		if (configuration !== undefined) await this.#run(core, configuration);
		this.#heartbeat.tell();
		this.#reports.start();
	}

	/** @param {any} configuration */
	#take(configuration) {
		const { tables, controlRoles, warnings } = configuration.summary();
		this.problems = [];
		this.tables = tables;
		this.controlRoles = controlRoles;
		this.#log('warn', warnings);
		this.exposeTargets();
	}

	/** @param {any} core @param {any} configuration */
	async #run(core, configuration) {
		const { node, index, name, tables } = this;
		const instance = this.#instance;
		const directory = this.#scope.directory ?? process.cwd();
		const summary = configuration.summary();
		const connection = new BigQueryConnection(summary.connection, directory);
		const nodes = () => this.nodes();
		this.#watch = new SchemaWatch({ configuration, connection, tables, node, name, nodes, instance });
		if (index === 0) this.#watch.start();
		const turn = (build, sight) => configuration.indexTurn(build, sight);
		this.#indexes = new Indexes({ isFirst: index === 0, turn });
		this.#retention = new AuditRetention(summary.auditRetentionDays, () => this.#isFirst());
		this.#retention.start();
		this.#runs = new Runs({
			configuration,
			connection,
			tables,
			worker: { node, index },
			standing: (table) => this.#heartbeat?.standing(table),
			place: (table, sync) => this.#heartbeat?.place(table, sync),
			descriptions: this.#descriptions,
			onIndexes: (name) => this.#indexes?.expect(name),
			onTarget: (name) => {
				this.#exposure.expose(this.#scope.resources, name);
				this.#completion.look();
			},
			instance,
			onDeath: (error) => this.#replaceCore(error),
		});
		this.#deliveries = new Deliveries({
			node,
			isSpeaker: () => this.#heartbeat?.isSpeaker() ?? false,
			running: () => this.#runs?.running() ?? [],
			instance,
		});
		this.#deliveries.start();
		this.#startComparing(core, connection);
		await this.#runs.follow(await this.#commands.read());
	}

	/** Compares this node's copies with BigQuery, and with those of other nodes. */
	#startComparing(core, connection) {
		const surroundings = {
			core,
			haste: HASTE,
			node: this.node,
			nodes: () => this.nodes(),
			isSpeaker: () => this.#heartbeat?.isSpeaker() ?? false,
			running: () => this.#runs?.running() ?? [],
			targetOf: (table) => this.tables.find(({ id }) => id === table)?.targetTable ?? '',
			instance: this.#instance,
		};
		const checks = new CopyChecks(surroundings, connection);
		this.#copyLooks = [checks, new Neighbours(surroundings), new Sweeps(surroundings)];
		for (const look of this.#copyLooks) look.start();
	}

	/** Whether this is the one thread of the cluster that does what only one should do. */
	#isFirst() {
		const alive = this.nodes().flatMap(({ node, alive: isAlive }) => (isAlive ? [node] : []));
		return this.#heartbeat?.isSpeaker() === true && [this.node, ...alive].sort()[0] === this.node;
	}

	#snapshot() {
		const { name: id, node, index, version, problems } = this;
		const tables = this.#runs?.statuses() ?? [];
		for (const table of tables) table.indexes = this.#indexes?.stateOf(table.target) ?? table.indexes;
		return { id, node, index, version, tables, problems, updatedAt: new Date().toISOString() };
	}

	/** Logs problems that all workers find, on the first worker alone. @param {'warn' | 'error'} level @param {Problem[]} found */
	#log(level, found) {
		if (this.index !== 0) return;
		for (const { key, message } of found) logger[level]?.(`bigquery-sync: configuration: ${key} ${message}`);
	}

	#stopLooking() {
		this.#deliveries?.stop();
		for (const look of this.#copyLooks) look.stop();
		this.#heartbeat?.stop();
		this.#watch?.stop();
		this.#indexes?.stop();
		this.#retention?.stop();
	}

	async #end() {
		this.#stopLooking();
		this.#indexes = undefined;
		await this.#runs?.end();
		this.#runs = undefined;
		this.tables = [];
	}

	/** Continues with a new instance of the core, from the checkpoints, after a pause that grows with each failure. */
	#replaceCore(error) {
		const delay_ms = Math.min(REPLACE_DELAY_MS * 2 ** this.#deaths++, REPLACE_DELAY_MS_MAX);
		logger.error?.(`bigquery-sync: the core failed; it is replaced in ${delay_ms / 1000} s: ${error.stack ?? error}`);
		setTimeout(() => this.#restart(), delay_ms).unref();
	}
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
