/** An ordinary end of Harper, in the middle of a backfill, costs no row. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { VESSEL_SCHEMA, duplicated, randomFrom, size, vesselPositions } from '../support/index.mjs';
import { KINDS, syncThroughEndings } from './support/endings.mjs';
import { startSource } from './support/source.mjs';

const ROWS = size(26_000, 150_000);
const SEED = Number(process.env.RESTART_SEED ?? Date.now() % 1_000_000);
const BY_DAY = { timePartitioning: { type: 'DAY', field: 'timestamp' } };

/** Each kind of ending five times, in turn. @type {import('./support/endings.mjs').Ending[]} */
const ALL_KINDS = Array.from({ length: 20 }, (_, number) => KINDS[number % KINDS.length]);
const KEYLESS = { table: 'positions', more: {}, targetRows: ROWS };
const KEYED = { table: 'vessels', more: { key: ['mmsi'] }, targetRows: undefined };

/**
 * @typedef {{table: string, more: Record<string, unknown>, targetRows: number | undefined}} Table
 * @type {(Table & {name: string, threads: number, endings: import('./support/endings.mjs').Ending[]})[]}
 */
const CASES = size(
	[
		{
			...KEYLESS,
			name: 'signals_that_end_harper_in_mid_backfill_lose_no_row',
			threads: 1,
			endings: ['SIGTERM', 'SIGINT', 'SIGTERM', 'SIGTERM', 'SIGINT'],
		},
		{
			...KEYLESS,
			name: 'harpers_own_restarts_of_three_threads_lose_no_row',
			threads: 3,
			endings: ['restart', 'SIGTERM', 'restart'],
		},
	],
	[1, 3].flatMap((threads) =>
		[KEYLESS, KEYED].map((table) => ({
			...table,
			name: `twenty_endings_in_mid_backfill_lose_no_row_of_${table.table}_on_${threads}_threads`,
			threads,
			endings: ALL_KINDS,
		}))
	)
);

/** @type {import('./support/source.mjs').Source} */
let source;

before(async () => {
	source = await startSource();
	const single = vesselPositions({ rows: ROWS - 3_000, days: 20 });
	const rows = [...single, ...duplicated(vesselPositions({ rows: 1_500, seed: 4, days: 20 }), 2)];
	await source.fill('positions', VESSEL_SCHEMA, rows, BY_DAY);
	if (CASES.every(({ table }) => table !== KEYED.table)) return;
	const versions = vesselPositions({ rows: ROWS, days: 20, vessels: ROWS / 2 });
	await source.fill('vessels', VESSEL_SCHEMA, versions, BY_DAY);
});

after(() => source?.stop());

for (const { name, targetRows, ...run } of CASES) {
	test(name, async (context) => {
		context.diagnostic(`RESTART_SEED=${SEED}`);
		const random = randomFrom(SEED + run.threads);
		const tell = (/** @type {string} */ line) => context.diagnostic(line);
		const counts = await syncThroughEndings({ ...run, source, tableRows: ROWS, random, tell });
		if (targetRows !== undefined) assert.equal(counts.targetRows, targetRows);
	});
}
