const SEPARATOR = ' › ';

/** Where in a file's suites a test is declared. */
export class TestPath {
	/** @type {string[]} */
	#suites = [];

	/** The full name of a test or suite that is declared here. */
	of(name) {
		return [...this.#suites, String(name)].join(SEPARATOR);
	}

	/** Declares what belongs to a suite. */
	within(suite, declare) {
		this.#suites.push(String(suite));
		try {
			return declare();
		} finally {
			this.#suites.pop();
		}
	}
}

/** @param {string} test @param {string} suite Full names. */
export function isWithin(test, suite) {
	return test.startsWith(suite + SEPARATOR);
}
