import { availableParallelism } from 'node:os';
import { busy } from '../terminal.mjs';
import { LaneEmulator } from './emulators.mjs';

/** Most test files wait as much as they work. An emulator that is given from outside cannot be shared. */
const SHARED_MAX = process.env.BIGQUERY_EMULATOR_HOST ? 1 : availableParallelism() + 1;

/**
 * Runs jobs: those of cargo one after the other, beside them several of the shared ones at a time, and at the end, one
 * by one, those that need the machine for themselves.
 *
 * @param {import('./suites.mjs').Job[]} jobs
 * @param {(job: import('./suites.mjs').Job, environment: Record<string, string>) => Promise<void>} run
 */
export async function runJobs(jobs, run) {
	const inLane = (lane) => jobs.filter((job) => job.lane === lane);
	const shared = inLane('shared');
	const lanes = Array.from({ length: SHARED_MAX }, () => runLane(shared, run));
	await Promise.all([runLane(inLane('cargo'), run), ...lanes]);
	await runLane(inLane('alone'), run);
}

async function runLane(queue, run) {
	const emulator = new LaneEmulator();
	try {
		for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
			const next = job;
			const environment = next.sharesEmulator ? await emulator.environment() : {};
			await busy(next.name, () => run(next, environment));
		}
	} finally {
		await emulator.stop();
	}
}
