import { parseArgs } from 'node:util';
import { ExpectedFailure } from '../terminal.mjs';

const PARTS = ['decode', 'sync', 'delayed', 'freshness', 'workers', 'indexes', 'idle'];
const PACES = ['gentle', 'fast'];
/** What is measured unless something is asked for. */
const USUAL_PARTS = ['decode', 'sync', 'delayed', 'freshness'];

export const USAGE = `Measures what copying a row costs, in the core alone and on the whole way from BigQuery to Harper.

npm run bench -- [--only PART] [--rows N] [--rounds N] [--pace WORD] [--profile PATH] [--json]

  --only PART     measures one of these parts; the default is all but the last three
                  decode: pages to records, in the core and in plain JavaScript, without a server
                  sync: the whole way, against a bare loop of Harper's transactions that writes the same rows
                  delayed: the sync of prepared pages through a slow network, against the same without delay
                  freshness: the time from a row's appearance in BigQuery until it is in Harper
                  workers: the sync with 1, 2 and 4 worker threads of one Harper, against as many bare loops
                  indexes: the sync into tables with 0, 1 and 3 indexed attributes, against the bare loop
                  idle: the CPU of a node with 20 tables that do not change, against a Harper without the component
  --rows N        rows to copy, default 120,000; decode uses at most 200,000 of them, idle at most 2,000 for each table
  --rounds N      number of rounds, default 3; the results are the medians of all rounds. With idle, a round is 30 s,
                  and the result is that of the whole time
  --pace WORD     gentle or fast: the sync's configured pace, default gentle
  --profile PATH  writes CPU profiles of one of Harper's workers to PATH.sync.cpuprofile and
                  PATH.ceiling.cpuprofile, which Chrome's developer tools show; the results then
                  include the profiler's own cost. The parts workers and indexes insert the number of workers or
                  indexes: PATH.4.sync.cpuprofile. The part idle writes none
  --json          ends with a line of JSON
  --help          prints this

All parts but decode install and start Harper (npm package harperdb, which has its own licence terms:
https://harperdb.io/legal/end-user-license-agreement). The parts sync and freshness also install and start a
BigQuery emulator.
Do not publish results of Harper itself.`;

/**
 * @typedef {object} BenchOptions
 * @property {boolean} help
 * @property {string[]} parts
 * @property {number} rows
 * @property {number} rounds
 * @property {string} pace
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
				rows: { type: 'string', default: '120000' },
				rounds: { type: 'string', default: '3' },
				pace: { type: 'string', default: 'gentle' },
				profile: { type: 'string' },
				json: { type: 'boolean', default: false },
				help: { type: 'boolean', default: false },
			},
		}));
	} catch (error) {
		throw new ExpectedFailure(`${error.message}\n\n${USAGE}`);
	}
	if (values.only !== undefined && !PARTS.includes(values.only)) {
		throw new ExpectedFailure(`--only is ${values.only}; it takes one of ${PARTS.join(', ')}.`);
	}
	if (!PACES.includes(values.pace)) {
		throw new ExpectedFailure(`--pace is ${values.pace}; it takes one of ${PACES.join(', ')}.`);
	}
	return {
		...values,
		parts: values.only === undefined ? USUAL_PARTS : [values.only],
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
