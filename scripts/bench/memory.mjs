import { readFileSync } from 'node:fs';

const EVERY_MS = 50;

/** @typedef {{rss: number, anonymous: number}} Memory In bytes: all resident pages, and those that no file backs. */

/** Watches a process's memory (Linux only; elsewhere nothing is known). */
export class MemoryWatch {
	/** @type {Memory | undefined} */
	#peak;
	/** @type {NodeJS.Timeout} */
	#timer;

	/** @param {number} pid */
	constructor(pid) {
		this.pid = pid;
		this.before = this.#look();
		this.#peak = this.before;
		this.#timer = setInterval(() => this.#look(), EVERY_MS);
	}

	/** @returns {Memory | undefined} */
	#look() {
		if (process.platform !== 'linux') return undefined;
		const status = readFileSync(`/proc/${this.pid}/status`, 'utf8');
		const bytes = (key) => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * 1024;
		const now = { rss: bytes('VmRSS'), anonymous: bytes('RssAnon') };
		const { rss, anonymous } = this.#peak ?? now;
		this.#peak = { rss: Math.max(now.rss, rss), anonymous: Math.max(now.anonymous, anonymous) };
		return now;
	}

	/** Ends, and tells by how much the memory had grown at its peak. */
	stop() {
		this.#look();
		clearInterval(this.#timer);
		const [before, peak] = [this.before, this.#peak];
		if (before === undefined || peak === undefined) return { rss_mb: null, anonymous_mb: null };
		return { rss_mb: (peak.rss - before.rss) / 1e6, anonymous_mb: (peak.anonymous - before.anonymous) / 1e6 };
	}
}
