import { availableParallelism } from 'node:os';
import { busy } from '../terminal.mjs';

/** Most test files wait as much as they work. */
const SHARED_MAX = availableParallelism() + 1;

/**
 * Runs jobs: those of cargo one after the other, beside them several of the shared ones at a time, and at the end, one
 * by one, those that need the machine for themselves.
 *
 * @param {import('./suites.mjs').Job[]} jobs
 * @param {(job: import('./suites.mjs').Job) => Promise<void>} run
 */
export async function runJobs(jobs, run) {
	const inLane = (lane) => jobs.filter((job) => job.lane === lane);
	const shared = inLane('shared');
	const lanes = [inLane('cargo'), ...Array.from({ length: SHARED_MAX }, () => shared)];
	await Promise.all(lanes.map((queue) => runQueue(queue, run)));
	await runQueue(inLane('alone'), run);
}

async function runQueue(queue, run) {
	for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
		const next = job;
		await busy(next.name, () => run(next));
	}
}
