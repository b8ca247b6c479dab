/** Validation beside a running sync: a correct copy is found equal each time, whatever comes meanwhile. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { VESSEL_SCHEMA, size, vesselPositions } from '../support/index.mjs';
import { startComponent, untilAllRest } from './support/component.mjs';
import { DATASET, recent, startSource } from './support/source.mjs';
import { IN_HASTE, auditOf, isEqual, validate } from './support/validation.mjs';

const TIMES = size(3, 100);
const ROWS = 5_000;
const VESSELS = 400;
const KEY = ['mmsi'];
/** Rows that come each second; in the keyed table, they are new versions of a part of all vessels. */
const ROWS_A_SECOND = 20;
const TABLES = ['plain', 'keyed', 'mirrored'];

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {import('./support/component.mjs').Running} */
let running;
let stopChanging = async () => {};

before(async () => {
	source = await startSource();
	for (const table of TABLES) {
		const rows = recent(vesselPositions({ rows: ROWS, vessels: VESSELS }), { agoMs: 60_000 });
		await source.fill(table, VESSEL_SCHEMA, rows);
	}
	const tables = [
		{ table: 'plain', deletes: 'mirror' },
		{ table: 'keyed', key: KEY },
		{ table: 'mirrored', key: KEY, deletes: 'mirror' },
	];
	const bigquery = { ...source.connection(), timestampColumn: 'timestamp', tables };
	const sync = { pollInterval: 500, lateness: 10 };
	running = await startComponent({ config: { bigquery, sync }, threads: 2, env: IN_HASTE });
	for (const table of TABLES) await untilAllRest(running.harper, table);
	stopChanging = keepChanging();
});

after(async () => {
	await stopChanging();
	await running?.remove();
	await source?.stop();
});

/** Adds rows until told to end. */
function keepChanging() {
	let isChanging = true;
	const done = (async () => {
		for (let seed = 1; isChanging; seed++) {
			for (const table of TABLES) {
				const rows = recent(vesselPositions({ rows: ROWS_A_SECOND, vessels: VESSELS, seed }), { agoMs: 500 });
				await source.bigquery.loadRows(DATASET, table, rows);
			}
			await new Promise((resolve) => setTimeout(resolve, 1_000));
		}
	})();
	done.catch(() => {});
	return async () => {
		isChanging = false;
		await done;
	};
}

for (const table of TABLES) {
	test(`a_table_that_changes_each_second_is_found_equal_each_time_${table}`, async () => {
		for (let time = 0; time < TIMES; time++) await validate(running.harper, table, isEqual);
		for (const kind of ['validation_repaired', 'validation_extra', 'validation_differs', 'rows_deleted']) {
			assert.deepEqual(await auditOf(running.harper, table, kind), []);
		}
	});
}
