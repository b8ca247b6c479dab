/**
 * The bench's own reading of the type table (DESIGN §8): BigQuery cells to what Harper must store, and a canonical text
 * of records. It is written apart from the product's code on purpose, so that one can catch the other.
 */

/**
 * @typedef {object} Field
 * @property {string} name
 * @property {string} type
 * @property {string} [mode]
 * @property {Field[]} [fields]
 * @property {{type: string}} [rangeElementType]
 */

const MICROS_PER_SECOND = 1_000_000n;

/**
 * RFC 3339 in UTC with always six fractional digits.
 * @param {bigint} micros Microseconds since 1970.
 */
export function timestampText(micros) {
	const fraction = ((micros % MICROS_PER_SECOND) + MICROS_PER_SECOND) % MICROS_PER_SECOND;
	const seconds = (micros - fraction) / MICROS_PER_SECOND;
	const date = new Date(Number(seconds) * 1000).toISOString();
	return `${date.slice(0, 19)}.${fraction.toString().padStart(6, '0')}Z`;
}

/**
 * An exact number where a double can hold the integer, else a BigInt.
 * @param {string} text
 */
function integerOf(text) {
	const number = Number(text);
	return Number.isSafeInteger(number) || BigInt(number) === BigInt(text) ? number : BigInt(text);
}

/**
 * The number when its shortest text is the very decimal, else the decimal as it is.
 * @param {string} text
 */
function decimalOf(text) {
	const number = Number(text);
	if (String(number) === text) return number;
	return plainDecimal(String(number)) === plainDecimal(text) ? number : text;
}

/**
 * One spelling per decimal: no exponent, no sign on zero, no trailing zeros.
 * @param {string} text
 */
function plainDecimal(text) {
	const [mantissa, exponent = '0'] = text.toLowerCase().split('e');
	const negative = mantissa.startsWith('-');
	const [whole, fraction = ''] = mantissa.replace(/^[-+]/, '').split('.');
	const point = whole.length + Number(exponent);
	const digits = (whole + fraction).padEnd(point, '0');
	const padded = point > 0 ? digits : '0'.repeat(1 - point) + digits;
	const cut = Math.max(point, 1);
	const head = padded.slice(0, cut).replace(/^0+(?=\d)/, '');
	const tail = padded.slice(cut).replace(/0+$/, '');
	const value = tail ? `${head}.${tail}` : head;
	return negative && value !== '0' ? `-${value}` : value;
}

/** @type {Record<string, number>} */
const NON_FINITE = { NaN, Infinity, '+inf': Infinity, 'inf': Infinity, '-inf': -Infinity, '-Infinity': -Infinity };

/**
 * RANGE arrives as `[start, end)` with UNBOUNDED for an open side.
 * @param {Field} field
 * @param {string} text
 */
function rangeOf(field, text) {
	const [start, end] = text.replace(/^\[|\)$/g, '').split(/,\s*/);
	const element = { name: field.name, type: field.rangeElementType?.type ?? 'STRING' };
	const side = (/** @type {string} */ one) => (one === 'UNBOUNDED' || one === 'NULL' ? null : scalarOf(element, one));
	return { start: side(start), end: side(end) };
}

/**
 * @param {Field} field
 * @param {any} value The non-null `v` of a cell.
 */
function scalarOf(field, value) {
	switch (field.type.toUpperCase()) {
		case 'INTEGER':
		case 'INT64':
			return integerOf(value);
		case 'FLOAT':
		case 'FLOAT64':
			return value in NON_FINITE ? NON_FINITE[value] : Number(value);
		case 'NUMERIC':
		case 'BIGNUMERIC':
			return decimalOf(value);
		case 'BOOLEAN':
		case 'BOOL':
			return value === true || value === 'true';
		case 'TIMESTAMP':
			return timestampText(BigInt(value));
		case 'JSON':
			return parseExact(value);
		case 'RECORD':
		case 'STRUCT':
			return recordOf(field.fields ?? [], value);
		case 'RANGE':
			return rangeOf(field, value);
		default:
			return value;
	}
}

/**
 * What Harper must hold for one cell.
 * @param {Field} field
 * @param {any} value The `v` of the cell.
 * @returns {any}
 */
export function valueOf(field, value) {
	if (field.mode === 'REPEATED') return (value ?? []).map((/** @type {any} */ item) => scalarOf(field, item.v));
	return value === null || value === undefined ? null : scalarOf(field, value);
}

/**
 * What Harper must hold for one row, without Harper's own attributes.
 * @param {Field[]} fields
 * @param {{f: {v: any}[]}} row
 * @returns {Record<string, any>}
 */
export function recordOf(fields, row) {
	/** @type {Record<string, any>} */
	const record = {};
	for (let i = 0; i < fields.length; i++) record[fields[i].name] = valueOf(fields[i], row.f[i].v);
	return record;
}

/** A number in JSON text that a double may round: 16 digits or more, not within a string. */
const LONG_NUMBER = /"(?:[^"\\]|\\.)*"|(?<![\d.eE+-])-?\d{16,}(?![\d.eE])/g;

/**
 * JSON.parse that keeps long bare integers exact, as BigInt where a double cannot hold them.
 * @param {string} text
 * @returns {any}
 */
export function parseExact(text) {
	if (!/\d{16}/.test(text)) return JSON.parse(text);
	let found = false;
	const marked = text.replace(LONG_NUMBER, (token) => {
		if (token.startsWith('"')) return token;
		found = true;
		return `"\\u0000${token}"`;
	});
	// A reviver is several times slower than plain parsing, and most long digit strings are fractions.
	if (!found) return JSON.parse(text);
	return JSON.parse(marked, (_, value) => {
		return typeof value === 'string' && value.startsWith('\u0000') ? integerOf(value.slice(1)) : value;
	});
}

/**
 * One text per value, not for reading: strings with their length, keys sorted, an absent member the same as a null one, because Harper drops undefined.
 * @param {any} value
 * @returns {string}
 */
export function canonicalText(value) {
	if (value === null || value === undefined) return 'null';
	switch (typeof value) {
		case 'bigint':
			return `${integerOf(String(value))}`;
		case 'number':
			// REST prints NaN and the infinities as null, so no more than that can be compared.
			return Number.isFinite(value) ? `${value === 0 ? 0 : value}` : 'null';
		case 'string':
			return `"${value.length}:${value}`;
		case 'object':
			break;
		default:
			return String(value);
	}
	if (Array.isArray(value)) return `[${value.map(canonicalText).join(',')}]`;
	const { sorted, labels } = sortedKeys(value);
	let members = '';
	for (let i = 0; i < sorted.length; i++) {
		const text = canonicalText(value[sorted[i]]);
		if (text !== 'null') members += labels[i] + text;
	}
	return `{${members}}`;
}

/** @type {{keys: string[], sorted: string[], labels: string[]}} */
let lastKeys = { keys: [], sorted: [], labels: [] };

/**
 * Rows of a table mostly have the same keys in the same order, so sorting is remembered from one to the next.
 * @param {object} value
 */
function sortedKeys(value) {
	const keys = Object.keys(value);
	const same = keys.length === lastKeys.keys.length && keys.every((key, i) => key === lastKeys.keys[i]);
	if (!same) {
		const sorted = [...keys].sort();
		lastKeys = { keys, sorted, labels: sorted.map((key) => `${JSON.stringify(key)}=`) };
	}
	return lastKeys;
}
