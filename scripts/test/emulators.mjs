/** BigQuery emulators that outlive a test file, for starting one takes longer than many a test. */

const LOOK_TIMEOUT_MS = 30_000;

/** The emulator of one lane: whoever runs there has it alone, and leaves nothing in it. */
export class LaneEmulator {
	/** @type {import('../../tests/support/emulator.mjs').Emulator | undefined} */
	#emulator;

	/** @returns {Promise<Record<string, string>>} What tells a test file of a running emulator. */
	async environment() {
		if (this.#emulator && !(await this.#answers())) await this.stop();
		if (!this.#emulator) {
			const { startEmulator } = await import('../../tests/support/emulator.mjs');
			this.#emulator = await startEmulator();
		}
		return { BIGQUERY_EMULATOR_HOST: this.#emulator.url };
	}

	async stop() {
		await this.#emulator?.stop();
		this.#emulator = undefined;
	}

	async #answers() {
		const { url, project } = /** @type {import('../../tests/support/emulator.mjs').Emulator} */ (this.#emulator);
		const signal = AbortSignal.timeout(LOOK_TIMEOUT_MS);
		const headers = { connection: 'close' };
		return fetch(`${url}/bigquery/v2/projects/${project}/datasets`, { signal, headers }).then(
			({ ok }) => ok,
			() => false
		);
	}
}
