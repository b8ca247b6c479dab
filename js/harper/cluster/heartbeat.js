/**
 * Writes the heartbeat of this node and reads those of the others. The threads tell each other what they run, and one
 * of them writes for the node. The core decides which thread that is, what it writes, and which share each worker has.
 */

import { readAll, readMembers } from '../database.js';
import { KeptRecords } from '../kept-records.js';
import { regularly } from '../pulse.js';
import { replace } from '../stamps.js';

/** How often a node writes its heartbeat and reads those of the others. */
const BEAT_MS = 5_000;
/** How often a thread checks whether the others should know something new about it. */
const LOOK_MS = 1_000;
/** News of several threads within this time go to the other nodes together. */
const GATHER_MS = 100;

export class Heartbeat {
	/** @type {(() => void)[]} What ends the regular looks. */
	#stops = [];
	#stopped = false;
	#rosters = new KeptRecords('SyncRoster');
	/** @type {Set<string>} The cluster's nodes, as they were seen last. */
	#members = new Set();
	/** What this thread told last, and when. */
	#told = { text: '', at: -Infinity, steps: /** @type {unknown} */ (undefined) };
	/** What the speaker saw last. @type {any} */
	#sight;
	/** @type {NodeJS.Timeout | undefined} */
	#gathering;
	/** @type {Promise<void>} */
	#looking = Promise.resolve();

	/**
	 * @param {object} options
	 * @param {any} options.cluster What this worker knows of the cluster.
	 * @param {number} options.haste How many times more often than usual heartbeats are written.
	 * @param {string} options.node
	 * @param {number} options.index The worker's.
	 * @param {number} options.count The node's workers.
	 * @param {import('./threads.js').Threads} options.threads
	 * @param {string} options.configuration A fingerprint of the thread's configuration.
	 * @param {{dead: boolean}} options.instance The instance of the core that the cluster belongs to.
	 * @param {() => any[] | null} options.work What this worker does for each table; null while it is not known.
	 * @param {() => unknown} options.steps Another value whenever that may have changed.
	 * @param {() => string[]} options.wanted The tables that are to be read.
	 * @param {() => void} options.onNews Called when the worker's share may have changed.
	 */
	constructor({ cluster, haste, node, index, count, threads, configuration, instance, work, steps, wanted, onNews }) {
		this.cluster = cluster;
		this.beat_ms = BEAT_MS / haste;
		this.node = node;
		this.index = index;
		this.count = count;
		this.threads = threads;
		this.configuration = configuration;
		this.instance = instance;
		this.work = work;
		this.steps = steps;
		this.wanted = wanted;
		this.onNews = onNews;
		/** By which other nodes know that this one has started. */
		this.started = Date.now();
	}

	/**
	 * Writes a heartbeat and reads the others, now and from now on.
	 * @param {string[]} tables The tables of the configuration. The other threads most likely have the same.
	 */
	async start(tables) {
		this.cluster.assume(tables, this.configuration);
		this.threads.on('hello', (hello) => this.#hear(hello));
		this.threads.on('cluster', (sight) => this.#take(sight));
		this.threads.on('who', () => this.#introduce());
		this.#stops = [regularly(() => this.#beat(), this.beat_ms), regularly(() => this.#tellNews(), LOOK_MS)];
		this.threads.tell('who');
		await this.#beat();
	}

	stop() {
		this.#stopped = true;
		clearTimeout(this.#gathering);
		for (const stop of this.#stops) stop();
	}

	/** Tells a thread that has just started what the others know. */
	#introduce() {
		if (this.#sight && this.isSpeaker()) this.threads.tell('cluster', this.#sight);
		this.#told.text = '';
		this.tell();
	}

	/** To ask the core is not worth while as long as no table has done anything. */
	#tellNews() {
		const isOld = performance.now() - this.#told.at >= BEAT_MS;
		if (isOld || this.steps() !== this.#told.steps) this.tell();
	}

	/** Tells the other threads what this one runs, if that has changed or was last told long ago. */
	tell() {
		const { text: textBefore, at, steps: stepsBefore } = this.#told;
		const [steps, now] = [this.steps(), performance.now()];
		const mayBeNew = this.instance.dead || textBefore === '' || steps !== stepsBefore;
		const tables = mayBeNew ? this.#tables() : null;
		if (this.#stopped || (mayBeNew && tables === null)) return;
		const text = mayBeNew ? JSON.stringify(tables) : textBefore;
		const isNews = text !== textBefore;
		this.#told.steps = steps;
		if (!isNews && now - at < BEAT_MS) return;
		this.#told = { text, at: now, steps };
		const hello = { index: this.index, configuration: this.configuration, tables: isNews ? tables : null };
		this.threads.tell('hello', hello);
		this.#hear(hello);
	}

	#tables() {
		return this.instance.dead ? [] : this.work();
	}

	/** @param {string} table */
	standing(table) {
		return this.cluster.standing(table);
	}

	/** Tells a table's sync the worker's place. @param {string} table @param {any} sync */
	place(table, sync) {
		this.cluster.place(table, sync);
	}

	isSpeaker() {
		return this.instance.dead ? this.index === 0 : this.cluster.isSpeaker();
	}

	nodes() {
		return this.instance.dead ? [] : this.cluster.nodes();
	}

	alarms() {
		return this.instance.dead ? [] : this.cluster.alarms();
	}

	/** @param {string} table */
	unread(table) {
		return this.instance.dead ? null : this.cluster.unread(table);
	}

	#isOver() {
		return this.instance.dead || this.#stopped;
	}

	#hear(hello) {
		if (this.#isOver()) return;
		this.cluster.hear(hello);
		if (!this.cluster.isSpeaker() || this.#gathering !== undefined || this.cluster.roster() === null) return;
		this.#gathering = setTimeout(() => {
			this.#gathering = undefined;
			this.#look();
		}, GATHER_MS);
		this.#gathering.unref();
	}

	/** @param {{heartbeats: any[], members: string[]}} sight What the speaker saw. */
	#take({ heartbeats, members }) {
		if (this.#isOver()) return;
		this.cluster.observe(heartbeats, members);
		this.cluster.watch(this.wanted());
		this.onNews();
	}

	async #beat() {
		// A node whose core has died is alive all the same, because the core is being replaced.
		if (!this.isSpeaker()) return;
		try {
			const { node: id, count: workers, started } = this;
			await replace('SyncNode', { id, workers, beat: Date.now(), started });
		} catch (error) {
			logger.warn?.(`bigquery-sync: the node's sign of life was not given: ${error}`);
		}
		await this.#look();
	}

	/** One look at a time. */
	#look() {
		const look = async () => {
			try {
				await this.#lookAround();
			} catch (error) {
				logger.warn?.(`bigquery-sync: the cluster was not looked at: ${error}`);
			}
		};
		this.#looking = this.#looking.then(look);
		return this.#looking;
	}

	async #lookAround() {
		const [nodes, rosters, members] = await Promise.all([readAll('SyncNode'), this.#rosters.read(), readMembers()]);
		await this.#tellRemoved(nodes, members);
		if (this.#isOver()) return;
		const told = new Map(rosters.map((roster) => [roster.id, roster]));
		const heartbeats = nodes.map((node) => ({ ...node, roster: told.get(node.id) ?? null }));
		this.cluster.observe(heartbeats, members);
		const roster = this.cluster.roster();
		if (roster !== null) {
			// The others must know before this worker acts.
			await replace('SyncRoster', { id: this.node, ...roster, at: new Date().toISOString() });
			if (this.#isOver()) return;
			for (const heartbeat of heartbeats) if (heartbeat.id === this.node) heartbeat.roster = roster;
			this.cluster.observe(heartbeats, members);
		}
		this.#sight = { heartbeats, members };
		this.threads.tell('cluster', this.#sight);
		for (const { level, text } of this.cluster.watch(this.wanted())) logger[level]?.(`bigquery-sync: ${text}`);
		this.onNews();
	}

	/** Tells all nodes which node was removed from the cluster, because Harper may not tell each of them. */
	async #tellRemoved(nodes, members) {
		const gone = nodes.filter(({ id, removed }) => this.#members.has(id) && !members.includes(id) && !removed);
		for (const node of gone) {
			if (node.id !== this.node) await replace('SyncNode', { ...node, removed: true });
		}
		this.#members = new Set(members);
	}
}
