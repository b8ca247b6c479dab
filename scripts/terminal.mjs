import { styleText } from 'node:util';

const NAME_WIDTH = 16;
const colourful = Boolean(process.stdout.isTTY) && !process.env.NO_COLOR;
/** What is going on at the same time. @type {string[]} */
const running = [];

/** A failure that the user can do something about: its message is printed alone, without a stack trace. */
export class ExpectedFailure extends Error {
	/**
	 * @param {string} message what happened and what to do
	 * @param {string} [output] what the failed tool printed, shown below the message
	 */
	constructor(message, output = '') {
		super(message);
		this.name = 'ExpectedFailure';
		this.output = output;
	}
}

/**
 * Colours a text where the terminal shows colours.
 *
 * @param {'dim' | 'bold' | 'red' | 'green' | 'yellow'} style
 * @param {string} text
 */
export function colour(style, text) {
	return colourful ? styleText(style, text) : text;
}

/** @param {number} bytes */
export function formatBytes(bytes) {
	if (bytes < 1000) return `${bytes} B`;
	if (bytes < 1_000_000) return `${Math.round(bytes / 1000)} kB`;
	return `${(bytes / 1_000_000).toFixed(1)} MB`;
}

/** @param {number} duration_ms */
export function formatSeconds(duration_ms) {
	return `${(duration_ms / 1000).toFixed(1)} s`;
}

/** @param {string} [text] */
export function print(text = '') {
	clearProgress();
	process.stdout.write(`${text}\n`);
	showProgress();
}

/**
 * Says why a step takes long, on a line of its own while the step is running.
 *
 * @param {string} text
 */
export function hint(text) {
	print(colour('dim', `  ${text}`));
}

/**
 * Does one step of work and prints one line about it: its name, what the work returned, and the seconds it took.
 *
 * @template T
 * @param {string} name
 * @param {() => Promise<T>} work what it returns is the line's detail when it is a text
 * @returns {Promise<T>}
 */
export async function step(name, work) {
	const started_ms = performance.now();
	try {
		const result = await busy(name, work);
		printStep('green', '✓', name, typeof result === 'string' ? result : '', started_ms);
		return result;
	} catch (error) {
		printStep('red', '✗', name, '', started_ms);
		throw error;
	}
}

/**
 * Shows on a terminal's last line what is going on while the work lasts.
 *
 * @template T
 * @param {string} name
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function busy(name, work) {
	running.push(name);
	showProgress();
	try {
		return await work();
	} finally {
		running.splice(running.lastIndexOf(name), 1);
		showProgress();
	}
}

/**
 * Runs a script's main function; prints what went wrong and sets the exit code when it fails.
 *
 * @param {() => Promise<unknown>} main
 */
export async function runMain(main) {
	try {
		await main();
	} catch (error) {
		process.exitCode = 1;
		printFailure(error);
	}
}

/** @param {unknown} error */
export function printFailure(error) {
	clearProgress();
	if (!(error instanceof ExpectedFailure)) {
		console.error(error);
		return;
	}
	if (error.output) console.error(`\n${error.output.trimEnd()}`);
	console.error(`\n${colour('red', error.message)}`);
}

function printStep(style, sign, name, detail, started_ms) {
	const duration_ms = performance.now() - started_ms;
	const seconds = duration_ms < 100 ? '' : colour('dim', `(${formatSeconds(duration_ms)})`);
	const line = [detail, seconds].filter(Boolean).join(' ');
	print(`${colour(style, sign)} ${name.padEnd(NAME_WIDTH)} ${line}`.trimEnd());
}

function showProgress() {
	clearProgress();
	if (running.length === 0 || !process.stdout.isTTY) return;
	// A line that wraps could not be cleared.
	const text = `· ${running.join(', ')} …`.slice(0, process.stdout.columns - 1);
	process.stdout.write(colour('dim', text));
}

function clearProgress() {
	if (process.stdout.isTTY) process.stdout.write('\r\x1b[K');
}
