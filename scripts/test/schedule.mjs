import { availableParallelism } from 'node:os';
import { busy } from '../terminal.mjs';
import { LaneEmulator } from './emulators.mjs';

/** Most test files wait as much as they work. An emulator that is given from outside cannot be shared. */
const SHARED_MAX = process.env.BIGQUERY_EMULATOR_HOST ? 1 : availableParallelism() + 1;

/**
 * Runs jobs: several of the shared ones at a time, and at the end, one by one, those that need the machine for themselves.
 * Those of cargo run one after the other. They need one core and nothing else, so they fill up the end if that is long.
 *
 * @param {import('./suites.mjs').Job[]} jobs
 * @param {(job: import('./suites.mjs').Job, environment: Record<string, string>) => Promise<void>} run
 */
export async function runJobs(jobs, run) {
	const inLane = (lane) => jobs.filter((job) => job.lane === lane);
	const [cargo, shared, alone] = ['cargo', 'shared', 'alone'].map(inLane);
	const lanes = Array.from({ length: SHARED_MAX }, () => runLane(shared, run));
	const isEndLong = alone.some(({ suite }) => suite === 'integration');
	await Promise.all([isEndLong ? prepareAll(cargo) : runLane(cargo, run), ...lanes]);
	await Promise.all([runLane(cargo, run), runLane(alone, run)]);
}

/** @param {import('./suites.mjs').Job[]} jobs */
async function prepareAll(jobs) {
	for (const { prepare } of jobs) await prepare?.();
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
