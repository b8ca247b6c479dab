import { colour, print } from '../terminal.mjs';

const SIGNALS = /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP']);
/** npm passes on the signal that the terminal has sent to all its processes already: one Ctrl-C arrives twice. */
const ECHO_MS = 1_000;
const CLEANUP_MS = 20_000;

/** The orderly end of the demo: what has to be undone, and the user's wish to end it. */
export class Ending {
	/** @type {{what: string, undo: () => Promise<unknown>}[]} */
	#cleanups = [];
	#wished_ms = 0;
	/** Settles when the user wants to end the demo. @type {Promise<void>} */
	wished;

	constructor() {
		/** @type {() => void} */
		let wish;
		this.wished = new Promise((resolve) => {
			wish = resolve;
		});
		for (const signal of SIGNALS) {
			// Those of set-up and of the bench end the process at once.
			process.removeAllListeners(signal);
			process.on(signal, () => {
				if (this.#wished_ms === 0) {
					this.#wished_ms = performance.now();
					wish();
				} else if (performance.now() - this.#wished_ms > ECHO_MS) {
					process.exit(130);
				}
			});
		}
	}

	/** Whether the user wants to end the demo. */
	get isWished() {
		return this.#wished_ms > 0;
	}

	/**
	 * @param {string} what
	 * @param {() => Promise<unknown>} undo
	 */
	add(what, undo) {
		this.#cleanups.push({ what, undo });
	}

	/**
	 * Undoes everything, the last first; what is still being started ends with this process.
	 * @returns {Promise<boolean>} Whether all of it went well.
	 */
	async cleanUp() {
		let isClean = true;
		for (const { what, undo } of this.#cleanups.reverse()) {
			const reason = await outcome(undo);
			if (reason === undefined) continue;
			isClean = false;
			print(colour('red', `  Could not remove ${what}: ${reason}. Please do it by hand.`));
		}
		this.#cleanups = [];
		return isClean;
	}
}

async function outcome(undo) {
	let timer;
	const late = new Promise((resolve) => {
		timer = setTimeout(() => resolve(`no end after ${CLEANUP_MS / 1000} s`), CLEANUP_MS);
	});
	const done = undo().then(
		() => undefined,
		(/** @type {any} */ error) => error?.message ?? String(error)
	);
	const reason = await Promise.race([done, late]);
	clearTimeout(timer);
	return reason;
}
