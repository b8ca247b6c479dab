/** What becomes of BigQuery's values: the built core and the records that are made of its buffers. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { runInThisContext } from 'node:vm';

import { canonicalText, recordOf } from '../support/values.mjs';
import { wirePage } from '../support/wire.mjs';
import { recordsOf } from './support/core.mjs';

const TS = { name: 'ts', type: 'TIMESTAMP' };
const page = readFileSync(new URL('../../docs/types.md', import.meta.url), 'utf8');

/** The cells of the page's tables with four columns: type, what else, sent, stored. */
const examples = page
	.split('\n')
	.map((line) => line.replace(/^\| | *\|$/g, '').split(/ +\| +/))
	.filter((cells) => cells.length === 4 && cells[0].startsWith('`'))
	.map((cells) => cells.map((cell) => cell.replace(/^`|`$/g, '')));

/** @param {string} type As the page spells it. */
function fieldOf(type, name = 'c') {
	if (type === 'ARRAY') return { name, type: 'INT64', mode: 'REPEATED' };
	if (type === 'RANGE<DATE>') return { name, type: 'RANGE', rangeElementType: { type: 'DATE' } };
	if (type !== 'STRUCT') return { name, type };
	const fields = [
		{ name: 'n', type: 'INT64' },
		{ name: 't', type: 'TIMESTAMP' },
	];
	return { name, type: 'RECORD', fields };
}

/** @param {string} type @param {string} text */
const sentOf = (type, text) => (type === 'STRUCT' || type === 'ARRAY' ? JSON.parse(text) : text);

describe('the examples of the page of types', () => {
	for (const [type, other, sent, stored] of examples) {
		const isOverride = /^(Int|Long|Float|BigInt|String|Boolean|Date|Bytes|Any)$/.test(other);
		test(`${type} ${isOverride ? `as ${other} ` : ''}${sent} becomes ${stored}`, async () => {
			const overrides = isOverride ? { schemaOverrides: { c: { type: other } } } : {};
			const rows = [{ ts: '0', c: sentOf(type, sent) }, { ts: '1' }];
			const { records, rejections } = await recordsOf([TS, fieldOf(type)], rows, overrides);
			const empty = type === 'ARRAY' ? (other === 'String' ? '[]' : []) : null;
			assert.deepEqual(records.at(-1).c, empty, 'what becomes of NULL');
			if (stored === 'rejected') {
				assert.equal(records.length, 1);
				const reason = `the value of c cannot be read as ${other}, which schemaOverrides asks for`;
				assert.deepEqual(
					rejections.map((rejection) => rejection.reason),
					[reason]
				);
			} else {
				assert.deepEqual(rejections, []);
				assert.deepEqual(records[0].c, runInThisContext(`(${stored})`));
			}
		});
	}
});

test('the odds that two integer ids are alike are those that the page of types tells', () => {
	const rows = [...page.matchAll(/^\| ([\d,]{9,}) +\| ([\d.]+) % +\| ([\d.]+) +\|$/gm)];
	assert.equal(rows.length, 3);
	for (const [, count, probability, lost] of rows) {
		const expected = Number(count.replaceAll(',', '')) ** 2 / 2 ** 54;
		assert.equal(Number(lost), Number(expected.toPrecision(2)));
		assert.equal(Number(probability), Number((100 * -Math.expm1(-expected)).toPrecision(2)));
	}
});

/** Edge values of each type, as sent. */
const EDGES = {
	INT64: ['0', '-1', '9007199254740992', '-9007199254740993', '9223372036854775807', '-9223372036854775808'],
	FLOAT64: [
		'0',
		'-0.0',
		'5e-324',
		'1.7976931348623157e308',
		'NaN',
		'Infinity',
		'-Infinity',
		'0.1',
		'1e21',
		'123456789',
	],
	NUMERIC: [
		'99999999999999999999999999999.999999999',
		'-99999999999999999999999999999.999999999',
		'0.000000001',
		'0.1',
	],
	BIGNUMERIC: [
		'578960446186580977117854925043439539266.34992332820282019728792003956564819967',
		'-578960446186580977117854925043439539266.34992332820282019728792003956564819968',
		'0.00000000000000000000000000000000000001',
	],
	BOOL: ['true', 'false'],
	STRING: [
		'',
		' ',
		'\u0000\u0001',
		'"\\/\b\f\n\r\t',
		'\u2028',
		'Zürich 東京 🚢',
		'null',
		'{"a":1}',
		'x'.repeat(70_000),
	],
	BYTES: ['', 'AA==', '/////w==', '++//'],
	TIMESTAMP: ['-62135596800000000', '253402300799999999', '-1', '0', '1'],
	DATE: ['0001-01-01', '9999-12-31', '2024-02-29'],
	TIME: ['00:00:00', '23:59:59.999999', '00:00:00.000001'],
	DATETIME: ['0001-01-01T00:00:00', '9999-12-31T23:59:59.999999'],
	GEOGRAPHY: ['{ "type": "Point", "coordinates": [-180, 90] } '],
	JSON: [
		'null',
		'""',
		'"\\ud83d\\udea2 \\u0000 \\"\\\\"',
		'{"a":9007199254740993,"b":[12345678901234567890,{"c":-9223372036854775808}],"constructor":1}',
		'{"":{"":[]},"a.b":{},"toString":1,"then":2,"toJSON":3}',
		'[[[[[[[[[[1.5e300]]]]]]]]]]',
		`${'['.repeat(100)}9007199254740993${']'.repeat(100)}`,
		'0.1',
	],
};

/** Rows in which each column goes through its edge values, one of them and NULL at a time. */
function edgeRows() {
	const count = Math.max(...Object.values(EDGES).map((values) => values.length)) + 1;
	return Array.from({ length: count }, (_, row) =>
		Object.fromEntries(Object.entries(EDGES).map(([type, values]) => [type, values[row] ?? null]))
	);
}

test('every_type_crosses_the_boundary_alone_within_records_and_within_arrays', async () => {
	const scalars = Object.keys(EDGES).map((type) => ({ name: type, type }));
	const record = { name: 'inner', type: 'RECORD', fields: scalars };
	const fields = [
		TS,
		...scalars,
		{ name: 'deep', type: 'RECORD', fields: [{ name: 'deeper', type: 'RECORD', fields: [record] }] },
		{ name: 'list', type: 'RECORD', mode: 'REPEATED', fields: [record, { ...TS, mode: 'REPEATED' }] },
		...scalars.map(({ type }) => ({ name: `${type}_list`, type, mode: 'REPEATED' })),
	];
	const rows = edgeRows().map((row, index) => ({
		...row,
		ts: String(index),
		deep: index % 2 === 0 ? { deeper: index % 4 === 0 ? { inner: row } : null } : null,
		list: Array.from({ length: index % 3 }, (_, n) => ({ inner: row, ts: Array(n).fill(String(n)) })),
		...Object.fromEntries(
			Object.entries(row).map(([type, value]) => [`${type}_list`, value === null ? [] : [value, value]])
		),
	}));
	const { records, rejections } = await recordsOf(fields, rows, { columns: ['*'] });
	assert.deepEqual(rejections, []);
	assert.equal(records.length, rows.length);
	// The bench reads the wire on its own, apart from the product's code.
	const sent = wirePage({ fields, rows }).rows.map((row) => recordOf(fields, row));
	for (const [index, record] of records.entries()) {
		assert.match(record.id, /^[\w-]{27}$/);
		assert.deepEqual(withBigInts(record), withBigInts({ id: record.id, ...sent[index], _syncedAt: 'now' }));
	}
	assert.equal(new Set(records.map(({ id }) => id)).size, rows.length);
});

test('intervals_and_ranges_have_their_parts_and_sides', async () => {
	const range = (type) => ({ name: type, type: 'RANGE', rangeElementType: { type } });
	const fields = [TS, { name: 'i', type: 'INTERVAL' }, range('DATE'), range('DATETIME'), range('TIMESTAMP')];
	const row = {
		ts: '0',
		i: '-10000-11 -3660000 -87840000:0:0.000001',
		DATE: '[0001-01-01, 9999-12-31)',
		DATETIME: '[UNBOUNDED, 2024-01-01T00:00:00.5)',
		TIMESTAMP: '[1704067200000000, UNBOUNDED)',
	};
	const [record] = (await recordsOf(fields, [row])).records;
	assert.equal(record.i, 'P-10000Y-11M-3660000DT-87840000H-0.000001S');
	assert.deepEqual(record.DATE, { start: '0001-01-01', end: '9999-12-31' });
	assert.deepEqual(record.DATETIME, { start: null, end: '2024-01-01T00:00:00.5' });
	assert.deepEqual(record.TIMESTAMP, { start: '2024-01-01T00:00:00.000000Z', end: null });
});

test('json_that_javascript_or_harper_would_change_is_rejected_unless_its_text_is_wanted', async () => {
	const fields = [TS, { name: 'j', type: 'JSON' }];
	const unfit = [
		'{"a":1,"a":2}',
		'{"a":1,"\\u0061":9007199254740993}',
		'[{"x":{"__proto__":{"a":1}}}]',
		'{"constructor":1,"toJSON":1}',
		'"\\ud83d"',
		'{"\\udea2":1}',
	];
	const rows = unfit.map((j, index) => ({ ts: String(index), j }));
	const { records, rejections } = await recordsOf(fields, rows);
	assert.deepEqual(records, []);
	assert.ok(rejections.every(({ reason }) => reason.includes('schemaOverrides can store its text')));
	assert.equal(rejections.length, unfit.length);
	const texts = await recordsOf(fields, rows, { schemaOverrides: { j: { type: 'String' } } });
	assert.deepEqual(
		texts.records.map(({ j }) => j),
		unfit
	);
});

test('half_a_character_is_rejected_and_not_replaced', async () => {
	const fields = [TS, { name: 's', type: 'STRING' }];
	const rows = ['\ud83d', 'x\udea2', '\udea2\ud83d', '\ud83d\udea2', '\\ud83d'].map((s, n) => ({ ts: String(n), s }));
	const { records, rejections } = await recordsOf(fields, rows);
	assert.deepEqual(
		records.map(({ s }) => s),
		['🚢', '\\ud83d']
	);
	assert.equal(rejections.length, 3);
});

test('names_that_harper_cannot_store_stop_the_table_and_others_that_look_special_do_not', async () => {
	for (const name of ['__proto__', 'toJSON', 'then']) {
		const { status } = await recordsOf([TS, { name, type: 'STRING' }], [{ ts: '0' }], { columns: ['*'] });
		assert.equal(status.lastError.code, 'column_reserved', name);
	}
	const inner = { name: 'r', type: 'RECORD', fields: [{ name: '__proto__', type: 'STRING' }] };
	assert.equal((await recordsOf([TS, inner], [{ ts: '0' }])).status.lastError.code, 'column_reserved');
	const names = ['constructor', 'prototype', 'toString', 'hasOwnProperty', 'valueOf', 'get', 'tojson'];
	const fields = [TS, ...names.map((name) => ({ name, type: 'STRING' }))];
	const row = { ts: '0', ...Object.fromEntries(names.map((name) => [name, `the ${name}`])) };
	const [record] = (await recordsOf(fields, [row])).records;
	for (const name of names) assert.equal(record[name], `the ${name}`);
});

test('stored_records_tell_all_that_was_sent', async () => {
	const scalars = Object.keys(EDGES).map((type) => ({ name: type, type }));
	const { records } = await recordsOf(
		[TS, ...scalars],
		edgeRows().map((row, n) => ({ ...row, ts: String(n) }))
	);
	for (const [type, values] of Object.entries(EDGES)) {
		const texts = values.map((_, row) => (Object.is(records[row][type], -0) ? '-0' : canonicalOf(records[row][type])));
		assert.equal(new Set(texts).size, values.length, `two values of ${type} became one`);
	}
});

/** A copy with all integers as BigInt, because the bench keeps more of them as numbers than the product does. */
function withBigInts(value) {
	if (Array.isArray(value)) return value.map(withBigInts);
	if (typeof value === 'number' && Number.isInteger(value) && !Object.is(value, -0)) return BigInt(value);
	if (value === null || typeof value !== 'object') return value;
	return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, withBigInts(member)]));
}

/** Canonical text that tells NaN and the infinities apart, too. */
function canonicalOf(value) {
	return typeof value === 'number' && !Number.isFinite(value) ? String(value) : canonicalText(value);
}
