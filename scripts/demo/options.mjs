import { parseArgs } from 'node:util';

const ROWS_DEFAULT = 20_000;
const ROWS_MAX = 10_000_000;
const THREADS_MAX = 64;

const HELP = `Shows bigquery-sync at work. BigQuery (an emulator by default) has sample vessel positions, and a temporary Harper
keeps a table equal to them. The demo installs what it needs, including Harper under its own licence terms.

npm run demo                     runs until Ctrl-C, and adds some rows each second
npm run demo -- --once           copies a fixed number of rows, compares both sides row by row, and ends

Options
  --once              ends with exit code 0 when both sides are equal, otherwise with 1; the last line is JSON
  --rows N            sample rows, 1 to 10,000,000; default 20,000
  --threads N         Harper's worker threads, 1 to 64; default 1
  --location NAME     where BigQuery keeps the demo's dataset, for example EU; default US
  --emulator          uses an emulator although credentials are set
  --endpoint URL      another address of the BigQuery service, for example a private endpoint
  --help              prints this

Which BigQuery
  By default           an emulator that the demo installs, starts and ends.
  BIGQUERY_EMULATOR_HOST=host:port
                       an emulator that is running already, in the project GCP_PROJECT_ID (default test-project).
  GOOGLE_APPLICATION_CREDENTIALS=key.json
                       the real BigQuery, in the project GCP_PROJECT_ID or in that of the key. Queries may cost
                       money. The demo creates its own dataset there, and deletes it at the end.`;

const OPTIONS = /** @type {const} */ ({
	once: { type: 'boolean' },
	rows: { type: 'string' },
	threads: { type: 'string' },
	location: { type: 'string' },
	emulator: { type: 'boolean' },
	endpoint: { type: 'string' },
	help: { type: 'boolean', short: 'h' },
});

/** The command line is wrong. */
export class UsageError extends Error {}

/**
 * @typedef {object} DemoOptions
 * @property {boolean} help
 * @property {boolean} once
 * @property {number} rows
 * @property {number} threads
 * @property {string} location
 * @property {boolean} emulator
 * @property {string | undefined} endpoint Without a slash at its end.
 */

/**
 * @param {string[]} args
 * @returns {DemoOptions}
 */
export function parseOptions(args) {
	const { tokens } = parseArgs({ args, options: OPTIONS, strict: false, allowPositionals: true, tokens: true });
	/** @type {Record<string, any>} */
	const given = {};
	for (const token of tokens) {
		if (token.kind === 'positional') throw new UsageError(`What should “${token.value}” mean? It is no option.`);
		if (token.kind !== 'option') continue;
		const option = Object.hasOwn(OPTIONS, token.name) ? OPTIONS[token.name] : undefined;
		if (!option) throw new UsageError(`There is no option ${token.rawName}.`);
		if (Object.hasOwn(given, token.name)) throw new UsageError(`${token.rawName} is given twice.`);
		if (option.type === 'boolean' && token.value !== undefined) {
			throw new UsageError(`${token.rawName} takes no value.`);
		}
		if (option.type === 'string' && !token.value) throw new UsageError(`${token.rawName} needs a value.`);
		given[token.name] = token.value ?? true;
	}
	return {
		help: Boolean(given.help),
		once: Boolean(given.once),
		rows: wholeNumber('--rows', given.rows, ROWS_DEFAULT, ROWS_MAX),
		threads: wholeNumber('--threads', given.threads, 1, THREADS_MAX),
		location: locationName(given.location ?? 'US'),
		emulator: Boolean(given.emulator),
		endpoint: given.endpoint && httpAddress(given.endpoint),
	};
}

export function printHelp() {
	process.stdout.write(`${HELP}\n`);
	return 0;
}

/** @param {UsageError} error */
export function printUsageError(error) {
	process.stderr.write(`${error.message}\n\`npm run demo -- --help\` lists the options.\n`);
}

function wholeNumber(name, text, byDefault, max) {
	if (text === undefined) return byDefault;
	const plain = text.replaceAll(/[_,]/g, '');
	const number = /^\d{1,12}$/.test(plain) ? Number(plain) : 0;
	if (number >= 1 && number <= max) return number;
	throw new UsageError(`${name} is “${text}”; allowed is a whole number from 1 to ${max.toLocaleString('en')}.`);
}

function locationName(text) {
	if (/^[A-Za-z][A-Za-z0-9-]{1,40}$/.test(text)) return text;
	throw new UsageError(`--location is “${text}”; allowed is a BigQuery location, for example US or europe-west3.`);
}

function httpAddress(text) {
	const url = URL.canParse(text) ? new URL(text) : undefined;
	if (url && /^https?:$/.test(url.protocol) && url.pathname === '/' && !url.search && !url.username) return url.origin;
	throw new UsageError(`--endpoint is “${text}”; allowed is https://host or http://host:port.`);
}
