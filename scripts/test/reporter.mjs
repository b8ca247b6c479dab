import { inspect } from 'node:util';

/**
 * A reporter for node:test that writes one JSON line per started and ended test, for `node.mjs` to read.
 *
 * @param {AsyncIterable<{type: string, data: any}>} events
 */
export default async function* report(events) {
	/** @type {string[]} */
	const begun = [];
	/** @type {string[]} */
	const path = [];
	for await (const { type, data } of events) {
		// A test is dequeued when it begins; its start is told only in the order of declaration, with its result.
		if (type === 'test:dequeue') {
			begun.splice(data.nesting, begun.length, data.name);
			yield line({ started: begun.join(' › ') });
		}
		if (type === 'test:start') path.splice(data.nesting, path.length, data.name);
		if (type === 'test:diagnostic' && data.message.startsWith('Error')) yield line({ diagnostic: data.message });
		if (type !== 'test:pass' && type !== 'test:fail') continue;
		path.splice(data.nesting, path.length, data.name);
		yield line({ name: path.join(' › '), ...judge(type, data) });
	}
}

function judge(type, data) {
	const failureType = data.details?.error?.failureType;
	// A suite or test around a failed test fails as well; only the innermost one has something to say.
	if (failureType === 'subtestsFailed') return { result: 'container' };
	if (data.skip !== undefined || data.todo !== undefined) return { result: 'skipped' };
	if (type === 'test:fail') return { result: 'failed', error: describe(data.details.error) };
	return { result: data.details?.type === 'suite' ? 'container' : 'passed' };
}

function describe(error) {
	const cause = error.cause ?? error;
	const text = typeof cause === 'string' ? cause : inspect(cause, { depth: 5, colors: false });
	return text
		.split('\n')
		.filter((row) => !/^\s+at .*\(?node:internal\//.test(row))
		.join('\n');
}

function line(value) {
	return `${JSON.stringify(value)}\n`;
}
