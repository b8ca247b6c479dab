/**
 * What a suite, or one file of it, came to.
 *
 * @typedef {object} Outcome
 * @property {number} passed
 * @property {number} failed
 * @property {number} skipped
 * @property {Failure[]} failures each failed test, and each crash, time-out or compile error, which count as failed
 */

/**
 * @typedef {object} Failure
 * @property {string} name
 * @property {string} error
 */

/** @returns {Outcome} */
export function emptyOutcome() {
	return { passed: 0, failed: 0, skipped: 0, failures: [] };
}

/**
 * @param {Outcome} total
 * @param {Outcome} part
 */
export function addOutcome(total, part) {
	total.passed += part.passed;
	total.failed += part.failed;
	total.skipped += part.skipped;
	total.failures.push(...part.failures);
}

/**
 * Counts what is no test and yet went wrong.
 *
 * @param {Outcome} outcome
 * @param {string} name
 * @param {string} error
 */
export function addFailure(outcome, name, error) {
	outcome.failed += 1;
	outcome.failures.push({ name, error });
}

/** @param {Outcome} outcome */
export function countTests({ passed, failed, skipped }) {
	return passed + failed + skipped;
}

/** @param {Outcome} outcome */
export function describeOutcome({ passed, failed, skipped }) {
	return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}
