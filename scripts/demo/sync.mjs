import { setTimeout as sleep } from 'node:timers/promises';
import { pluginApplication } from '../../tests/support/application.mjs';
import { startHarper } from '../../tests/support/harper.mjs';
import { repository } from '../setup.mjs';
import { step } from '../terminal.mjs';
import { DemoFailure } from './failure.mjs';
import { TABLE } from './source.mjs';

export const TARGET = 'VesselPositions';
const LATENESS_S = 60;
/** How long the sync may fail to say how it is, or have a failure that should go away by itself. */
const TROUBLE_MAX_MS = 60_000;
const REQUEST_TIMEOUT_MS = 15_000;
const RATE_SPAN_MS = 5_000;

/**
 * Starts a Harper whose only application lists the component as a plugin.
 *
 * @param {import('./source.mjs').Source} source
 * @param {number} threads
 * @param {import('./ending.mjs').Ending} ending
 * @returns {Promise<import('../../tests/support/harper.mjs').HarperNode>}
 */
export async function startSync({ connection, dataset, poll_ms }, threads, ending) {
	const table = { id: TABLE, dataset, table: TABLE, timestampColumn: 'timestamp', targetTable: TARGET };
	const config = {
		bigquery: { ...connection, tables: [table] },
		sync: { pollInterval: poll_ms, lateness: LATENESS_S },
	};
	/** @type {any} */
	let harper;
	await step('Harper', async () => {
		const application = pluginApplication({ component: repository, config });
		ending.add('the application', async () => application.remove());
		harper = await startAnywhere({ application: application.path, threads });
		ending.add('Harper', () => harper.remove());
		return `at ${harper.httpUrl}, ${threads} worker thread${threads > 1 ? 's' : ''}`;
	});
	return harper;
}

/** On the usual loopback address if possible, because that is the one that every system has. */
async function startAnywhere(options) {
	/** @type {string[]} */
	const said = [];
	const attempt = (/** @type {string | undefined} */ address) => {
		return startHarper({ ...options, address, log: (line) => said.push(line) });
	};
	try {
		return await attempt('127.0.0.1').catch((error) => {
			if (error.code !== 'PORT_TAKEN') throw error;
			return attempt(undefined);
		});
	} catch (error) {
		const { code, message } = /** @type {any} */ (error);
		if (code === 'PORT_TAKEN') {
			throw new DemoFailure(code, 'The ports 19925 and 19926 are taken. End what listens there, perhaps another demo.');
		}
		const output = code === 'DEADLINE' ? said.join('\n').slice(-3_000) : '';
		throw new DemoFailure(
			'HARPER_START',
			'Harper did not start; the end of its log is above.',
			`${output}\n${message}`
		);
	}
}

/**
 * @typedef {object} Snapshot
 * @property {string} label For people.
 * @property {boolean} isIdle All that there was to read has been read.
 * @property {string} phase
 * @property {number | null} lag_s
 * @property {number} targetRows
 * @property {number} rowsPerSecond
 * @property {number} bytesBilled
 */

/** Looks at the sync from outside, as an operator does. */
export class Watch {
	#harper;
	#well_ms = performance.now();
	/** @type {{at_ms: number, rows: number}[]} */
	#history = [];

	/** @param {import('../../tests/support/harper.mjs').HarperNode} harper */
	constructor(harper) {
		this.#harper = harper;
	}

	/**
	 * @returns {Promise<Snapshot>}
	 * @throws {DemoFailure} When the sync needs somebody's help.
	 */
	async look() {
		for (;;) {
			if (!this.#harper.isAlive()) {
				throw new DemoFailure(
					'HARPER_ENDED',
					'Harper ended; the end of its log is above.',
					this.#harper.log().slice(-3_000)
				);
			}
			try {
				const [report, targetRows] = await Promise.all([this.#report(), this.#targetRows()]);
				return this.#judge(report, targetRows);
			} catch (error) {
				if (error instanceof DemoFailure) throw error;
				if (performance.now() - this.#well_ms > TROUBLE_MAX_MS) {
					const reason = /** @type {any} */ (error).message;
					throw new DemoFailure('NO_STATUS', `Harper does not say how the sync is doing: ${reason}`);
				}
				await sleep(200);
			}
		}
	}

	async #report() {
		const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
		const response = await this.#harper.request('/SyncControl', { signal });
		if (!response.ok) throw new Error(`GET /SyncControl answers ${response.status}`);
		return response.json();
	}

	async #targetRows() {
		const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
		const operation = { operation: 'describe_table', table: TARGET, exact_count: true };
		try {
			return Number((await this.#harper.operation(operation, { signal })).record_count);
		} catch (error) {
			// The sync creates the table once it knows the columns.
			if (/** @type {any} */ (error).name === 'HarperError') return 0;
			throw error;
		}
	}

	/** @returns {Snapshot} */
	#judge(report, targetRows) {
		const [problem] = report.configurationErrors;
		if (problem) {
			throw new DemoFailure('CONFIGURATION', `The sync refuses its configuration: ${problem.key} ${problem.message}`);
		}
		const workers = report.tables.flatMap((table) => table.workers);
		const failed = workers.find(({ lastError }) => lastError);
		if (!failed) this.#well_ms = performance.now();
		else if (failed.state !== 'retrying' || performance.now() - this.#well_ms > TROUBLE_MAX_MS) {
			throw syncFailure(failed);
		}
		const states = new Set(workers.map(({ state }) => state));
		const isIdle = states.size === 1 && states.has('idle');
		const isSteady = workers.length > 0 && workers.every(({ phase }) => phase === 'steady');
		const lags = workers.map(({ lagSeconds }) => lagSeconds);
		const phases = ['initial', 'catchup', 'steady'].filter((name) => workers.some(({ phase }) => phase === name));
		return {
			label: failed ? 'retrying' : isIdle || isSteady ? 'in sync' : workers.length > 0 ? 'copying' : 'starting',
			isIdle,
			phase: phases[0] ?? 'initial',
			lag_s: lags.length > 0 && lags.every((lag) => lag !== null) ? Math.max(...lags) : null,
			targetRows,
			rowsPerSecond: this.#rate(targetRows),
			bytesBilled: workers.reduce((sum, worker) => sum + worker.bytesBilled, 0),
		};
	}

	#rate(rows) {
		const now = { at_ms: performance.now(), rows };
		this.#history.push(now);
		while (this.#history.length > 2 && now.at_ms - this.#history[1].at_ms > RATE_SPAN_MS) this.#history.shift();
		const first = this.#history[0];
		const span_s = (now.at_ms - first.at_ms) / 1000;
		return span_s > 0 ? (rows - first.rows) / span_s : 0;
	}
}

function syncFailure({ lastError: { code, message } }) {
	return new DemoFailure('SYNC', `The sync reports ${code}: ${message}`);
}
