/** Values that differ though cursors and keys do not: that they are found and mended, at the cost that is allowed. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { ALL_TYPES_SCHEMA, VESSEL_SCHEMA, allTypes, duplicated, until, vesselPositions } from '../support/index.mjs';
import {
	PATIENCE_MS,
	assertEqual,
	postControl,
	readControl,
	startComponent,
	untilAllRest,
} from './support/component.mjs';
import { DATASET, startSource } from './support/source.mjs';
import { IN_HASTE, auditOf, idsOf, isEqual, targetOf, validate } from './support/validation.mjs';

const ROWS = 6_000;
const DAYS = 4;
const KEY = ['mmsi', 'timestamp'];
const PARTITIONED = { timePartitioning: { type: 'DAY', field: 'timestamp' } };
/** Other forms than the usual ones, whose values must be equal to themselves as well. */
const OTHER_FORMS = {
	int64_value: { type: 'BigInt' },
	float64_value: { type: 'String' },
	bignumeric_value: { type: 'Float' },
	bytes_value: { type: 'Bytes' },
	date_value: { type: 'Date' },
	datetime_value: { type: 'Date' },
	tags: { type: 'String' },
	row_id: { type: 'Long' },
};
/** Of a row with a key, the cursor tells which version is newer: it keeps its own form. */
const FORMS = { ...OTHER_FORMS, ts: { type: 'Date' } };
/** Tables by what they are for. @type {Record<string, {config?: any, partitioned?: boolean}>} */
const TABLES = {
	plain: { config: { deletes: 'mirror' } },
	keyed: { config: { key: KEY } },
	numbered: { config: { idType: 'integer' } },
	divided: { config: { partitionBy: 'timestamp', sync: { partitions: 4 } } },
	days: { partitioned: true },
};
const TYPES = {
	types: { timestampColumn: 'ts' },
	forms: { table: 'types', timestampColumn: 'ts', targetTable: 'Forms', schemaOverrides: FORMS },
	formsByKey: {
		table: 'types',
		timestampColumn: 'ts',
		targetTable: 'FormsByKey',
		key: ['row_id'],
		schemaOverrides: OTHER_FORMS,
	},
	newest: { table: 'plain', targetTable: 'Newest', key: ['mmsi'] },
	copies: { table: 'copies' },
};

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/component.mjs').Running} */
let running;

const configure = (/** @type {any} */ validation = {}) => {
	const plain = Object.entries(TABLES).map(([table, { config }]) => ({ id: table, table, ...config }));
	const others = Object.entries(TYPES).map(([id, config]) => ({ id, table: id, ...config }));
	const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables: [...plain, ...others] };
	return { bigquery, sync: { pollInterval: 500, lateness: 60 }, validation };
};

before(async () => {
	source = await startSource();
	source.proxy.maintainsModification = true;
	const rows = [...vesselPositions({ rows: ROWS, days: DAYS })];
	for (const [table, { partitioned }] of Object.entries(TABLES)) {
		await source.fill(table, VESSEL_SCHEMA, rows, partitioned ? PARTITIONED : {});
	}
	await source.fill('types', ALL_TYPES_SCHEMA, allTypes({ rows: 120 }));
	await source.fill('copies', VESSEL_SCHEMA, duplicated(rows.slice(0, 300), 3));
	const config = configure();
	running = await startComponent({ config, threads: 2, env: IN_HASTE });
	for (const { id } of config.bigquery.tables) await untilAllRest(running.harper, id);
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

/** What is known of the comparison of a table's values. @param {string} id */
async function contentsOf(id) {
	const { tables } = await readControl(running.harper);
	return tables.find((/** @type {{id: string}} */ one) => one.id === id).contents;
}

/**
 * Has the values of all rows compared, and waits for the result.
 * @param {string} table
 * @param {(contents: any) => boolean} [isWanted]
 */
async function compareValues(table, isWanted = ({ state }) => state === 'compared') {
	await postControl(running.harper, { action: 'validate', table, contents: true });
	/** @type {any} */
	let last;
	const isDone = async () => {
		last = await contentsOf(table);
		return last !== null && isWanted(last);
	};
	await until(isDone, { deadlineMs: PATIENCE_MS, everyMs: 250, what: `the comparison of ${table}` }).catch((error) => {
		throw new Error(`${error.message}\nLast: ${JSON.stringify(last)}`, { cause: error });
	});
	return last;
}

const sidesOf = (/** @type {string} */ table) => {
	const key = TABLES[table].config?.key;
	return { table, target: targetOf(table), ...(key && { key }) };
};

for (const table of [...Object.keys(TABLES), ...Object.keys(TYPES)]) {
	test(`values_that_are_equal_are_found_equal_and_nothing_is_written_${table}`, async () => {
		const contents = await compareValues(table);
		assert.equal(contents.changed, 0, contents.text);
		assert.ok(contents.rows > 0);
		assert.match(contents.text, /^the values of [\d,]+ rows were compared: none differed; \d+\.\d MB billed$/);
	});
}

for (const table of Object.keys(TABLES)) {
	test(`records_that_somebody_changed_by_hand_get_their_values_back_${table}`, async () => {
		const ids = await idsOf(running.harper, table);
		const changed = [ids[0], ids[2_500], ids[ids.length - 1]].map((id) => ({ id, speed: 99.5, name: 'by hand' }));
		const operation = { operation: 'update', database: 'data', table: targetOf(table), records: changed };
		await running.harper.operation(operation);
		const contents = await compareValues(table);
		assert.equal(contents.changed, changed.length, contents.text);
		await assertEqual({ source, harper: running.harper }, sidesOf(table));
		// Each worker tells of its own rows.
		const told = async () => (await auditOf(running.harper, table, 'contents_mended')).map(({ reason }) => reason);
		const rowsTold = (/** @type {string[]} */ reasons) =>
			reasons.reduce((sum, reason) => sum + Number(/(\d+) had not the values of the source/.exec(reason)?.[1]), 0);
		await until(async () => rowsTold(await told()) === changed.length, {
			deadlineMs: PATIENCE_MS,
			what: 'the entries of the audit',
		});
	});

	test(`rows_that_are_missing_are_written_as_well_${table}`, async () => {
		const ids = await idsOf(running.harper, table);
		const some = ids.slice(100, 110);
		await running.harper.operation({ operation: 'delete', database: 'data', table: targetOf(table), ids: some });
		assert.equal((await compareValues(table)).changed, some.length);
		await assertEqual({ source, harper: running.harper }, sidesOf(table));
	});
}

for (const table of ['plain', 'keyed']) {
	test(`values_that_changed_in_bigquery_without_a_new_cursor_arrive_${table}`, async () => {
		const condition = "CAST(mmsi AS STRING) LIKE '%3' AND timestamp < TIMESTAMP '2024-01-02'";
		await source.bigquery.query(`UPDATE \`${DATASET}.${table}\` SET speed = speed + 1 WHERE ${condition}`);
		const contents = await compareValues(table);
		assert.ok(contents.changed > 10, contents.text);
		// Without a key, the former rows have other ids; they go with the next validation.
		await validate(running.harper, table, isEqual);
		await assertEqual({ source, harper: running.harper }, sidesOf(table));
	});
}

test('all_columns_are_billed_once_and_no_row_is_written', async () => {
	source.proxy.accounting = true;
	const from = source.proxy.requests('jobs.query').length;
	await compareValues('days');
	source.proxy.accounting = false;
	const asked = source.proxy.requests('jobs.query').slice(from);
	const bills = asked.filter(({ sql }) => /ROW_NUMBER/.test(sql ?? '')).map(({ bytesBilled }) => bytesBilled);
	// Each of the two workers makes a dry run first, and then reads its own days. The minimum is 10 MB.
	assert.deepEqual(bills.sort(), [0, 0, 10 << 20, 10 << 20]);
});

test('contents_is_true_or_false_and_for_validations_alone', async () => {
	for (const command of [
		{ action: 'validate', contents: 'yes' },
		{ action: 'stop', table: 'plain', contents: true },
	]) {
		const answer = await running.harper.request('/SyncControl', {
			method: 'POST',
			headers: { 'content-type': 'application/json' },
			body: JSON.stringify(command),
		});
		assert.equal(answer.status, 400);
		assert.match((await answer.json()).error, /contents is for the actions validate and repair alone/);
	}
});
