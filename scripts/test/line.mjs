import { colour, formatSeconds, print } from '../terminal.mjs';
import { describeOutcome } from './outcome.mjs';

const NAME_WIDTH = 46;

/**
 * Prints the line about one test file.
 *
 * @param {string} name
 * @param {import('./outcome.mjs').Outcome} outcome
 * @param {number} started_ms when the file began, by performance.now
 */
export function fileLine(name, outcome, started_ms) {
	const failed = outcome.failed > 0;
	const sign = failed ? colour('red', '✗') : colour('green', '✓');
	const counts = failed || outcome.skipped > 0 ? describeOutcome(outcome) : `${outcome.passed} passed`;
	const seconds = colour('dim', `(${formatSeconds(performance.now() - started_ms)})`);
	print(`  ${sign} ${name.padEnd(NAME_WIDTH)} ${counts} ${seconds}`);
	for (const failure of outcome.failures) {
		if (failure.name !== name) print(`    ${colour('red', failure.name)}`);
	}
}

/** @param {number} started_ms when compiling began, by performance.now */
export function compiledLine(started_ms) {
	const seconds = formatSeconds(performance.now() - started_ms);
	print(`  ${colour('green', '✓')} ${'compiled'.padEnd(NAME_WIDTH)} ${colour('dim', `(${seconds})`)}`);
}
