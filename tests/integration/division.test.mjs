/** How the workers of one node divide tables: nothing lost, nothing twice, and what it costs. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { VESSEL_SCHEMA, size, until, vesselPositions } from '../support/index.mjs';
import {
	PATIENCE_MS,
	assertEqual,
	readControl,
	startComponent,
	untilEqual,
	untilStatus,
} from './support/component.mjs';
import { backfillQueries, startSource } from './support/source.mjs';
import { WHERE, connectToEach } from './support/worker-connection.mjs';

const DAYS = 64;
const ROWS = size(6_400, 32_000);
const POLL_MS = 1_000;
/** A worker that does nothing for so long is slow, but lives. */
const HOLD_MS = 5_000;
/** Of many tables that do not change. */
const QUIET_POLL_MS = 10_000;
const TIMESTAMP_BYTES = 8;
const BY_DAY = { timePartitioning: { type: 'DAY', field: 'timestamp' } };
const EDGES = [
	'0001-01-01T00:00:00Z',
	'1582-10-15T00:00:00Z',
	'1969-12-31T23:59:59.999999Z',
	'1970-01-01T00:00:00Z',
	'2024-02-29T12:00:00.5Z',
	'9999-12-31T23:59:59.999999Z',
];

/** @type {import('./support/source.mjs').Source} */
let source;

before(async () => {
	source = await startSource();
});

after(() => source?.stop());

/** @param {import('../support/index.mjs').HarperNode} harper @param {string} id @returns {Promise<any[]>} */
async function workersOf(harper, id) {
	const { tables } = await readControl(harper);
	return tables.find((/** @type {{id: string}} */ table) => table.id === id).workers;
}

describe('each rule', () => {
	const rules = ['timestamp', 'minute', 'hour', 'day', 'month', 'table'];
	const types = [
		['timestamp', 'TIMESTAMP', {}],
		['datetime', 'DATETIME', {}],
		['date', 'DATE', {}],
		['seconds', 'INT64', { timestampUnit: 'seconds' }],
		['micros', 'INT64', { timestampUnit: 'microseconds' }],
	];
	/** @type {import('./support/component.mjs').Running} */
	let running;

	before(async () => {
		const schema = types.map(([name, type]) => ({ name: `${name}_at`, type }));
		await source.fill('instants', [{ name: 'number', type: 'INT64' }, ...schema], instants());
		const tables = rules.flatMap((rule) =>
			types.map(([name, , more]) => ({
				id: `${rule}_${name}`,
				table: 'instants',
				timestampColumn: `${name}_at`,
				partitionBy: rule,
				targetTable: `T_${rule}_${name}`,
				.../** @type {object} */ (more),
			}))
		);
		source.proxy.reset();
		const bigquery = { ...source.connection(), tables };
		running = await startComponent({ config: { bigquery, sync: { pollInterval: QUIET_POLL_MS } }, threads: 3 });
	});

	after(() => running?.remove());

	for (const rule of rules) {
		for (const [name] of types) {
			test(`by_${rule}_divides_a_${name}_cursor_without_loss_or_overlap`, async () => {
				const table = { table: 'instants', target: `T_${rule}_${name}`, cursor: `${name}_at` };
				await untilEqual({ source, harper: running.harper }, table);
				if (rule === 'table') return;
				const predicates = new Set(
					source.proxy
						.requests('jobs.query')
						.map(({ sql }) => sql ?? '')
						.map((sql) => /\n {2}AND ((?:MOD|\().*`(\w+)`.* IN \(.*\))$/m.exec(sql))
						.filter((found) => found !== null && found[2] === `${name}_at` && isOf(rule, found[1]))
						.map((found) => found?.[1])
				);
				assert.equal(predicates.size, 3, [...predicates].join('\n'));
				const parts = [...predicates].map((predicate) => `CAST(${predicate} AS INT64)`);
				const sql = `SELECT COUNT(*) AS n, COUNTIF(${parts.join(' + ')} = 1) AS once FROM d.instants`;
				const [{ n, once }] = await source.bigquery.query(sql);
				assert.equal(Number(once), Number(n));
			});
		}
	}
});

/** Whether a predicate is that of a rule. @param {string} rule @param {string} predicate */
function isOf(rule, predicate) {
	const marks = {
		timestamp: /FARM_FINGERPRINT/,
		minute: / 60000000\)/,
		hour: / 3600000000\)/,
		day: /, 86400000000\), 64\)/,
		month: /EXTRACT/,
	};
	return marks[rule].test(predicate);
}

function* instants() {
	let number = 0;
	const row = (/** @type {string} */ text) => {
		const [date, time] = text.slice(0, -1).split('T');
		const seconds = Math.floor(Date.parse(text) / 1_000);
		const micros = BigInt(seconds) * 1_000_000n + BigInt((time.split('.')[1] ?? '').padEnd(6, '0'));
		return {
			number: ++number,
			timestamp_at: text,
			datetime_at: `${date}T${time}`,
			date_at: date,
			seconds_at: `${seconds}`,
			micros_at: `${micros}`,
		};
	};
	for (const text of EDGES) yield row(text);
	for (const { timestamp } of vesselPositions({ rows: 200, days: 4_000, start: '1971-01-01T00:00:00Z' })) {
		yield row(timestamp);
	}
	for (let hour = 0; hour < 100; hour++) yield row(new Date(Date.UTC(1900, 0, 1) + hour * 9e9 + 250).toISOString());
	for (let second = 0; second < 200; second++) {
		yield row(new Date(Date.UTC(2024, 0, 1) + second * 1_000).toISOString());
	}
}

describe('the bill', () => {
	/** @type {import('../support/index.mjs').FaultProxy} */
	let meter;

	before(async () => {
		const rows = () => vesselPositions({ rows: ROWS, days: DAYS });
		for (const table of ['by_day', 'by_timestamp']) await source.fill(table, VESSEL_SCHEMA, rows(), BY_DAY);
		meter = await source.addProxy({ minimumBytes: 0 });
		meter.accounting = true;
		meter.maintainsModification = true;
		bills = { 1: await billsOf(1), 4: await billsOf(4) };
	});

	/**
	 * The bytes that backfills bill with so many workers, by table, those for counting apart.
	 * @typedef {Record<string, {reading: number, counting: number}>} Bills
	 * @type {Record<number, Bills>}
	 */
	let bills;

	/** @param {number} threads @returns {Promise<Bills>} */
	async function billsOf(threads) {
		meter.reset();
		const tables = [
			{ table: 'by_day', targetTable: 'ByDay' },
			{ table: 'by_timestamp', targetTable: 'ByTimestamp', partitionBy: 'timestamp' },
		];
		const bigquery = { ...source.connection(meter.url), timestampColumn: 'timestamp', tables };
		const running = await startComponent({ config: { bigquery, sync: { pollInterval: 600_000 } }, threads });
		try {
			const { harper } = running;
			const complete = async () => (await readControl(harper)).tables.every(({ rows }) => rows >= ROWS);
			await until(complete, { deadlineMs: PATIENCE_MS, what: 'all rows' });
			for (const { table, targetTable } of tables) {
				await assertEqual({ source, harper }, { table, target: targetTable });
				const workers = await workersOf(harper, table);
				assert.equal(workers.length, threads);
				for (const { partitions } of workers) assert.equal(partitions.length, 64 / threads);
			}
		} finally {
			await running.remove();
		}
		return Object.fromEntries(
			tables.map(({ table }) => {
				const asked = meter.requests('jobs.query').filter(({ sql }) => sql?.includes(`\`${table}\``));
				const counting = asked.filter(({ sql }) => /GROUP BY starts/.test(sql ?? ''));
				const bytes = (/** @type {typeof asked} */ some) => some.reduce((sum, one) => sum + one.bytesBilled, 0);
				return [table, { reading: bytes(asked) - bytes(counting), counting: bytes(counting) }];
			})
		);
	}

	test('does_not_grow_with_the_workers_of_a_table_that_is_partitioned_by_day', async (context) => {
		const { by_day: one } = bills[1];
		assert.equal(one.counting, 0);
		const { by_day: two } = await billsOf(2);
		for (const [threads, bill] of /** @type {const} */ ([
			[2, two],
			[4, bills[4].by_day],
		])) {
			context.diagnostic(`${threads} workers: ${(bill.reading / one.reading).toFixed(3)} of the bill of one`);
			const partition = one.reading / DAYS;
			assert.ok(
				Math.abs(bill.reading - one.reading) <= threads * partition,
				`${bill.reading} for ${one.reading} bytes`
			);
			// To tell their days apart without scanning those of others, one worker counts them, once.
			assert.equal(bill.counting, ROWS * TIMESTAMP_BYTES);
		}
	});

	test('grows_with_the_workers_of_a_table_that_is_divided_by_timestamp', (context) => {
		const growth = bills[4].by_timestamp.reading / bills[1].by_timestamp.reading;
		context.diagnostic(`4 workers: ${growth.toFixed(3)} of the bill of one`);
		assert.ok(Math.abs(growth - 4) < 0.05);
	});
});

describe('a table with a key', () => {
	/** @type {import('./support/component.mjs').Running} */
	let running;

	before(async () => {
		await source.fill('keyed', VESSEL_SCHEMA, vesselPositions({ rows: 2_000, vessels: 100 }), BY_DAY);
		const table = { table: 'keyed', timestampColumn: 'timestamp' };
		const tables = [
			{ ...table, id: 'alone', key: ['mmsi'], targetTable: 'Alone' },
			{ ...table, id: 'refused', key: ['mmsi'], targetTable: 'Refused', partitionBy: 'day' },
			{ ...table, id: 'divided', key: ['mmsi', 'timestamp'], targetTable: 'Divided' },
		];
		const bigquery = { ...source.connection(), tables };
		running = await startComponent({ config: { bigquery, sync: { pollInterval: POLL_MS } }, threads: 2 });
	});

	after(() => running?.remove());

	test('is_read_by_one_worker', async () => {
		await untilEqual({ source, harper: running.harper }, { table: 'keyed', target: 'Alone', key: ['mmsi'] });
		// What the other worker tells of itself is some seconds old.
		const alone = async () => (await workersOf(running.harper, 'alone')).length === 1;
		await until(alone, { deadlineMs: PATIENCE_MS, what: 'one worker' });
	});

	test('is_divided_if_the_cursor_is_part_of_the_key', async () => {
		const key = ['mmsi', 'timestamp'];
		await untilEqual({ source, harper: running.harper }, { table: 'keyed', target: 'Divided', key });
		const divided = async () => (await workersOf(running.harper, 'divided')).length === 2;
		await until(divided, { deadlineMs: PATIENCE_MS, what: 'two workers' });
	});

	test('is_refused_if_it_is_to_be_divided_otherwise', async () => {
		const { lastError } = await untilStatus(running.harper, 'refused', ({ state }) => state === 'failed', 'to fail');
		assert.equal(lastError.code, 'configuration');
		assert.match(lastError.message, /partitionBy: auto or table/);
	});
});

describe('a configuration with further tables', () => {
	/** Different ones go to different workers. */
	const FURTHER = ['a', 'b', 'c', 'd'];
	const ATTEMPTS_MAX = 4;
	/** @type {import('./support/component.mjs').Running} */
	let running;
	/** @type {import('./support/worker-connection.mjs').WorkerConnection[]} */
	let connections = [];

	/** @param {string[]} ids */
	function configuration(ids) {
		const tables = ids.map((id) => ({ id, table: 'further', partitionBy: 'table', targetTable: `Further_${id}` }));
		const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
		return { bigquery, sync: { pollInterval: POLL_MS }, ...WHERE.section };
	}

	before(async () => {
		await source.fill('further', VESSEL_SCHEMA, vesselPositions({ rows: 2_000 }));
		const config = configuration(['first']);
		running = await startComponent({ config, form: 'application', threads: 2, files: WHERE.files });
		connections = await connectToEach(running.harper, 2);
	});

	after(async () => {
		for (const connection of connections) connection.close();
		await running?.remove();
	});

	/**
	 * Adds tables while one worker is held up. Returns how often they were queried, and how many workers own them.
	 * @param {number} slow
	 * @param {string[]} ids
	 */
	async function addTables(slow, ids) {
		source.proxy.reset();
		const held = connections[slow].hold(HOLD_MS);
		running.application.configure(configuration(['first', ...ids]));
		await held;
		for (const id of ids) {
			await untilEqual({ source, harper: running.harper }, { table: 'further', target: `Further_${id}` });
		}
		const queries = backfillQueries(source.proxy).filter(({ sql }) => /SELECT \*/.test(sql ?? ''));
		const owners = await Promise.all(ids.map((id) => workersOf(running.harper, id)));
		return { queries: queries.length, owners: new Set(owners.flat().map(({ worker }) => worker)).size };
	}

	for (const slow of [0, 1]) {
		test(`is_read_once_where_worker_${slow}_takes_it_later_than_the_other`, async () => {
			// On a busy machine a thread may be silent for so long that it is taken for dead, but not each time.
			/** @type {{queries: number, owners: number}[]} */
			const attempts = [];
			const isFine = (/** @type {{queries: number, owners: number}} */ { queries, owners }) =>
				queries === FURTHER.length && owners === 2;
			while (attempts.length < ATTEMPTS_MAX && !attempts.some(isFine)) {
				const ids = FURTHER.map((name) => `${name}${slow}${attempts.length}`);
				attempts.push(await addTables(slow, ids));
			}
			assert.ok(attempts.some(isFine), JSON.stringify(attempts));
		});
	}
});
