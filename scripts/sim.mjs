import { parseArgs } from 'node:util';
import { run } from './process.mjs';
import { ensureRust } from './setup.mjs';
import { ExpectedFailure, hint, print, runMain } from './terminal.mjs';

const USAGE = `Runs the engine in simulated worlds with faults, crashes and late rows. Nodes come and go, pause, and lose their
connections.

Usage: npm run sim -- [--seeds N] [--from K] [--seed K] [--workers A..B]

  --seeds N        run N worlds, default 10,000
  --from K         begin with world K, default 0
  --seed K         run only world K, and print its trace
  --workers A..B   the number of workers in a world, default 1..5; a single number is for all worlds`;

async function main() {
	const { seeds, from, seed, workers, help } = readOptions();
	if (help) {
		print(USAGE);
		return;
	}
	await ensureRust();
	const args = ['test', '--release', '--quiet', '--test', 'simulator', 'no_world', '--', '--nocapture'];
	const env = {
		SIMULATOR_SEEDS: seeds,
		SIMULATOR_FROM: from,
		SIMULATOR_SEED: seed,
		SIMULATOR_WORKERS: workers,
		RUST_BACKTRACE: '0',
	};
	hint('compiling the engine, unless it is up to date');
	const started_ms = performance.now();
	const { code } = await run('cargo', args, { env, echo: true });
	if (code !== 0) throw new ExpectedFailure('The engine failed in a world. The trace of that world is above.');
	print(`No row was lost, doubled or invented (${Math.round((performance.now() - started_ms) / 1000)} s).`);
}

function readOptions() {
	try {
		const { values } = parseArgs({
			options: {
				seeds: { type: 'string', default: '10000' },
				from: { type: 'string', default: '0' },
				seed: { type: 'string' },
				workers: { type: 'string', default: '1..5' },
				help: { type: 'boolean', default: false },
			},
		});
		for (const name of /** @type {const} */ (['seeds', 'from', 'seed'])) {
			const value = values[name];
			if (value !== undefined && !/^\d+$/.test(value)) {
				throw new Error(`--${name} is ${value}; it takes a whole number.`);
			}
		}
		if (!/^[1-9]\d?(?:\.\.[1-9]\d?)?$/.test(values.workers)) {
			throw new Error(`--workers is ${values.workers}; it takes a number or a range like 1..5.`);
		}
		return values;
	} catch (error) {
		throw new ExpectedFailure(`${error.message}\n\n${USAGE}`);
	}
}

runMain(main);
