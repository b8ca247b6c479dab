import http from 'node:http';

const EVERY_MS = 20;
const TIMEOUT_MS = 60_000;

/**
 * Sends a GET at a fixed rate, whether or not the ones before were answered, and notes how long each answer takes.
 */
export class LatencyProbe {
	#agent = new http.Agent({ keepAlive: true });
	/** @type {number[]} */
	#times_ms = [];
	#failures = 0;
	#pending = 0;
	/** @type {NodeJS.Timeout | undefined} */
	#timer;

	/** @param {string} url */
	constructor(url) {
		this.url = url;
	}

	start() {
		let next_ms = performance.now();
		const tick = () => {
			// A timer that comes late would space the requests out just when they are slow.
			for (; next_ms <= performance.now(); next_ms += EVERY_MS) this.#ask(performance.now() - next_ms);
			this.#timer = setTimeout(tick, next_ms - performance.now());
		};
		tick();
	}

	#ask(late_ms) {
		const asked_ms = performance.now() - Math.min(late_ms, 1);
		this.#pending++;
		const fail = () => {
			this.#failures++;
			this.#pending--;
		};
		const request = http.get(this.url, { agent: this.#agent, timeout: TIMEOUT_MS }, (response) => {
			response.resume();
			response.once('end', () => {
				if (response.statusCode !== 200) return fail();
				this.#times_ms.push(performance.now() - asked_ms);
				this.#pending--;
			});
		});
		request.once('timeout', () => request.destroy());
		request.once('error', fail);
	}

	/** Ends, and tells how long the answers took. */
	async stop() {
		clearTimeout(this.#timer);
		const until_ms = performance.now() + TIMEOUT_MS;
		while (this.#pending > 0 && performance.now() < until_ms) await new Promise((resolve) => setTimeout(resolve, 10));
		this.#agent.destroy();
		if (this.#failures > 0) throw new Error(`${this.#failures} requests of the latency probe failed`);
		const sorted = this.#times_ms.sort((one, other) => one - other);
		const at = (part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
		return { count: sorted.length, p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1) };
	}
}
