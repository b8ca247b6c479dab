import { ExpectedFailure } from '../terminal.mjs';

/** A failure of the demo that the user can do something about. */
export class DemoFailure extends ExpectedFailure {
	/**
	 * @param {string} code Stable, for programs.
	 * @param {string} message
	 * @param {string} [output]
	 */
	constructor(code, message, output) {
		super(message, output);
		this.code = code;
	}
}

/**
 * Turns whatever was thrown into something with a code, for people where the reason is known.
 *
 * @param {any} error
 * @returns {Error & {code: string}}
 */
export function explain(error) {
	if (error instanceof DemoFailure) return error;
	if (error instanceof ExpectedFailure) return new DemoFailure('SETUP', error.message, error.output);
	if (error?.code === 'NO_EMULATOR') return noEmulator(error);
	if (error?.name === 'BigQueryError') {
		return new DemoFailure('BIGQUERY', `BigQuery refused a request: ${error.message}`);
	}
	if (error?.code === 'DEADLINE') return new DemoFailure('DEADLINE', error.message);
	return Object.assign(error instanceof Error ? error : new Error(String(error)), { code: 'UNEXPECTED' });
}

/** The reason is the first line; what a tool has printed follows it. */
function noEmulator(error) {
	const [reason, ...output] = error.message.split('\n');
	return new DemoFailure('NO_EMULATOR', reason.replace(/:$/, '; its output is above.'), output.join('\n'));
}
