/** GET /SchemaDiff: who may look, and what it tells; and the check that takes changes over by itself. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { until } from '../support/index.mjs';
import { PATIENCE_MS, postControl, startComponent, untilRows } from './support/component.mjs';
import { PEOPLE, addPeople } from './support/people.mjs';
import { DATASET, startSource } from './support/source.mjs';

const PORTS = [
	{ name: 'timestamp', type: 'TIMESTAMP' },
	{ name: 'port_id', type: 'STRING' },
	{ name: 'draught', type: 'FLOAT' },
	{ name: 'remark', type: 'STRING' },
];

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/component.mjs').Running} */
let running;

/** @param {Record<string, unknown>} schema How often the columns are looked at. */
async function start(schema) {
	const bigquery = { ...source.connection(), table: 'ports', timestampColumn: 'timestamp', targetTable: 'Ports' };
	const config = { bigquery, sync: { pollInterval: 300 }, control: { roles: ['sync_operators'] }, schema };
	running = await startComponent({ config, authorizeLocal: false });
	await untilRows(running.harper, 'ports', 1);
	// The first look at the columns, which a start brings, would take over what a test changes.
	const hasLooked = async () => (await recordsOf('SchemaLock')).some(({ checkedAt }) => checkedAt);
	await until(hasLooked, { deadlineMs: PATIENCE_MS, what: 'the first look at the columns' });
}

/** @param {string} path @param {any} [auth] */
async function read(path, auth) {
	const response = await running.harper.request(path, { auth });
	const text = await response.text();
	return { status: response.status, text, body: response.status === 200 ? JSON.parse(text) : undefined };
}

/** @param {string} table @returns {Promise<any[]>} */
async function recordsOf(table) {
	const search = { search_attribute: 'id', search_value: '*', get_attributes: ['*'] };
	return running.harper.operation({ operation: 'search_by_value', database: 'data', table, ...search });
}

/** @param {string} sql */
const alter = (sql) => source.bigquery.query(sql);

before(async () => {
	source = await startSource();
	const row = { timestamp: new Date(Date.now() - 60_000).toISOString(), port_id: 'DEROS', draught: 13.5, remark: 'r' };
	await source.fill('ports', PORTS, [row]);
});

after(() => source?.stop());

describe('the differences', () => {
	before(async () => {
		await start({ pollMin: 600, pollMax: 600 });
		const { harper } = running;
		await addPeople(harper);
	});
	after(() => running?.remove());

	for (const [who, auth, expected] of PEOPLE) {
		test(`are_shown_to_${who}_with_${expected}`, async () => {
			for (const path of ['/SchemaDiff?table=ports', '/SchemaDiff/?table=ports']) {
				const { status, text } = await read(path, auth);
				assert.equal(status, expected, text);
				assert.equal(text.includes('ports'), expected === 200, text);
			}
			const post = await running.harper.request('/SchemaDiff?table=ports', { auth, method: 'POST', body: {} });
			assert.ok(post.status >= 400 && post.status < 500, `POST: ${post.status}`);
		});
	}

	test('are_of_a_table_that_must_be_named', async () => {
		for (const path of ['/SchemaDiff', '/SchemaDiff?table=prots']) {
			const { status, text } = await read(path);
			assert.equal(status, 400, text);
			assert.deepEqual(JSON.parse(text).allowed, ['ports']);
		}
	});

	test('are_none_at_first', async () => {
		const { body } = await read('/SchemaDiff?table=ports');
		const { version, added, removed, typeChanges, indexes, plan, error } = body;
		assert.deepEqual(
			{ version, added, removed, typeChanges, indexes, plan, error },
			{
				version: 1,
				added: [],
				removed: [],
				typeChanges: [],
				indexes: { missing: [], extra: [] },
				plan: [],
				error: null,
			}
		);
	});

	test('are_told_with_what_will_be_done_about_them', async () => {
		await postControl(running.harper, { action: 'stop' });
		await alter(`ALTER TABLE \`${DATASET}.ports\` ADD COLUMN berth_id INT64`);
		await alter(`ALTER TABLE \`${DATASET}.ports\` DROP COLUMN remark`);
		const name = `\`${DATASET}.ports\``;
		await alter(
			`CREATE OR REPLACE TABLE ${name} AS SELECT * REPLACE (CAST(draught AS STRING) AS draught) FROM ${name}`
		);
		const { body } = await read('/SchemaDiff?table=ports');
		assert.deepEqual(body.added, [{ kind: 'added', column: 'berth_id', type: 'INT64', attribute: 'berth_id' }]);
		assert.deepEqual(body.removed, [{ kind: 'removed', column: 'remark', attribute: 'remark' }]);
		const retyped = { kind: 'type_changed', column: 'draught', from: 'FLOAT64', to: 'STRING' };
		assert.deepEqual(body.typeChanges, [{ ...retyped, before: 'draught', attribute: 'draught_v2' }]);
		assert.deepEqual(body.indexes, { missing: ['berth_id'], extra: [] });
		assert.equal(body.plan.length, 4);
		assert.notEqual(body.fingerprint, body.sourceFingerprint);
	});

	test('are_gone_once_the_table_goes_on', async () => {
		await postControl(running.harper, { action: 'start' });
		const settled = async () => {
			const { body } = await read('/SchemaDiff?table=ports');
			return body.plan.length === 0 && body.fingerprint === body.sourceFingerprint;
		};
		await until(settled, { deadlineMs: PATIENCE_MS, what: 'no differences' });
		const { body } = await read('/SchemaDiff?table=ports');
		assert.equal(body.version, 2);
		assert.equal(body.retired.length, 2);
		assert.equal((await recordsOf('Ports')).length, 1);
	});

	test('tell_why_a_table_stops', async () => {
		await alter(`ALTER TABLE \`${DATASET}.ports\` DROP COLUMN timestamp`);
		const { body } = await read('/SchemaDiff?table=ports');
		assert.equal(body.error.code, 'column_missing');
		await alter(`ALTER TABLE \`${DATASET}.ports\` ADD COLUMN timestamp TIMESTAMP`);
	});

	test('cannot_be_told_when_bigquery_does_not_answer', async () => {
		await alter(`DROP TABLE \`${DATASET}.ports\``);
		const { status, text } = await read('/SchemaDiff?table=ports');
		assert.equal(status, 502, text);
	});
});

describe('the check', () => {
	before(async () => {
		const row = { timestamp: new Date(Date.now() - 60_000).toISOString(), port_id: 'DEROS' };
		await source.fill('ports', PORTS, [row]);
		await start({ pollMin: 1, pollMax: 3 });
	});
	after(() => running?.remove());

	const lockOf = async () => (await recordsOf('SchemaLock'))[0];

	test('becomes_rarer_while_nothing_changes', async () => {
		const isRare = async () => (await lockOf())?.pollSeconds === 3;
		await until(isRare, { deadlineMs: PATIENCE_MS, what: 'three seconds between two looks' });
		assert.equal((await lockOf()).owner, running.harper.name);
	});

	test('takes_over_changes_of_a_table_that_nobody_reads_and_becomes_frequent_again', async () => {
		await postControl(running.harper, { action: 'stop' });
		await alter(`ALTER TABLE \`${DATASET}.ports\` ADD COLUMN tide FLOAT64`);
		const isNoticed = async () => (await recordsOf('SchemaVersion')).some(({ version }) => version === 2);
		await until(isNoticed, { deadlineMs: PATIENCE_MS, what: 'the second version' });
		await until(async () => (await lockOf()).pollSeconds === 1, { deadlineMs: PATIENCE_MS, what: 'frequent looks' });
		assert.match((await recordsOf('SyncAudit'))[0].reason, /the new column tide \(FLOAT64\)/);
	});
});
