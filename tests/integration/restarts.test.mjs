/** An ordinary end of Harper, in the middle of a backfill, costs no row. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { VESSEL_SCHEMA, duplicated, randomFrom, size, vesselPositions } from '../support/index.mjs';
import { syncThroughEndings } from './support/endings.mjs';
import { startSource } from './support/source.mjs';

const ROWS = size(40_000, 60_000);
const SEED = Number(process.env.RESTART_SEED ?? Date.now() % 1_000_000);
const BY_DAY = { timePartitioning: { type: 'DAY', field: 'timestamp' } };

/** @type {import('./support/source.mjs').Source} */
let source;

before(async () => {
	source = await startSource();
	const single = vesselPositions({ rows: ROWS - 3_000, days: 20 });
	const rows = [...single, ...duplicated(vesselPositions({ rows: 1_500, seed: 4, days: 20 }), 2)];
	await source.fill('positions', VESSEL_SCHEMA, rows, BY_DAY);
});

after(() => source?.stop());

test('signals_that_end_harper_in_mid_backfill_lose_no_row', async (context) => {
	context.diagnostic(`RESTART_SEED=${SEED}`);
	const counts = await syncThroughEndings({
		source,
		table: 'positions',
		tableRows: ROWS,
		endings: ['SIGTERM', 'SIGINT', 'SIGTERM', 'SIGTERM', 'SIGINT'],
		random: randomFrom(SEED),
		tell: (line) => context.diagnostic(line),
	});
	assert.equal(counts.targetRows, ROWS);
});

test('harpers_own_restarts_of_three_threads_lose_no_row', async (context) => {
	const counts = await syncThroughEndings({
		source,
		table: 'positions',
		tableRows: ROWS,
		endings: ['restart', 'SIGTERM', 'restart'],
		threads: 3,
		random: randomFrom(SEED + 1),
		tell: (line) => context.diagnostic(line),
	});
	assert.equal(counts.targetRows, ROWS);
});
