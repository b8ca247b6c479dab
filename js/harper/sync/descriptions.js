/**
 * Shares the descriptions of source tables between the threads of a node: they take turns in asking BigQuery, and tell
 * each other the answer. A thread never gets the same answer twice, because it asks again to learn of changes.
 */

/** An older description is requested again, however seldom the table is polled. */
const AGE_MS_MAX = 30_000;

/**
 * @typedef {import('../../bigquery.js').Request} Request
 * @typedef {{status: number, date: string | null, retryAfter: string | null, body: Uint8Array}} Answer
 * @typedef {{answer: Answer, askedAt: number, used: boolean}} Known
 */

export class Descriptions {
	/** @type {Map<string, Known>} By the requests' paths. */
	#known = new Map();
	/** When another thread asked whose answer has not come yet. @type {Map<string, number>} */
	#asked = new Map();
	/** @type {Map<string, Set<() => void>>} Called when another thread's answer has come. */
	#waiting = new Map();
	/** @type {Map<string, () => void>} Called when another thread has learnt of a change. */
	#wakers = new Map();

	/** @param {import('../cluster/threads.js').Threads} threads */
	constructor(threads) {
		this.threads = threads;
		threads.on('describing', ({ path, at }) => this.#asked.set(path, at));
		threads.on('described', (told) => this.#learn(told));
	}

	/**
	 * Asks BigQuery for a description, unless another thread has just done so.
	 * @param {Request} request
	 * @param {object} options
	 * @param {number} options.pollIntervalMs
	 * @param {() => void} options.onChange Called when another thread learns that the table has changed.
	 * @param {() => Promise<Answer>} options.send
	 * @returns {Promise<Answer>}
	 */
	async describe(request, { pollIntervalMs, onChange, send }) {
		const { path } = request;
		this.#wakers.set(path, onChange);
		const ageMs = Math.min(pollIntervalMs, AGE_MS_MAX);
		const found = request.renewToken ? undefined : (this.#take(path, ageMs) ?? (await this.#wait(request, ageMs)));
		if (found) return found;
		const askedAt = Date.now();
		this.threads.tell('describing', { path, at: askedAt });
		/** @type {Answer | undefined} */
		let answer;
		try {
			answer = await send();
			if (answer.status === 200) this.#known.set(path, { answer, askedAt, used: true });
			return answer;
		} finally {
			this.threads.tell('described', { path, askedAt, answer: answer?.status === 200 ? answer : null });
		}
	}

	/** @param {string} path @param {number} ageMs */
	#take(path, ageMs) {
		const known = this.#known.get(path);
		const age = known === undefined ? Infinity : Date.now() - known.askedAt;
		if (!known || known.used || age < 0 || age >= ageMs) return undefined;
		known.used = true;
		return known.answer;
	}

	/** Waits for another thread's answer, if one has asked. @param {Request} request @param {number} ageMs */
	async #wait({ path, timeoutMs }, ageMs) {
		const waited = (this.#asked.get(path) ?? -Infinity) + timeoutMs - Date.now();
		if (waited <= 0 || waited > timeoutMs) return undefined;
		await new Promise((resolve) => {
			const waiting = this.#waiting.get(path) ?? new Set();
			const done = () => {
				clearTimeout(timer);
				waiting.delete(done);
				resolve(undefined);
			};
			const timer = setTimeout(done, waited);
			timer.unref();
			waiting.add(done);
			this.#waiting.set(path, waiting);
		});
		return this.#take(path, ageMs);
	}

	/** @param {{path: string, askedAt: number, answer: Answer | null}} told */
	#learn({ path, askedAt, answer }) {
		this.#asked.delete(path);
		const before = this.#known.get(path);
		const hasChanged = answer !== null && before !== undefined && !isSame(before.answer.body, answer.body);
		if (answer !== null) this.#known.set(path, { answer, askedAt, used: false });
		for (const done of [...(this.#waiting.get(path) ?? [])]) done();
		if (hasChanged) this.#wakers.get(path)?.();
	}
}

/** @param {Uint8Array} one @param {Uint8Array} other */
function isSame(one, other) {
	return Buffer.compare(one, other) === 0;
}
