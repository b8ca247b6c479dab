import { microsOf } from './instant.mjs';

/**
 * @typedef {[from: number, to: number][]} Ranges Of row numbers, half-open, ascending and apart.
 *
 * @typedef {object} SortedRows Rows in the order of their cursors.
 * @property {number} rows
 * @property {(micros: bigint) => number} rowsUntil Number of rows up to and with a cursor.
 * @property {() => [bigint, bigint]} extent The first and the last cursor.
 */

const COLUMN = '`timestamp`';
const MICROS = `UNIX_MICROS(${COLUMN})`;
const BOUND = new RegExp(`^${COLUMN} (>|<=) TIMESTAMP '([^']+)'$`);
/** The condition that a row is in one of some partitions, as the core words it for spans of a fixed length. */
const PARTITIONS = new RegExp(
	`^${pattern(`MOD(MOD(DIV((${MICROS} - MOD(MOD(${MICROS}, #) + #, #)), #), %) + %, %) IN (`)}([\\d, ]+)\\)$`
);

/** Quotes a text for a regular expression, in which # is one number each time, and % another. */
function pattern(text) {
	const quoted = text.replace(/[()+]/g, '\\$&');
	return quoted
		.replace('#', '(?<length>\\d+)')
		.replaceAll('#', '\\k<length>')
		.replace('%', '(?<count>\\d+)')
		.replaceAll('%', '\\k<count>');
}

/**
 * Finds the rows that a query of the component selects, exactly.
 * @param {string} query
 * @param {SortedRows} table
 * @returns {Ranges}
 * @throws {Error} At a condition that the component does not ask for today: no answer is better than a wrong one.
 */
export function selectedRows(query, table) {
	const where = /\nWHERE ([^]*?)(?:\nGROUP BY [^]*)?$/.exec(query)?.[1];
	if (where === undefined || query.includes('ROW_NUMBER')) throw new Error(`the page server cannot answer: ${query}`);
	return where
		.split('\n  AND ')
		.map((condition) => rowsOfCondition(condition, table))
		.reduce(intersection);
}

function rowsOfCondition(condition, table) {
	if (!condition.startsWith('(')) return rowsOfTerm(condition, table);
	const segments = condition.slice(1, -1).split('\n    OR ');
	const rows = segments.map((segment) => {
		const terms = segment.slice(1, -1).split(' AND ');
		return terms.map((term) => rowsOfTerm(term, table)).reduce(intersection);
	});
	return union(rows.flat());
}

/** @returns {Ranges} */
function rowsOfTerm(term, table) {
	if (term === `${COLUMN} IS NOT NULL`) return [[0, table.rows]];
	if (term === `${COLUMN} IS NULL`) return [];
	const [, sign, text] = BOUND.exec(term) ?? [];
	if (sign !== undefined) {
		const until = table.rowsUntil(BigInt(microsOf(text.replace(' ', 'T').replace('+00', 'Z'))));
		return sign === '>' ? [[until, table.rows]] : [[0, until]];
	}
	const spans = PARTITIONS.exec(term);
	if (spans?.groups === undefined) throw new Error(`the page server does not know the condition: ${term}`);
	const wanted = new Set(spans[3].split(', ').map(BigInt));
	return rowsOfSpans(BigInt(spans.groups.length), BigInt(spans.groups.count), wanted, table);
}

/**
 * @param {bigint} length_us
 * @param {bigint} count
 * @param {Set<bigint>} wanted
 * @param {SortedRows} table
 */
function rowsOfSpans(length_us, count, wanted, table) {
	/** @type {Ranges} */
	const found = [];
	const [first, last] = table.extent();
	// The samples lie after 1970, where dividing rounds down.
	for (let span = first / length_us; span <= last / length_us; span++) {
		if (!wanted.has(span % count)) continue;
		found.push([table.rowsUntil(span * length_us - 1n), table.rowsUntil((span + 1n) * length_us - 1n)]);
	}
	return union(found);
}

/** @returns {Ranges} */
function intersection(some, others) {
	const found = some.flatMap(([from, to]) => {
		return others.map(([otherFrom, otherTo]) => [Math.max(from, otherFrom), Math.min(to, otherTo)]);
	});
	return union(found);
}

/**
 * @param {[from: number, to: number][]} ranges In any order.
 * @returns {Ranges}
 */
function union(ranges) {
	/** @type {Ranges} */
	const joined = [];
	for (const [from, to] of ranges.filter((one) => one[0] < one[1]).sort((one, other) => one[0] - other[0])) {
		const last = joined.at(-1);
		if (last !== undefined && from <= last[1]) last[1] = Math.max(last[1], to);
		else joined.push([from, to]);
	}
	return joined;
}
