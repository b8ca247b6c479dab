/**
 * Collects the statuses of all workers for a request. The threads of a node exchange their statuses without the
 * database. Another node answers a row in SyncQuestion with a row in SyncReport. It writes nothing unless it is asked.
 */

import { Changes } from '../changes.js';
import { readAll } from '../database.js';
import { KeptRecords } from '../kept-records.js';
import { regularly } from '../pulse.js';
import { replace } from '../stamps.js';

/** How often a node looks for questions of other nodes. */
const LOOK_MS = 500;
/** How long to wait for the answers of this node's threads, and of other nodes. */
const THREADS_WAIT_MS = 500;
const NODES_WAIT_MS = 2_000;
/** Answers of other nodes are used again for so long. */
const FRESH_MS = 1_000;
/** An older status of a thread does not count any more. */
const STALE_MS = 15_000;

/**
 * @typedef {{id: string, node: string, index: number, version: string, tables: any[], problems: any[], updatedAt: string}}
 *   Snapshot
 */

export class Reports {
	/** The last statuses of this node's other threads. @type {Map<number, Snapshot>} */
	#told = new Map();
	/** @type {Set<() => void>} Called for each status that arrives. */
	#waiting = new Set();
	#changes = new Changes();
	#questions = new KeptRecords('SyncQuestion');
	#stop = () => {};
	/** The questions that were answered. @type {string | undefined} */
	#answered;
	#isLooking = false;
	#askedAt = -Infinity;
	/** @type {Promise<void> | undefined} The question that is under way. */
	#asking;

	/**
	 * @param {object} options
	 * @param {string} options.node
	 * @param {number} options.count The node's workers.
	 * @param {import('./threads.js').Threads} options.threads
	 * @param {() => Snapshot} options.snapshot What this worker tells.
	 * @param {() => boolean} options.isSpeaker Whether this worker speaks for its node.
	 * @param {() => string[]} options.others The other nodes that are alive.
	 */
	constructor({ node, count, threads, snapshot, isSpeaker, others }) {
		this.node = node;
		this.count = count;
		this.threads = threads;
		this.snapshot = snapshot;
		this.isSpeaker = isSpeaker;
		this.others = others;
		threads.on('report?', () => threads.tell('report', this.snapshot()));
		threads.on('report', (snapshot) => {
			this.#told.set(snapshot.index, snapshot);
			for (const told of this.#waiting) told();
		});
	}

	/** Answers the other nodes from now on. */
	start() {
		this.#stop();
		this.#stop = regularly(() => this.#look(), LOOK_MS);
	}

	stop() {
		this.#stop();
	}

	/** Returns the statuses of all workers of all nodes that answer. @returns {Promise<Snapshot[]>} */
	async gather() {
		const [own] = await Promise.all([this.#gatherOwn(), this.#ask()]);
		const others = (await readAll('SyncReport')).filter(({ id }) => id !== this.node);
		return [...own, ...others.flatMap(({ workers }) => workers)];
	}

	/** @returns {Promise<Snapshot[]>} */
	async #gatherOwn() {
		const asked = new Date().toISOString();
		const own = this.snapshot();
		this.threads.tell('report?');
		const isComplete = () =>
			[...this.#told.values()].filter(({ updatedAt }) => updatedAt >= asked).length >= this.count - 1;
		await new Promise((resolve) => {
			const done = () => {
				clearTimeout(timer);
				this.#waiting.delete(look);
				resolve(undefined);
			};
			const look = () => isComplete() && done();
			const timer = setTimeout(done, THREADS_WAIT_MS);
			this.#waiting.add(look);
			look();
		});
		const isFresh = ({ index, updatedAt }) =>
			index !== own.index && index < this.count && Date.now() - Date.parse(updatedAt) < STALE_MS;
		return [own, ...[...this.#told.values()].filter(isFresh)];
	}

	/** Asks the other nodes, and waits for a limited time until those that are alive have answered. */
	#ask() {
		if (this.others().length === 0 || performance.now() - this.#askedAt < FRESH_MS) return this.#asking;
		this.#askedAt = performance.now();
		this.#asking = this.#askNow();
		return this.#asking;
	}

	async #askNow() {
		const number = Date.now();
		await replace('SyncQuestion', { id: this.node, number });
		const deadline = Date.now() + NODES_WAIT_MS;
		while (Date.now() < deadline) {
			const reports = new Map((await readAll('SyncReport')).map((report) => [report.id, report]));
			if (this.others().every((node) => reports.get(node)?.answers[this.node] === number)) break;
			await new Promise((resolve) => setTimeout(resolve, 50));
		}
		this.#askedAt = performance.now();
	}

	async #look() {
		if (this.#isLooking || !this.isSpeaker()) return;
		this.#isLooking = true;
		try {
			await this.#changes.look(() => this.#answer());
		} catch (error) {
			logger.warn?.(`bigquery-sync: the question of another node was not answered: ${error}`);
		}
		this.#isLooking = false;
	}

	async #answer() {
		const questions = (await this.#questions.read()).filter(({ id }) => id !== this.node);
		const answers = Object.fromEntries(questions.map(({ id, number }) => [id, number]));
		const text = JSON.stringify(answers);
		if (text !== this.#answered && questions.length > 0) {
			const workers = await this.#gatherOwn();
			await replace('SyncReport', { id: this.node, answers, workers });
		}
		this.#answered = text;
	}
}
