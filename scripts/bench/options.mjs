import { parseArgs } from 'node:util';
import { ExpectedFailure } from '../terminal.mjs';

const PARTS = ['decode', 'sync'];

export const USAGE = `Measures what copying a row costs: in the core alone, and on the whole way from BigQuery to Harper.

npm run bench -- [--only decode|sync] [--rows N] [--rounds N] [--profile PATH] [--json]

  --only PART     decode: pages to records, in the core and in plain JavaScript, without any server
                  sync: the whole way, against a bare loop of Harper's transactions that writes the same rows
  --rows N        rows to copy, default 1,000,000; at most 200,000 of them are used for decode
  --rounds N      rounds, of which the medians are told; default 3
  --profile PATH  writes CPU profiles of Harper's worker to PATH.sync.cpuprofile and PATH.ceiling.cpuprofile,
                  which Chrome's developer tools show; the figures then hold the profiler's own cost
  --json          ends with a line of JSON
  --help          prints this

The sync part installs and starts a BigQuery emulator and Harper (npm package harperdb, which has its own licence
terms: https://harperdb.io/legal/end-user-license-agreement). Figures of Harper itself are for your own eyes.`;

/**
 * @typedef {object} BenchOptions
 * @property {boolean} help
 * @property {string[]} parts
 * @property {number} rows
 * @property {number} rounds
 * @property {string | undefined} profile
 * @property {boolean} json
 */

/**
 * @param {string[]} args
 * @returns {BenchOptions}
 */
export function readOptions(args) {
	let values;
	try {
		({ values } = parseArgs({
			args,
			options: {
				only: { type: 'string' },
				rows: { type: 'string', default: '1000000' },
				rounds: { type: 'string', default: '3' },
				profile: { type: 'string' },
				json: { type: 'boolean', default: false },
				help: { type: 'boolean', default: false },
			},
		}));
	} catch (error) {
		throw new ExpectedFailure(`${error.message}\n\n${USAGE}`);
	}
	if (values.only !== undefined && !PARTS.includes(values.only)) {
		throw new ExpectedFailure(`--only is ${values.only}; it takes ${PARTS.join(' or ')}.`);
	}
	return {
		...values,
		parts: values.only === undefined ? PARTS : [values.only],
		rows: positive('rows', values.rows),
		rounds: positive('rounds', values.rounds),
		profile: values.profile,
	};
}

function positive(name, text) {
	const number = Number(String(text).replace(/[,_]/g, ''));
	if (Number.isInteger(number) && number > 0) return number;
	throw new ExpectedFailure(`--${name} is ${text}; it takes a whole number above 0.`);
}
