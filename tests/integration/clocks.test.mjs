/** A clock that was ahead, and is set right, costs neither progress nor commands. */

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import {
	VESSEL_SCHEMA,
	pluginApplication,
	startHarper,
	temporaryFolder,
	until,
	vesselPositions,
} from '../support/index.mjs';
import { COMPONENT, PATIENCE_MS, assertEqual, postControl, untilRows, untilStatus } from './support/component.mjs';
import { DATASET, recent, startSource } from './support/source.mjs';

const AHEAD_MS = 600_000;
const ROWS = 2_000;
const PRELOAD = fileURLToPath(new URL('./support/clock.mjs', import.meta.url));

/** @type {import('./support/source.mjs').Source} */
let source;
/** @type {{path: string, remove: () => void}} */
let folder;

before(async () => {
	source = await startSource();
	folder = temporaryFolder('clock');
});

after(async () => {
	folder?.remove();
	await source?.stop();
});

/**
 * @param {import('../support/index.mjs').HarperNode} harper
 * @param {string} table
 * @param {string} id
 */
async function stored(harper, table, id) {
	const [record] = await harper.operation({ operation: 'search_by_id', table, ids: [id], get_attributes: ['*'] });
	return record;
}

/** @param {import('../support/index.mjs').HarperNode} harper */
async function untilItBeats(harper) {
	const { beat } = await stored(harper, 'SyncNode', harper.name);
	const hasBeaten = async () => (await stored(harper, 'SyncNode', harper.name)).beat !== beat;
	await until(hasBeaten, { deadlineMs: PATIENCE_MS, what: 'the node to give another sign of life' });
}

test('a_node_whose_clock_was_ten_minutes_ahead_keeps_its_progress_and_follows_commands', async () => {
	await source.fill('positions', VESSEL_SCHEMA, vesselPositions({ rows: ROWS }));
	const bigquery = { ...source.connection(), table: 'positions', timestampColumn: 'timestamp' };
	const config = { bigquery, sync: { pollInterval: 500 } };
	const application = pluginApplication({ component: COMPONENT, config });
	const clock = path.join(folder.path, 'ahead_ms');
	const setAhead = (/** @type {number} */ ms) => writeFileSync(clock, `${ms}`);
	setAhead(AHEAD_MS);
	const env = { TEST_CLOCK_FILE: clock, NODE_OPTIONS: `--import ${PRELOAD}` };
	const harper = await startHarper({ application: application.path, env });
	try {
		await untilRows(harper, 'positions', ROWS);
		await postControl(harper, { action: 'start', table: 'positions' });
		await harper.stop();
		setAhead(0);
		await harper.start();
		await source.bigquery.loadRows(
			DATASET,
			'positions',
			recent(vesselPositions({ rows: 10, seed: 2 }), { agoMs: 1000 })
		);
		const { watermark } = await untilRows(harper, 'positions', ROWS + 10);
		assert.equal((await stored(harper, 'SyncCheckpoint', 'positions:0')).lastTimestamp, watermark);
		await untilItBeats(harper);
		await postControl(harper, { action: 'stop', table: 'positions' });
		await untilStatus(harper, 'positions', ({ state }) => state === 'stopped', 'to be stopped');
		await assertEqual({ source, harper }, { table: 'positions', target: 'BigQueryData' });
	} finally {
		await harper.remove();
		application.remove();
	}
});
