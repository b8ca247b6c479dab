import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';

import {
	canonicalText,
	claimAddresses,
	freePort,
	isPortFree,
	parseExact,
	pluginApplication,
	selfApplication,
	temporaryFolder,
	timestampText,
	until,
	valueOf,
	vesselPositions,
} from '../support/index.mjs';

test('cells_become_what_the_design_says', () => {
	const cases = /** @type {[string, any, any][]} */ ([
		['INT64', '9007199254740993', 9007199254740993n],
		['INT64', '-9007199254740992', -9007199254740992],
		['FLOAT64', 'NaN', NaN],
		['FLOAT64', '-Infinity', -Infinity],
		['NUMERIC', '0.1', 0.1],
		['NUMERIC', '100', 100],
		['NUMERIC', '0.10', 0.1],
		['NUMERIC', '0.1234567890123456789', '0.1234567890123456789'],
		['BIGNUMERIC', '1e-7', 1e-7],
		['TIMESTAMP', '-1', '1969-12-31T23:59:59.999999Z'],
		['BOOL', 'false', false],
		['JSON', '{"n":12345678901234567890}', { n: 12345678901234567890n }],
		['STRING', '', ''],
		['INT64', null, null],
	]);
	for (const [type, cell, expected] of cases) assert.deepEqual(valueOf({ name: 'c', type }, cell), expected);
	const range = { name: 'r', type: 'RANGE', rangeElementType: { type: 'DATE' } };
	assert.deepEqual(valueOf(range, '[2024-01-01, UNBOUNDED)'), { start: '2024-01-01', end: null });
	assert.equal(timestampText(253402300799999999n), '9999-12-31T23:59:59.999999Z');
});

test('long_integers_are_parsed_exactly_and_strings_left_alone', () => {
	const text = '[{"a":9007199254740993,"b":"\\"9007199254740993","c":0.12345678901234567,"d":-9007199254740993}]';
	const [row] = parseExact(text);
	assert.deepEqual(row, {
		a: 9007199254740993n,
		b: '"9007199254740993',
		c: Number('0.12345678901234567'),
		d: -9007199254740993n,
	});
});

test('canonical_text_ignores_order_and_nulls_only', () => {
	assert.equal(canonicalText({ b: 1, a: [null, 'x'], c: null }), canonicalText({ a: [null, 'x'], b: 1n }));
	assert.notEqual(canonicalText({ a: '1' }), canonicalText({ a: 1 }));
	assert.notEqual(canonicalText({ a: [] }), canonicalText({}));
});

test('the_same_seed_gives_the_same_rows_in_order_of_time', () => {
	const rows = [...vesselPositions({ rows: 500, days: 3, seed: 9 })];
	assert.deepEqual([...vesselPositions({ rows: 500, days: 3, seed: 9 })], rows);
	const times = rows.map((row) => row.timestamp);
	assert.deepEqual([...times].sort(), times);
	assert.ok(times[0].startsWith('2024-01-01') && times[499].startsWith('2024-01-03'));
});

test('an_address_is_claimed_once_and_until_returns_or_tells_why', async () => {
	const [mine] = await claimAddresses(1, [19_925]);
	await assert.rejects(claimAddresses(1, [], [mine.address]), { code: 'PORT_TAKEN' });
	await mine.release();
	assert.ok(await isPortFree(await freePort()));
	let looks = 0;
	assert.equal(await until(() => ++looks > 2 && 'seen', { everyMs: 1 }), 'seen');
	const late = until(() => false, { deadlineMs: 20, everyMs: 5, what: 'nothing' });
	await assert.rejects(late, { code: 'DEADLINE', message: /nothing/ });
});

test('applications_hold_the_component_and_its_configuration', () => {
	const component = temporaryFolder('component');
	after(() => component.remove());
	writeFileSync(path.join(component.path, 'package.json'), '{"name":"bigquery-sync","dependencies":{}}');
	writeFileSync(
		path.join(component.path, 'config.yaml'),
		'rest: true\nsync:\n  pollInterval: 1\nstatic:\n  files: web/**\n'
	);
	const config = { bigquery: { projectId: 'p' }, sync: { partitions: 8 } };
	const plugin = pluginApplication({ component: component.path, config, schema: 'type Widget @table' });
	assert.ok(existsSync(path.join(plugin.path, 'node_modules/bigquery-sync/package.json')));
	const written = JSON.parse(readFileSync(path.join(plugin.path, 'config.yaml'), 'utf8'));
	assert.deepEqual(written['bigquery-sync'], { package: 'bigquery-sync', ...config });
	plugin.configure({ bigquery: {} });
	assert.ok(!readFileSync(path.join(plugin.path, 'config.yaml'), 'utf8').includes('projectId'));
	const self = selfApplication({ component: component.path, config });
	assert.equal(
		readFileSync(path.join(self.path, 'config.yaml'), 'utf8'),
		'rest: true\nstatic:\n  files: web/**\nbigquery: {"projectId":"p"}\nsync: {"partitions":8}\n'
	);
	plugin.remove();
	self.remove();
	assert.ok(!existsSync(self.path));
});
