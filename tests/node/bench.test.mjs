/** The benchmark's page server understands the queries that it answers. */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { loadCore } from '../../js/core.js';
import { selectedRows } from '../../scripts/bench/selection.mjs';
import { VESSEL_SCHEMA } from '../support/samples.mjs';
import { MemoryHost, wirePage } from '../support/wire.mjs';

const DAY_US = 86_400_000_000n;
const FIRST_US = 1_704_067_200_000_000n;
/** From the last microsecond of the first day on, each one some hours after the other; whole days are missing. */
const CURSORS = Array.from({ length: 700 }, (_, row) => FIRST_US + DAY_US - 1n + BigInt(row) * 37_000_000_007n).filter(
	(cursor) => (cursor / DAY_US) % 5n !== 0n
);
const ROWS = {
	rows: CURSORS.length,
	rowsUntil: (/** @type {bigint} */ cursor) => CURSORS.filter((one) => one <= cursor).length,
	extent: () => /** @type {[bigint, bigint]} */ ([CURSORS[0], /** @type {bigint} */ (CURSORS.at(-1))]),
};

/** Answers as a table that is partitioned by day, and keeps the queries for rows. */
class QueriedHost extends MemoryHost {
	/** @type {string[]} */
	queries = [];
	/** @type {any} */
	counts = null;

	/** @override */
	async load() {
		return { ...(await super.load()), checkpoints: [], counts: this.counts };
	}

	/** @param {any} counts */
	async shareCounts(counts) {
		this.counts = counts;
		return {};
	}

	/** @override @param {any} request */
	async send(request) {
		return { status: 200, date: new Date().toUTCString(), retryAfter: null, body: this.#body(request) };
	}

	/** @param {any} request */
	#body({ purpose, body }) {
		const encode = (/** @type {object} */ answer) => new TextEncoder().encode(JSON.stringify(answer));
		if (purpose === 'describeTable') {
			const timePartitioning = { type: 'DAY', field: 'timestamp' };
			return encode({ schema: { fields: VESSEL_SCHEMA }, timePartitioning, numRows: `${ROWS.rows}`, numBytes: '1' });
		}
		const { query } = JSON.parse(body);
		if (!query.includes('GROUP BY')) {
			this.queries.push(query);
			return encode(wirePage({ fields: VESSEL_SCHEMA, rows: [] }));
		}
		// Rows of the other days came after the counting; a condition instead of bounds tells whose they are.
		const days = [...new Set(CURSORS.map((cursor) => cursor / DAY_US))].filter((day) => day % 3n !== 1n);
		const rowsOf = (/** @type {bigint} */ day) => CURSORS.filter((cursor) => cursor / DAY_US === day).length;
		const rows = days.map((day) => ({ f: [{ v: `${day * DAY_US}` }, { v: `${rowsOf(day)}` }] }));
		return encode({ totalRows: `${rows.length}`, rows, jobComplete: true });
	}
}

/**
 * The first query of one of several workers, as the core words it.
 * @param {any} core
 * @param {{index: number, workers: number, counts: any}} worker
 */
async function queryOf(core, { index, workers, counts }) {
	const bigquery = { projectId: 'p', dataset: 'd', table: 't', timestampColumn: 'timestamp' };
	const configuration = new core.Configuration({ bigquery }, { emulatorHost: 'localhost:1', sharedRoot: false });
	const standing = { share: { position: index, workers }, isSettled: true, seenAt: null };
	const sync = configuration.table('t', { node: 'n', index }, standing);
	const host = new QueriedHost({ fields: VESSEL_SCHEMA, page: () => new Uint8Array() });
	host.counts = counts;
	const ended = host.run(sync);
	await host.idle;
	sync.stop();
	await ended;
	return { query: host.queries[0], counts: host.counts };
}

describe('the rows that a query selects', () => {
	test('are_those_of_the_days_that_the_worker_owns', async () => {
		const core = await loadCore();
		for (const workers of [1, 2, 4]) {
			let counts = null;
			for (let index = 0; index < workers; index++) {
				const asked = await queryOf(core, { index, workers, counts });
				counts = asked.counts;
				const found = selectedRows(asked.query, ROWS).flatMap(([from, to]) => CURSORS.slice(from, to));
				const owned = CURSORS.filter((cursor) => ((cursor / DAY_US) % 64n) % BigInt(workers) === BigInt(index));
				assert.deepEqual(found, owned, asked.query);
				assert.equal(/ IN \(/.test(asked.query), workers > 1, asked.query);
			}
		}
	});

	test('are_bounded_by_exact_instants', () => {
		const text = new Date(Number(CURSORS[3] / 1_000n)).toISOString().replace('T', ' ').slice(0, 23);
		const instant = `TIMESTAMP '${text}${String(CURSORS[3] % 1_000n).padStart(3, '0')}+00'`;
		const select = (/** @type {string} */ sign) =>
			selectedRows(`SELECT *\nFROM t\nWHERE \`timestamp\` ${sign} ${instant}`, ROWS);
		assert.deepEqual(select('<='), [[0, 4]]);
		assert.deepEqual(select('>'), [[4, CURSORS.length]]);
	});

	test('are_not_guessed_from_an_unknown_condition', () => {
		assert.throws(() => selectedRows("SELECT *\nFROM t\nWHERE `mmsi` = '1'", ROWS), /does not know/);
		assert.throws(() => selectedRows('SELECT *\nFROM t', ROWS), /cannot answer/);
	});
});
