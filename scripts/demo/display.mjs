import { colour } from '../terminal.mjs';

const LINE_INTERVAL_MS = 5_000;
/** Terminals echo Ctrl-C behind the line. */
const CTRL_C_WIDTH = 3;

/** @param {number} count */
export function formatCount(count) {
	return Math.round(count).toLocaleString('en');
}

/** @param {number | null | undefined} lag_s */
export function formatLag(lag_s) {
	if (lag_s === null || lag_s === undefined) return '…';
	if (lag_s < 120) return `${lag_s} s`;
	if (lag_s < 7_200) return `${Math.round(lag_s / 60)} min`;
	if (lag_s < 172_800) return `${Math.round(lag_s / 3_600)} h`;
	return `${formatCount(lag_s / 86_400)} days`;
}

/** What is going on, in one line: refreshed in place on a terminal, otherwise a new line every few seconds. */
export class StatusLine {
	#shown_ms = performance.now();
	#isTerminal = Boolean(process.stdout.isTTY);
	#shown = '';

	/**
	 * @param {string} text
	 * @param {(text: string) => string} [paint] Colours the text once it has been cut to the terminal's width.
	 */
	show(text, paint = (plain) => plain) {
		if (this.#isTerminal) {
			const width = (process.stdout.columns || 80) - CTRL_C_WIDTH;
			process.stdout.write(`\r${paint(text.slice(0, width))}\x1b[K`);
		} else if (text !== this.#shown && performance.now() - this.#shown_ms >= LINE_INTERVAL_MS) {
			this.#shown_ms = performance.now();
			process.stdout.write(`${text}\n`);
		}
		this.#shown = text;
	}

	/** Takes the line away; the next one comes at its time. */
	clear() {
		this.#shown_ms = performance.now();
		if (this.#isTerminal) process.stdout.write('\r\x1b[K');
	}
}

/**
 * @param {import('./sync.mjs').Snapshot} snapshot
 * @param {number} sourceRows
 */
export function statusText({ label, targetRows, lag_s, rowsPerSecond, phase }, sourceRows) {
	const width = formatCount(sourceRows).length;
	return [
		`  ${label.padEnd(8)}`,
		`BigQuery ${formatCount(sourceRows)}`,
		`Harper ${formatCount(targetRows).padStart(width)}`,
		`lag ${formatLag(lag_s).padEnd(4)}`,
		`${formatCount(rowsPerSecond).padStart(5)} rows/s`,
		phase,
	].join('  ');
}

/** @param {string} label */
export function painter(label) {
	const style = label === 'in sync' ? 'green' : label === 'copying' ? 'bold' : 'yellow';
	return (/** @type {string} */ text) => text.replace(label, colour(style, label));
}

/**
 * The addresses to look at.
 * @param {{harperUrl: string, credentials: {username: string, password: string}, target: string, bigQueryUrl: string}} places
 */
export function lookAround({ harperUrl, credentials, target, bigQueryUrl }) {
	const { username, password } = credentials;
	const rows = `${harperUrl}/${target}/?limit(5)`;
	return [
		colour('bold', '  Look around'),
		`    the sync  ${harperUrl}/SyncControl`,
		`    Harper    ${rows}`,
		`    BigQuery  ${bigQueryUrl}`,
		'',
		colour('bold', '  Or from another terminal'),
		`    curl -u ${username}:${password} '${rows}'`,
	];
}
