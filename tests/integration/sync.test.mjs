import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import {
	ALL_TYPES_SCHEMA,
	VESSEL_SCHEMA,
	allTypes,
	duplicated,
	randomFrom,
	size,
	tiedPositions,
	until,
	vesselPositions,
} from '../support/index.mjs';
import {
	PATIENCE_MS,
	assertEqual,
	postControl,
	startComponent,
	untilEqual,
	untilRows,
	untilStatus,
} from './support/component.mjs';
import { DATASET, recent, startSource } from './support/source.mjs';

const BIG_ROWS = size(12_000, 100_000);
const POLL_MS = 2000;
const QUIET_POLL_MS = 500;

/** @type {import('./support/source.mjs').Source} */
let source;

before(async () => {
	source = await startSource();
	await source.fill('big', VESSEL_SCHEMA, vesselPositions({ rows: BIG_ROWS }));
});

after(() => source?.stop());

describe('many rows', () => {
	/** @type {['plugin' | 'application', number][]} */
	const forms = [
		['plugin', 1],
		['application', 3],
	];
	for (const [form, threads] of forms) {
		test(`arrive_identical_with_the_component_as_${form}_on_${threads}_threads`, async () => {
			const bigquery = { ...source.connection(), table: 'big', timestampColumn: 'timestamp' };
			const config = { bigquery, sync: { pollInterval: POLL_MS } };
			const running = await startComponent({ config, form, threads });
			try {
				const { harper } = running;
				const status = await untilRows(harper, 'big', BIG_ROWS);
				assert.equal(status.rows, BIG_ROWS);
				assert.equal(status.rejectedRows, 0);
				const counts = await assertEqual({ source, harper }, { table: 'big', target: 'BigQueryData' });
				assert.equal(counts.targetRows, BIG_ROWS);
				const isReadable = async () => (await harper.request('/BigQueryData/?limit(1)')).status === 200;
				await until(isReadable, { deadlineMs: PATIENCE_MS, what: 'the target to be readable' });
			} finally {
				await running.remove();
			}
		});
	}
});

const REPORT_SCHEMA = [
	{ name: 'port', type: 'STRING', mode: 'REQUIRED' },
	{ name: 'berth', type: 'INT64', mode: 'REQUIRED' },
	{ name: 'ship', type: 'STRING' },
	{ name: 'timestamp', type: 'TIMESTAMP' },
];

/**
 * Versions of the berths' occupation, several for each, in no order.
 * @param {{versions: number, start: string, seed: number}} options
 */
function shuffledReports({ versions, start, seed }) {
	const random = randomFrom(seed);
	const first = Date.parse(start);
	const reports = [];
	// A text join without care would confuse ('a', 11) with ('a1', 1), and so on.
	for (const port of ['a', 'a1', 'a,1', 'a|1', 'a"1', '']) {
		for (const berth of [1, 11, 111]) {
			for (let version = 0; version < versions; version++) {
				const timestamp = new Date(first + version * 1000).toISOString();
				reports.push({ order: random(), report: { port, berth, ship: `${port}-${berth}-${version}`, timestamp } });
			}
		}
	}
	return reports.sort((one, other) => one.order - other.order).map(({ report }) => report);
}

describe('many small tables in one configuration', () => {
	/** @type {import('./support/component.mjs').Running} */
	let running;
	/** @type {{source: import('./support/source.mjs').Source, harper: import('../support/index.mjs').HarperNode}} */
	let sides;
	const tables = [
		{ id: 'growing', table: 'growing' },
		{ id: 'triple', table: 'triple' },
		{ id: 'tied', table: 'tied', batchSize: 700 },
		{ id: 'vessels_by_mmsi', table: 'keyed', key: ['mmsi'], targetTable: 'LatestPositions' },
		{ id: 'berths', table: 'berths', key: ['port', 'berth'], batchSize: 50 },
		{ id: 'types', table: 'types', timestampColumn: 'ts' },
		{ id: 'narrow', table: 'growing', targetTable: 'Narrow', columns: ['mmsi', 'speed'] },
		{ id: 'fast', table: 'growing', targetTable: 'Fast', where: "speed > 20 -- the OR below: 'x'\n OR heading = 7" },
		{ id: 'quiet', table: 'quiet', sync: { pollInterval: QUIET_POLL_MS } },
	];
	const growing = { table: 'growing', target: 'Growing' };
	const keyed = { table: 'keyed', target: 'LatestPositions', key: ['mmsi'] };
	const berths = { table: 'berths', target: 'Berths', key: ['port', 'berth'] };

	before(async () => {
		await source.fill('growing', VESSEL_SCHEMA, vesselPositions({ rows: 3000 }));
		await source.fill('triple', VESSEL_SCHEMA, duplicated(vesselPositions({ rows: 1000 }), 3));
		await source.fill('tied', VESSEL_SCHEMA, tiedPositions({ rows: 10_000, perSecond: 1000 }));
		await source.fill('keyed', VESSEL_SCHEMA, vesselPositions({ rows: 3000, vessels: 100 }));
		await source.fill(
			'berths',
			REPORT_SCHEMA,
			shuffledReports({ versions: 20, start: '2024-01-01T00:00:00Z', seed: 5 })
		);
		await source.fill('types', ALL_TYPES_SCHEMA, allTypes({ rows: 2000 }));
		await source.fill('quiet', VESSEL_SCHEMA, recent(vesselPositions({ rows: 1000 }), { agoMs: 60_000 }));
		const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
		running = await startComponent({ config: { bigquery, sync: { pollInterval: POLL_MS } }, threads: 2 });
		sides = { source, harper: running.harper };
	});

	after(() => running?.remove());

	/** @param {Iterable<object>} rows @param {string} table */
	const add = (table, rows) => source.bigquery.loadRows(DATASET, table, rows);

	test('identical_rows_are_kept_as_often_as_they_occur', async () => {
		const counts = await untilEqual(sides, { table: 'triple', target: 'Triple' });
		assert.equal(counts.targetRows, 3000);
	});

	test('a_thousand_rows_of_each_second_are_all_there', async () => {
		const counts = await untilEqual(sides, { table: 'tied', target: 'Tied' });
		assert.equal(counts.targetRows, 10_000);
	});

	test('all_types_keep_their_values', async () => {
		const counts = await untilEqual(sides, { table: 'types', target: 'Types', cursor: 'ts' });
		assert.equal(counts.targetRows, 2000);
	});

	test('only_configured_columns_and_the_cursor_are_copied', async () => {
		await untilEqual(sides, { table: 'growing', target: 'Narrow', columns: ['mmsi', 'speed', 'timestamp'] });
		const [record] = await (await running.harper.request('/Narrow/?limit(1)')).json();
		assert.deepEqual(Object.keys(record).sort(), ['_syncedAt', 'id', 'mmsi', 'speed', 'timestamp']);
	});

	test('only_rows_that_meet_the_condition_are_copied', async () => {
		const counts = await untilEqual(sides, { table: 'growing', target: 'Fast', where: '(speed > 20 OR heading = 7)' });
		assert.ok(counts.targetRows > 0 && counts.targetRows < 3000, `${counts.targetRows}`);
	});

	test('rows_that_are_added_later_arrive', async () => {
		await untilEqual(sides, growing);
		await add('growing', recent(vesselPositions({ rows: 500, seed: 7 }), { agoMs: 10_000 }));
		const counts = await untilEqual(sides, growing);
		assert.equal(counts.targetRows, 3500);
	});

	test('rows_that_arrive_late_are_found_and_nothing_is_written_twice', async () => {
		// The status of another worker is a little older than its rows.
		const { targetRows } = await untilEqual(sides, growing);
		const before = await untilStatus(running.harper, 'growing', ({ rows }) => rows >= targetRows, 'to tell of all');
		// Far behind the watermark by now, but within the default lateness of ten minutes.
		await add('growing', recent(vesselPositions({ rows: 300, seed: 8 }), { agoMs: 400_000 }));
		const counts = await untilEqual(sides, growing);
		assert.equal(counts.targetRows, 3800);
		const written = await untilStatus(running.harper, 'growing', ({ rows }) => rows > before.rows, 'to tell of them');
		assert.equal(written.rows, before.rows + 300);
	});

	test('late_copies_of_a_row_that_is_there_are_kept_too', async () => {
		await untilEqual(sides, growing);
		const rows = recent(vesselPositions({ rows: 50, seed: 9 }), { agoMs: 30_000 });
		await add('growing', rows);
		const once = await untilEqual(sides, growing);
		await add('growing', duplicated(rows, 2));
		const counts = await untilEqual(sides, growing);
		assert.equal(counts.targetRows, once.targetRows + 100);
	});

	test('of_each_key_the_newest_version_is_there', async () => {
		const counts = await untilEqual(sides, keyed);
		assert.equal(counts.targetRows, 100);
		const rows = recent(vesselPositions({ rows: 200, seed: 10, vessels: 50 }), { agoMs: 20_000 });
		await add('keyed', rows);
		assert.equal((await untilEqual(sides, keyed)).targetRows, 100);
	});

	test('an_older_version_that_arrives_later_replaces_nothing', async () => {
		await untilEqual(sides, keyed);
		const [newest] = recent(vesselPositions({ rows: 1, seed: 11, vessels: 100 }), { agoMs: 10_000 });
		const [older] = recent([{ ...newest, speed: 99.9 }], { agoMs: 300_000 });
		await add('keyed', [newest]);
		await untilEqual(sides, keyed);
		// The stranger tells when the older version has been read.
		const [stranger] = recent([{ ...newest, mmsi: '999999999' }], { agoMs: 250_000 });
		await add('keyed', [older, stranger]);
		const counts = await untilEqual(sides, keyed);
		assert.equal(counts.targetRows, 101);
		const [record] = await (await running.harper.request(`/LatestPositions/?mmsi=${newest.mmsi}`)).json();
		assert.equal(record.speed, newest.speed);
	});

	test('composite_keys_are_not_confused_and_versions_within_one_page_end_with_the_newest', async () => {
		const counts = await untilEqual(sides, berths);
		assert.equal(counts.targetRows, 18);
		const start = new Date(Date.now() - 60_000).toISOString();
		await add('berths', shuffledReports({ versions: 30, start, seed: 6 }));
		assert.equal((await untilEqual(sides, berths)).targetRows, 18);
		const records = await (await running.harper.request('/Berths/')).json();
		assert.ok(records.every((/** @type {{ship: string}} */ { ship }) => ship.endsWith('-29')));
	});

	test('a_table_at_rest_is_neither_rewritten_nor_queried_more_often_than_configured', async () => {
		const quiet = { table: 'quiet', target: 'Quiet' };
		await untilEqual(sides, quiet);
		const { rows } = await untilRows(running.harper, 'quiet', 1000);
		assert.equal(rows, 1000);
		const syncedAt = async () => {
			const records = await (await running.harper.request('/Quiet/?select(id,_syncedAt)')).json();
			return JSON.stringify(records);
		};
		const written = await syncedAt();
		const from = Date.now();
		const since = (/** @type {import('../support/routes.mjs').RouteName} */ route) =>
			source.proxy.requests(route).filter(({ at, sql, path }) => at >= from && /quiet/.test(sql ?? path));
		const polled = () => since('tables.get').length >= 8;
		await until(polled, { deadlineMs: PATIENCE_MS, what: 'eight polls of the table at rest' });
		// A busy machine makes polls rarer, and one that was held up may come right before the next.
		const most = 2 + (2 * (Date.now() - from)) / QUIET_POLL_MS;
		for (const route of /** @type {const} */ (['jobs.query', 'tables.get'])) {
			assert.ok(since(route).length <= most, `${since(route).length} ${route}, ${most} at most`);
		}
		assert.equal(await syncedAt(), written);
		assert.equal((await untilRows(running.harper, 'quiet', 1000)).rows, 1000);
		await assertEqual(sides, quiet);
	});

	test('one_table_can_be_stopped_alone', async () => {
		await postControl(running.harper, { action: 'stop', table: 'quiet' });
		await untilStatus(running.harper, 'quiet', ({ state }) => state === 'stopped', 'to stop');
		const before = await untilEqual(sides, growing);
		await add('growing', recent(vesselPositions({ rows: 10, seed: 12 }), { agoMs: 10_000 }));
		assert.equal((await untilEqual(sides, growing)).targetRows, before.targetRows + 10);
	});
});
