import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { VESSEL_SCHEMA, freePort, startFaultProxy, until, vesselPositions } from '../support/index.mjs';
import {
	PATIENCE_MS,
	postControl,
	readControl,
	startComponent,
	tableStatus,
	untilEqual,
	untilStatus,
} from './support/component.mjs';
import { DATASET, startSource } from './support/source.mjs';

const ROWS = 200;
const POLL_MS = 500;
/** Steady attempts, and no circuit breaker, which would leave BigQuery alone for a minute. */
const RETRY = { initialDelay: 200, backoffMultiplier: 1, maxAttempts: 100 };

/** @type {import('./support/source.mjs').Source} */
let source;
/** One Harper gets one wrong configuration after the other. @type {import('./support/component.mjs').Running} */
let running;

before(async () => {
	source = await startSource();
	await source.fill('vessels', VESSEL_SCHEMA, vesselPositions({ rows: ROWS }));
	running = await startComponent({ config: {}, schema: SCHEMA });
});

after(async () => {
	await running?.remove();
	await source?.stop();
});

/**
 * A right configuration of one table, but for some keys of `bigquery`.
 * @param {Record<string, unknown>} [changed]
 * @param {Record<string, unknown>} [sections]
 */
function configuration(changed = {}, sections = {}) {
	const bigquery = { ...source.connection(), table: 'vessels', timestampColumn: 'timestamp', ...changed };
	return { bigquery, sync: { pollInterval: POLL_MS }, retry: RETRY, ...sections };
}

/**
 * Waits for a log line that fulfils all patterns.
 * @param {import('../support/index.mjs').HarperNode} harper
 * @param {RegExp[]} patterns
 */
function untilLogged(harper, patterns) {
	const found = () =>
		harper
			.log()
			.split('\n')
			.some((line) => /\[(warn|error)\]: bigquery-sync/.test(line) && patterns.every((pattern) => pattern.test(line)));
	return until(found, { deadlineMs: PATIENCE_MS, what: `a line in the log with ${patterns.join(' and ')}` });
}

/** @param {import('../support/index.mjs').HarperNode} harper */
async function assertAnswers(harper) {
	const response = await harper.request('/Ships/');
	assert.equal(response.status, 200);
	assert.deepEqual(await response.json(), []);
}

/** A table of the application's own, with another primary key than the component needs. */
const SCHEMA = 'type Ships @table @export { mmsi: ID @primaryKey }';

describe('a configuration with errors', () => {
	/** @type {[string, (() => Record<string, any>) | undefined, string, RegExp][]} What is wrong, the key that is named, the message. */
	const WRONG = [
		// Harper was started with this one.
		['has_no_section', undefined, 'bigquery', /missing.*projectId/],
		['has_a_misspelled_section', () => ({ bigqery: configuration().bigquery }), 'bigquery', /did you mean bigquery/],
		['has_a_text_for_a_section', () => ({ bigquery: 'my-project' }), 'bigquery', /the text "my-project".*a section/],
		['has_a_list_for_a_section', () => ({ bigquery: ['my-project'] }), 'bigquery', /a list.*a section/],
		['has_no_project', () => configuration({ projectId: undefined }), 'bigquery.projectId', /is missing/],
		['has_a_number_for_a_table', () => configuration({ table: 5 }), 'bigquery.table', /is 5, allowed is a text/],
		[
			'has_a_misspelled_key',
			() => configuration({ timestampColum: 'timestamp' }),
			'bigquery.timestampColum',
			/did you mean timestampColumn/,
		],
		[
			'has_a_misspelled_key_of_sync',
			() => configuration({}, { sync: { poolInterval: 1000 } }),
			'sync.poolInterval',
			/did you mean pollInterval/,
		],
		[
			'has_a_word_for_a_number',
			() => configuration({}, { sync: { pollInterval: 'often' } }),
			'sync.pollInterval',
			/the text "often", allowed is a whole number from 100 to/,
		],
		[
			'has_tables_that_are_no_list',
			() => ({ bigquery: { ...source.connection(), tables: { table: 'vessels' } } }),
			'bigquery.tables',
			/a section, allowed is a list/,
		],
		[
			'has_two_tables_for_one_target',
			() => {
				const table = { table: 'vessels', timestampColumn: 'timestamp', targetTable: 'Twice' };
				return { bigquery: { ...source.connection(), tables: [table, { ...table, id: 'other' }] } };
			},
			'bigquery.tables',
			/writes to Twice twice/,
		],
	];
	for (const [what, wrong, key, message] of WRONG) {
		test(`that_${what}_is_refused_with_its_key_and_harper_goes_on`, async () => {
			const { harper, application } = running;
			if (wrong) application.configure(wrong());
			const named = async () => {
				const { configurationErrors } = await readControl(harper);
				return configurationErrors.some((one) => one.key === key && message.test(one.message));
			};
			await until(named, { deadlineMs: PATIENCE_MS, what: `an error about ${key}` });
			await untilLogged(harper, [new RegExp(key.replaceAll('.', '\\.')), message]);
			const response = await harper.request('/SyncControl', { method: 'POST', body: { action: 'start' } });
			assert.equal(response.status, 409);
			assert.ok((await response.json()).configurationErrors.length > 0);
			await assertAnswers(harper);
		});
	}

	test('the_sync_starts_by_itself_once_the_configuration_is_right', async () => {
		const { harper, application } = running;
		application.configure(configuration());
		await untilEqual({ source, harper }, { table: 'vessels', target: 'BigQueryData' });
		assert.deepEqual((await readControl(harper)).configurationErrors, []);
	});

	test('a_correction_of_a_running_configuration_takes_effect_and_a_mistake_stops_the_sync', async () => {
		const { harper, application } = running;
		application.configure(configuration({ colums: ['*'] }));
		const refused = async () => (await readControl(harper)).configurationErrors.length > 0;
		await until(refused, { deadlineMs: PATIENCE_MS, what: 'the mistake to be noticed' });
		assert.deepEqual((await readControl(harper)).tables, []);
		application.configure(configuration({ targetTable: 'Elsewhere', id: 'elsewhere' }));
		await untilEqual({ source, harper }, { table: 'vessels', target: 'Elsewhere' });
	});
});

describe('credentials that are of no use', () => {
	const SECRET = 'TOP-SECRET-b7d1';
	const own = { id: 'secret', targetTable: 'Secret' };

	/** @type {[string, string | undefined, RegExp][]} */
	const FILES = [
		['absent.json', undefined, /absent\.json cannot be read \(ENOENT\).*bigquery\.credentials/],
		['text.json', `${SECRET} is no JSON`, /text\.json is not a key file/],
		['cut.json', `{"type": "service_account", "private_key": "${SECRET}`, /cut\.json is not a key file/],
		['other.json', JSON.stringify({ private_key: SECRET }), /other\.json is not a key file/],
		[
			'key.json',
			JSON.stringify({ type: 'service_account', client_email: 'a@b.iam.gserviceaccount.com', private_key: SECRET }),
			/no access token/,
		],
		['number.json', '5', /number\.json is not a key file/],
	];
	for (const [name, text, message] of FILES) {
		test(`like_${name}_are_named_and_never_shown`, async () => {
			const { harper, application } = running;
			if (text !== undefined) writeFileSync(path.join(application.path, name), text);
			application.configure(configuration({ ...own, credentials: name }));
			const noted = ({ lastError, state }) =>
				state === 'blocked' && lastError?.code === 'credentials' && message.test(lastError.message);
			await untilStatus(harper, own.id, noted, `to complain about ${name}`);
			await untilLogged(harper, [/credentials/, message]);
			assert.ok(!(await (await harper.request('/SyncControl')).text()).includes(SECRET));
			assert.ok(!harper.log().includes(SECRET));
			await assertAnswers(harper);
		});
	}

	test('need_no_restart_when_they_are_corrected', async () => {
		const { harper, application } = running;
		application.configure(configuration(own));
		await untilEqual({ source, harper }, { table: 'vessels', target: own.targetTable });
		assert.equal((await tableStatus(harper, own.id)).lastError, null);
	});
});

describe('tables that do not fit', () => {
	/** @type {[Record<string, any>, string, RegExp][]} The table, the code of its error, the message. */
	const UNFIT = [
		[{ id: 'no_dataset', dataset: 'absent', table: 'vessels' }, 'not_found', /absent\.vessels does not exist.*dataset/],
		[{ id: 'no_table', table: 'vesels' }, 'not_found', /d\.vesels does not exist/],
		[{ id: 'no_column', columns: ['mmsi', 'spead'] }, 'column_missing', /no column spead \(did you mean speed\?\)/],
		[{ id: 'no_key', key: ['mmsy'] }, 'column_missing', /no column mmsy \(did you mean mmsi\?\)/],
		[{ id: 'no_cursor', timestampColumn: 'timestmp' }, 'column_missing', /no column timestmp \(did you mean timestamp/],
		[{ id: 'text_cursor', timestampColumn: 'vessel_name' }, 'cursor_type', /vessel_name is STRING.*TIMESTAMP/],
		[{ id: 'bad_where', where: 'spead > 5' }, 'query_invalid', /spead/],
		[{ id: 'taken', targetTable: 'Ships' }, 'harper_table', /Ships has the primary key mmsi.*another targetTable/],
		[{ id: 'with_id', table: 'with_id' }, 'column_reserved', /column id .*make it the key \(key: \[id\]\)/],
	];

	before(async () => {
		const idSchema = [{ name: 'id', type: 'STRING' }, ...VESSEL_SCHEMA];
		const rows = [...vesselPositions({ rows: ROWS })].map((row, index) => ({ ...row, id: `r${index}` }));
		await source.fill('with_id', idSchema, rows);
		const unfit = UNFIT.map(([table]) => ({ table: 'vessels', targetTable: `T_${table.id}`, ...table }));
		const tables = [...unfit, { id: 'good', table: 'vessels', targetTable: 'Good' }];
		const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
		running.application.configure({ bigquery, sync: { pollInterval: POLL_MS }, retry: RETRY });
	});

	for (const [{ id }, code, message] of UNFIT) {
		test(`${id}_is_blocked_with_${code}`, async () => {
			const { harper } = running;
			// While it looks whether the cause is gone, it is running.
			const noted = ({ lastError, state }) =>
				state === 'blocked' && lastError?.code === code && message.test(lastError.message);
			await untilStatus(harper, id, noted, `to be blocked with the error ${code}`);
			await untilLogged(harper, [new RegExp(` ${id}: `), new RegExp(code), message]);
		});
	}

	test('the_fitting_table_beside_them_is_in_sync', async () => {
		await untilEqual({ source, harper: running.harper }, { table: 'vessels', target: 'Good' });
		await assertAnswers(running.harper);
	});

	test('a_table_that_is_created_later_and_a_column_that_is_added_later_are_found', async () => {
		const { harper } = running;
		await source.fill('vesels', VESSEL_SCHEMA, vesselPositions({ rows: ROWS }));
		await source.bigquery.query(`ALTER TABLE ${DATASET}.vessels ADD COLUMN spead FLOAT64`);
		await untilEqual({ source, harper }, { table: 'vesels', target: 'T_no_table' });
		await untilEqual(
			{ source, harper },
			{ table: 'vessels', target: 'T_no_column', columns: ['mmsi', 'spead', 'timestamp'] }
		);
		await untilStatus(harper, 'no_table', ({ lastError, state }) => lastError === null && state === 'idle', 'to rest');
	});

	test('a_corrected_configuration_starts_those_that_were_blocked', async () => {
		const { harper, application } = running;
		const tables = [
			{ id: 'taken', table: 'vesels', targetTable: 'NotTaken' },
			{ id: 'with_id', table: 'with_id', key: ['id'], targetTable: 'WithId' },
		];
		const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
		application.configure({ bigquery, sync: { pollInterval: POLL_MS } });
		await untilEqual({ source, harper }, { table: 'vesels', target: 'NotTaken' });
		await untilEqual({ source, harper }, { table: 'with_id', target: 'WithId', key: ['id'] });
	});
});

test('the_configuration_of_the_component_as_application_is_followed_too', async () => {
	const config = configuration({ table: undefined });
	const deployed = await startComponent({ config, form: 'application', threads: 2, schema: SCHEMA });
	try {
		const { harper, application } = deployed;
		const missing = async () => (await readControl(harper)).configurationErrors[0]?.key === 'bigquery.table';
		await until(missing, { deadlineMs: PATIENCE_MS, what: 'an error about bigquery.table' });
		await untilLogged(harper, [/bigquery\.table is missing/]);
		await assertAnswers(harper);
		application.configure(configuration());
		await untilEqual({ source, harper }, { table: 'vessels', target: 'BigQueryData' });
	} finally {
		await deployed.remove();
	}
});

test('a_project_that_does_not_exist_is_named', async () => {
	const own = { id: 'projectless', targetTable: 'Projectless' };
	const { harper, application } = running;
	application.configure(configuration({ ...own, projectId: 'absent-project' }));
	const { lastError } = await untilStatus(harper, own.id, ({ state }) => state === 'blocked', 'to be blocked');
	assert.equal(lastError.code, 'not_found');
	assert.match(lastError.message, /absent-project\.d\.vessels.*projectId/);
	await untilLogged(harper, [/not_found/, /absent-project/]);
	await assertAnswers(harper);
	application.configure(configuration(own));
	await untilEqual({ source, harper }, { table: 'vessels', target: own.targetTable });
});

test('a_bigquery_that_is_unreachable_at_first_is_synced_once_it_is_there', async () => {
	const own = { id: 'reached', targetTable: 'Reached' };
	const port = await freePort();
	const { harper, application } = running;
	application.configure(configuration({ ...own, apiEndpoint: `127.0.0.1:${port}` }));
	const noted = ({ lastError, state }) => state === 'retrying' && lastError?.code === 'unreachable';
	const { lastError } = await untilStatus(harper, own.id, noted, 'to find nobody');
	assert.match(lastError.message, new RegExp(`127\\.0\\.0\\.1:${port}.*ECONNREFUSED`));
	await untilLogged(harper, [/unreachable/, /ECONNREFUSED/]);
	await assertAnswers(harper);
	const proxy = await startFaultProxy({ target: source.emulator.url, port });
	try {
		await untilEqual({ source, harper }, { table: 'vessels', target: own.targetTable });
		await postControl(harper, { action: 'stop' });
	} finally {
		await proxy.stop();
	}
});
