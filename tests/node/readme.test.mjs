/** The examples of the documentation, executed. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parse } from 'yaml';

import { loadCore } from '../../js/core.js';

const core = await loadCore();
const read = (path) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const readme = read('README.md');
const examples = [...readme.matchAll(/```yaml\n([^]*?)```/g)].map(([, text]) => parse(text));

const check = (root) => new core.Configuration(root, { emulatorHost: null, sharedRoot: false }).summary();

test('README has an example of each way to run, and both are right', () => {
	assert.equal(examples.length, 2);
	const [plugin, application] = examples;
	assert.equal(check(plugin['bigquery-sync']).tables[0].targetTable, 'VesselPositions');
	assert.deepEqual(
		check(application).tables.map(({ id }) => id),
		['positions', 'vessels']
	);
});

test('README and the package agree on names and versions', () => {
	const { name, version } = JSON.parse(read('package.json'));
	assert.ok(readme.includes(`dist/${name}-${version}.tgz`));
	assert.equal(core.version(), version);
	for (const folder of ['component', 'extension']) {
		assert.equal(JSON.parse(read(`${folder}/package.json`)).version, version);
	}
});

test('the page of the configuration tells every key, and the defaults are the real ones', () => {
	const page = read('docs/configuration.md');
	const keys = [...page.matchAll(/^\| ((?:`\w+`(?:, )?)+) *\|/gm)].flatMap(([, cell]) =>
		[...cell.matchAll(/`(\w+)`/g)].map(([, key]) => key)
	);
	// The core lists the keys it knows when it meets one that it does not, and is like no other.
	for (const [section, sample] of Object.entries({
		bigquery: {},
		sync: {},
		limits: {},
		retry: {},
		control: {},
		schema: {},
	})) {
		const base = { projectId: 'p', dataset: 'd', table: 't', timestampColumn: 'ts' };
		const root = { bigquery: base };
		root[section] = { ...(section === 'bigquery' ? base : sample), zzzzzz: 1 };
		assert.throws(
			() => check(root),
			([{ message }]) => {
				const known = message.slice(message.indexOf('known are ') + 'known are '.length).split(', ');
				assert.deepEqual(
					known.filter((key) => !keys.includes(key)),
					[]
				);
				return known.length > 0 && message.includes('known are ');
			}
		);
	}
});
