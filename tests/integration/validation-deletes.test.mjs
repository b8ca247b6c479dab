/** Rows that the source no longer has: they are told of, or deleted if that is wanted, and never too many. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { VESSEL_SCHEMA, vesselPositions } from '../support/index.mjs';
import { assertEqual, startComponent, untilAllRest } from './support/component.mjs';
import { DATASET, startSource } from './support/source.mjs';
import { IN_HASTE, auditOf, idsOf, isEqual, targetOf, upsert, validate } from './support/validation.mjs';

const ROWS = 4_000;
const DAYS = 4;
const KEY = ['mmsi', 'timestamp'];
const PARTITIONED = { timePartitioning: { type: 'DAY', field: 'timestamp' } };
const MIRROR = { deletes: 'mirror' };
/** Tables by what they are for. @type {Record<string, {config: any, partitioned?: boolean}>} */
const TABLES = {
	kept: { config: {} },
	keptKeys: { config: { key: KEY } },
	mirrored: { config: MIRROR },
	mirroredNumbers: { config: { ...MIRROR, idType: 'integer' } },
	mirroredKeys: { config: { ...MIRROR, key: KEY } },
	mirroredByTwo: { config: { ...MIRROR, partitionBy: 'timestamp', sync: { partitions: 2 } } },
	cut: { config: MIRROR, partitioned: true },
	cutKeys: { config: { ...MIRROR, key: KEY }, partitioned: true },
	emptied: { config: { deletes: 'mirrorExpired' } },
	emptiedKeys: { config: { deletes: 'mirrorExpired', key: KEY } },
	cleared: { config: MIRROR },
};
/** More rows than are deleted at a time. */
const DELETES_MAX = 500;

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/component.mjs').Running} */
let running;

before(async () => {
	source = await startSource();
	source.proxy.maintainsModification = true;
	const rows = [...vesselPositions({ rows: ROWS, days: DAYS })];
	for (const [table, { partitioned }] of Object.entries(TABLES)) {
		await source.fill(table, VESSEL_SCHEMA, rows, partitioned ? PARTITIONED : {});
	}
	const tables = Object.entries(TABLES).map(([table, { config }]) => ({ table, ...config }));
	const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
	const sync = { pollInterval: 500, lateness: 60 };
	const config = { bigquery, sync, limits: { maxDeletesPerRun: DELETES_MAX } };
	running = await startComponent({ config, threads: 2, env: IN_HASTE });
	for (const { table } of tables) await untilAllRest(running.harper, table);
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

const sidesOf = (/** @type {string} */ table) => {
	const { key } = TABLES[table].config;
	return { table, target: targetOf(table), ...(key && { key }) };
};

/** Deletes rows in BigQuery. @param {string} table @param {string} condition */
const deleteWhere = (table, condition) =>
	source.bigquery.query(`DELETE FROM \`${DATASET}.${table}\` WHERE ${condition}`);

/** Some rows of each day. */
const SOME = "CAST(mmsi AS STRING) LIKE '%7'";
const FIRST_DAY = "timestamp < TIMESTAMP '2024-01-02'";

const isRefused = (/** @type {any} */ { state }) => state === 'refused';
const isExtra = (/** @type {any} */ { state }) => state === 'extra';

for (const table of ['kept', 'keptKeys']) {
	test(`rows_that_the_source_no_longer_has_are_told_of_once_they_are_known_${table}`, async () => {
		await deleteWhere(table, SOME);
		const { text, nodes } = await validate(running.harper, table, isExtra);
		const [{ rowsInBigQuery, rowsHere, missing, extra }] = nodes;
		assert.ok(extra > 100);
		assert.deepEqual([missing, extra], [0, rowsHere - rowsInBigQuery]);
		assert.match(
			text,
			/^all rows up to \S+ are there, [\d,]+ rows, and [\d,]+ more on \S+ that BigQuery no longer has/
		);
		const [{ reason }] = await auditOf(running.harper, table, 'validation_extra');
		assert.match(reason, /more that the source no longer has, among them /);
		assert.equal((await idsOf(running.harper, table)).length, ROWS);
	});

	test(`rows_that_are_known_are_not_read_again_${table}`, async () => {
		const from = source.proxy.requests('jobs.query').length;
		await validate(running.harper, table, isExtra);
		const asked = source.proxy.requests('jobs.query').slice(from);
		const isReading = ({ sql = '' }) => sql.includes(`.${table}\``) && !/SHA256|_bigquery_sync_newest/.test(sql);
		assert.deepEqual(asked.filter(isReading), []);
	});
}

for (const table of ['mirrored', 'mirroredNumbers', 'mirroredKeys', 'mirroredByTwo']) {
	test(`rows_that_the_source_no_longer_has_are_deleted_${table}`, async () => {
		await deleteWhere(table, SOME);
		await validate(running.harper, table, isEqual);
		await assertEqual({ source, harper: running.harper }, sidesOf(table));
		assert.ok((await auditOf(running.harper, table, 'rows_deleted')).length > 0);
	});

	test(`rows_that_were_added_by_hand_are_deleted_${table}`, async () => {
		const isNumber = table === 'mirroredNumbers';
		const [id] = await idsOf(running.harper, table);
		const timestamp = '2024-01-02T00:00:00.000000Z';
		const record = { id: isNumber ? 12_345 : `${id}~7`, mmsi: 'mine', timestamp };
		await upsert(running.harper, table, [record]);
		await validate(running.harper, table, isEqual);
		await assertEqual({ source, harper: running.harper }, sidesOf(table));
	});
}

for (const table of ['cut', 'cutKeys']) {
	test(`rows_of_a_partition_that_is_gone_are_kept_${table}`, async () => {
		await deleteWhere(table, FIRST_DAY);
		const { nodes } = await validate(running.harper, table, isExtra);
		assert.ok(nodes[0].extra > DELETES_MAX);
		const [{ reason }] = await auditOf(running.harper, table, 'deletes_refused');
		assert.match(reason, /rows are more than limits.maxDeletesPerRun, which is 500|partition from 2024-01-01T00/);
		assert.equal((await idsOf(running.harper, table)).length, ROWS);
	});
}

for (const table of ['emptied', 'emptiedKeys']) {
	test(`a_source_that_is_emptied_empties_nothing_${table}`, async () => {
		await deleteWhere(table, 'TRUE');
		const { text } = await validate(running.harper, table, isRefused);
		assert.equal(text, 'it could not be validated: the source has no rows');
		assert.equal((await idsOf(running.harper, table)).length, ROWS);
	});
}

test('more_rows_than_are_allowed_are_kept', async () => {
	await deleteWhere('cleared', FIRST_DAY);
	await validate(running.harper, 'cleared', isExtra);
	const [{ reason }] = await auditOf(running.harper, 'cleared', 'deletes_refused');
	assert.match(reason, /rows are more than limits.maxDeletesPerRun, which is 500/);
	assert.equal((await idsOf(running.harper, 'cleared')).length, ROWS);
});
