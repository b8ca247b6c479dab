/** A node's signs of life, and those of the others: where this worker stands is decided by the core. */

import { findTable, readAll, readMembers } from '../database.js';

/** How often a node tells the others that it lives, and its workers look who else does. */
const BEAT_MS = 5_000;

export class Heartbeat {
	/** @type {NodeJS.Timeout | undefined} */
	#timer;
	#stopped = false;
	/** @type {Set<string>} The cluster's nodes, as they were seen last. */
	#members = new Set();

	/**
	 * @param {object} options
	 * @param {any} options.cluster What this worker knows of the cluster.
	 * @param {string} options.node
	 * @param {number} options.index The worker's.
	 * @param {number} options.count The node's workers.
	 * @param {{dead: boolean}} options.instance The instance of the core that the cluster belongs to.
	 * @param {() => void} options.onNews Called when the worker may stand elsewhere.
	 */
	constructor({ cluster, node, index, count, instance, onNews }) {
		this.cluster = cluster;
		this.node = node;
		this.index = index;
		this.count = count;
		this.instance = instance;
		this.onNews = onNews;
	}

	/** Beats and looks, now and again and again. */
	async start() {
		this.#timer = setInterval(() => this.#beat(), BEAT_MS);
		this.#timer.unref();
		await this.#beat();
	}

	stop() {
		this.#stopped = true;
		clearInterval(this.#timer);
	}

	standing() {
		return this.cluster.standing(this.index, this.count);
	}

	nodes() {
		return this.instance.dead ? [] : this.cluster.nodes();
	}

	async #beat() {
		try {
			if (this.index === 0) await this.#tell();
			const [nodes, members] = await Promise.all([readAll('SyncNode'), readMembers()]);
			if (this.index === 0) await this.#tellRemoved(nodes, members);
			if (this.instance.dead || this.#stopped) return;
			this.cluster.observe(nodes, members);
			this.onNews();
		} catch (error) {
			logger.warn?.(`bigquery-sync: the cluster was not looked at: ${error}`);
		}
	}

	/** A node's first worker tells that the node lives. */
	async #tell() {
		const now = new Date();
		const { node: id, count: workers } = this;
		await findTable('SyncNode').put({ id, workers, beat: now.getTime(), updatedAt: now.toISOString() });
	}

	/** Tells who was removed from the cluster: Harper's own news of it may not arrive everywhere. */
	async #tellRemoved(nodes, members) {
		const gone = nodes.filter(({ id, removed }) => this.#members.has(id) && !members.includes(id) && !removed);
		for (const node of gone) {
			if (node.id !== this.node) await findTable('SyncNode').put({ ...node, removed: true });
		}
		this.#members = new Set(members);
	}
}
