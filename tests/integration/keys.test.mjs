/**
 * Tables whose rows have a key, configured or declared: the newest version of each key is there, whatever came when.
 * Beside one of them, the same rows without a key.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import {
	ALL_TYPES_SCHEMA,
	VESSEL_SCHEMA,
	allTypes,
	duplicated,
	randomFrom,
	vesselPositions,
} from '../support/index.mjs';
import { startComponent, untilEqual, untilStatus } from './support/component.mjs';
import { DATASET, recent, startSource } from './support/source.mjs';

const POLL_MS = 1_000;
const VESSELS = 100;
const ROWS = 2_000;
const SEED = Number(process.env.KEY_SEED ?? Date.now() % 1_000_000);

/** Each part of the key is of another type that may identify rows. */
const PARTS_SCHEMA = [
	{ name: 'integer', type: 'INT64' },
	{ name: 'text', type: 'STRING' },
	{ name: 'flag', type: 'BOOL' },
	{ name: 'bytes', type: 'BYTES' },
	{ name: 'decimal', type: 'NUMERIC' },
	{ name: 'day', type: 'DATE' },
	{ name: 'clock', type: 'TIME' },
	{ name: 'civil', type: 'DATETIME' },
	{ name: 'instant', type: 'TIMESTAMP' },
	{ name: 'version', type: 'INT64' },
	{ name: 'timestamp', type: 'TIMESTAMP' },
];
const PARTS = PARTS_SCHEMA.slice(0, -2).map(({ name }) => name);

/** What differs from one row to the next; the rest is the same for all. Joined without care, some would be the same. */
const DIFFERENCES = [
	{},
	...[null, '9007199254740993', '9007199254740992', -1].map((integer) => ({ integer })),
	...['', 'a|b', 'a', '\\N', '\\', '#', 'null', ' a', 'A', 'é', 'e\u0301', '東京 🚢', null].map((text) => ({ text })),
	...['x'.repeat(1_100), `${'x'.repeat(1_099)}y`].map((text) => ({ text })),
	...[false, null].map((flag) => ({ flag })),
	...['', 'AA==', 'AAA=', null].map((bytes) => ({ bytes })),
	...['1.5', '-1.5', '0.000000001', null].map((decimal) => ({ decimal })),
	...['0001-01-01', null].map((day) => ({ day })),
	...['23:59:59.999999', null].map((clock) => ({ clock })),
	...['1969-12-31T23:59:59.999999', null].map((civil) => ({ civil })),
	...['1969-12-31T23:59:59.999999Z', null].map((instant) => ({ instant })),
	{ text: 'a', bytes: null },
	{ text: null, bytes: 'AA==' },
];

/**
 * Versions of rows with keys of all types, in no order.
 * @param {{versions: number, first: number}} options
 */
function partsRows({ versions, first }) {
	const same = { integer: 1, text: 'b', flag: true, bytes: 'AQ==', decimal: '1' };
	const times = { day: '2024-01-01', clock: '00:00:00', civil: '2024-01-01T00:00:00', instant: '2024-01-01T00:00:00Z' };
	const rows = DIFFERENCES.flatMap((difference) =>
		Array.from({ length: versions }, (_, version) => {
			const timestamp = new Date(first + version * 1_000).toISOString();
			return { ...same, ...times, ...difference, version, timestamp };
		})
	);
	return shuffled(rows);
}

const random = randomFrom(SEED);

/**
 * @template T
 * @param {Iterable<T>} rows
 * @returns {T[]}
 */
function shuffled(rows) {
	const drawn = [...rows].map((row) => ({ order: random(), row }));
	return drawn.sort((one, other) => one.order - other.order).map(({ row }) => row);
}

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/component.mjs').Running} */
let running;
/** @type {{source: import('./support/source.mjs').Source, harper: import('../support/index.mjs').HarperNode}} */
let sides;

const declared = { table: 'declared', target: 'Declared', key: ['mmsi'] };
const parts = { table: 'parts', target: 'Parts', key: PARTS };
const types = { table: 'types', target: 'Types', key: ['row_id'], cursor: 'ts' };

/** @param {string} table @param {Iterable<object>} rows */
const add = (table, rows) => source.bigquery.loadRows(DATASET, table, rows);

before(async () => {
	source = await startSource();
	const positions = () => vesselPositions({ rows: ROWS, vessels: VESSELS });
	await source.fill('declared', VESSEL_SCHEMA, shuffled(positions()), { primaryKey: ['mmsi'] });
	await source.fill('copies', VESSEL_SCHEMA, shuffled(duplicated(positions(), 2)), { primaryKey: ['mmsi'] });
	const old = Date.parse('2024-01-01T00:00:00Z');
	await source.fill('parts', PARTS_SCHEMA, partsRows({ versions: 5, first: old }), { primaryKey: PARTS });
	await source.fill('types', ALL_TYPES_SCHEMA, allTypes({ rows: 500 }), { primaryKey: ['row_id'] });
	const tables = [
		{ table: 'declared', batchSize: 70 },
		{ id: 'other_key', table: 'declared', key: ['vessel_name', 'vessel_type'], targetTable: 'OtherKey' },
		{ id: 'by_content', table: 'copies', key: [], targetTable: 'ByContent' },
		{ table: 'copies' },
		{ table: 'parts', batchSize: 50 },
		{ table: 'types', timestampColumn: 'ts' },
	];
	const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
	running = await startComponent({ config: { bigquery, sync: { pollInterval: POLL_MS } } });
	sides = { source, harper: running.harper };
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

test('a_primary_key_that_the_table_declares_is_found_and_of_each_key_the_newest_version_is_there', async (context) => {
	context.diagnostic(`KEY_SEED=${SEED}`);
	assert.equal((await untilEqual(sides, declared)).targetRows, VESSELS);
	const { key } = await untilStatus(running.harper, 'declared', ({ state }) => state === 'idle', 'to rest');
	assert.deepEqual(key, ['mmsi']);
	await add(
		'declared',
		shuffled(recent(vesselPositions({ rows: 500, vessels: 2 * VESSELS, seed: 2 }), { agoMs: 20_000 }))
	);
	const counts = await untilEqual(sides, declared);
	assert.ok(counts.targetRows > VESSELS, `${counts.targetRows}`);
});

test('a_configured_key_wins_over_the_declared_one', async () => {
	const key = ['vessel_name', 'vessel_type'];
	await untilEqual(sides, { table: 'declared', target: 'OtherKey', key });
	const status = await untilStatus(running.harper, 'other_key', ({ state }) => state === 'idle', 'to rest');
	assert.deepEqual(status.key, key);
});

test('copies_of_a_row_are_one_record_with_a_key_and_as_many_as_there_are_with_an_empty_one', async () => {
	const keyed = await untilEqual(sides, { table: 'copies', target: 'Copies', key: ['mmsi'] });
	assert.equal(keyed.targetRows, VESSELS);
	const byContent = await untilEqual(sides, { table: 'copies', target: 'ByContent' });
	assert.equal(byContent.targetRows, 2 * ROWS);
});

test('keys_of_many_parts_and_types_are_never_confused', async () => {
	assert.equal((await untilEqual(sides, parts)).targetRows, DIFFERENCES.length);
	await add('parts', partsRows({ versions: 5, first: Date.now() - 10_000 }));
	assert.equal((await untilEqual(sides, parts)).targetRows, DIFFERENCES.length);
});

test('a_newer_version_replaces_all_columns_of_every_type', async () => {
	assert.equal((await untilEqual(sides, types)).targetRows, 500);
	// The same keys with the values of other rows.
	const start = new Date(Date.now() - 30_000).toISOString();
	const rows = [...allTypes({ rows: 500, start })].map((row, index, all) => {
		return { ...all[(index + 1) % all.length], row_id: row.row_id, ts: new Date(Date.now() - index).toISOString() };
	});
	await add('types', rows);
	assert.equal((await untilEqual(sides, types)).targetRows, 500);
});

test('an_older_version_that_comes_after_a_kill_and_a_restart_replaces_nothing_and_a_newer_one_does', async () => {
	const { harper } = running;
	const [vessel] = vesselPositions({ rows: 1, seed: 3 });
	const version = (/** @type {string} */ mmsi, /** @type {number} */ speed, /** @type {number} */ agoMs) => {
		return recent([{ ...vessel, mmsi, speed }], { agoMs })[0];
	};
	await add('declared', [version('older later', 2, 10_000), version('newer later', 1, 10_000)]);
	await untilEqual(sides, declared);
	await harper.kill('SIGKILL');
	await add('declared', [version('older later', 1, 300_000), version('newer later', 2, 5_000)]);
	await harper.start();
	await untilEqual(sides, declared);
	for (const mmsi of ['older later', 'newer later']) {
		const [record] = await (await harper.request(`/Declared/?mmsi=${encodeURIComponent(mmsi)}`)).json();
		assert.equal(record.speed, 2, mmsi);
	}
	// What was read before the restart is read once more and must not go back to an older version either.
	await add('declared', shuffled([version('older later', 0, 200_000), version('stranger', 1, 4_000)]));
	await untilEqual(sides, declared);
	const [record] = await (await harper.request('/Declared/?mmsi=older%20later')).json();
	assert.equal(record.speed, 2);
});

test('late_rows_and_copies_that_come_while_harper_is_down_are_each_there_once', async () => {
	const { harper } = running;
	const targets = [
		{ table: 'copies', target: 'Copies', key: ['mmsi'] },
		{ table: 'copies', target: 'ByContent' },
	];
	const rows = recent(vesselPositions({ rows: 50, seed: 4 }), { agoMs: 20_000 });
	await add('copies', rows);
	for (const target of targets) await untilEqual(sides, target);
	await harper.kill('SIGKILL');
	await add('copies', [...duplicated(rows, 2), ...recent(vesselPositions({ rows: 50, seed: 5 }), { agoMs: 400_000 })]);
	await harper.start();
	for (const target of targets) await untilEqual(sides, target);
	const { targetRows } = await untilEqual(sides, targets[1]);
	assert.equal(targetRows, 2 * ROWS + 200);
});
