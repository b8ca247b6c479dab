/**
 * Which part of a partitioned table a query scans, judged from its SQL text as BigQuery does: only comparisons of the
 * partitioning column with constants prune.
 */

/**
 * @typedef {{kind: 'string' | 'name' | 'number' | 'sign', text: string}} Token
 * @typedef {{ranges: [bigint, bigint][], nulls: boolean}} Span Half-open ranges of µs (or integers); nulls: the rows
 *   without a value.
 */

const LOWEST = -(1n << 70n);
const HIGHEST = 1n << 70n;
const TOKEN =
	/\s+|--[^\n]*|#[^\n]*|('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|`([^`]*)`|([A-Za-z_]\w*)|(\d[\w.]*)|([<>!]=|<>|.)/gsy;
const CLAUSE_ENDS = new Set(['GROUP', 'ORDER', 'LIMIT', 'HAVING', 'QUALIFY', 'WINDOW', 'UNION', 'EXCEPT', 'INTERSECT']);

/** @type {Record<string, bigint | undefined>} Microseconds per unit of the functions that make constants. */
const FACTORS = { TIMESTAMP_MICROS: 1n, TIMESTAMP_MILLIS: 1000n, TIMESTAMP_SECONDS: 1_000_000n };

/** @returns {Span} */
function everything() {
	return { ranges: [[LOWEST, HIGHEST]], nulls: true };
}

/**
 * @param {string} sql
 * @returns {Token[]}
 */
export function tokensOf(sql) {
	/** @type {Token[]} */
	const tokens = [];
	for (const [, string, quoted, word, number, sign] of sql.matchAll(TOKEN)) {
		if (string !== undefined) tokens.push({ kind: 'string', text: string.slice(1, -1) });
		else if (quoted !== undefined) {
			quoted.split('.').forEach((part, index) => {
				if (index > 0) tokens.push({ kind: 'sign', text: '.' });
				tokens.push({ kind: 'name', text: part });
			});
		} else if (word !== undefined) tokens.push({ kind: 'name', text: word });
		else if (number !== undefined) tokens.push({ kind: 'number', text: number });
		else if (sign !== undefined) tokens.push({ kind: 'sign', text: sign });
	}
	return tokens;
}

/**
 * @param {Token | undefined} token
 * @param {string} keyword
 */
function is(token, keyword) {
	return token?.kind === 'name' && token.text.toUpperCase() === keyword;
}

/**
 * The span of the column that all WHERE clauses together leave; a clause that says nothing leaves all.
 * @param {string} sql
 * @param {string} column
 * @returns {Span}
 */
export function scannedSpan(sql, column) {
	const tokens = tokensOf(sql);
	let span = everything();
	tokens.forEach((token, index) => {
		if (is(token, 'WHERE')) span = intersection(span, new Conditions(tokens, index + 1, column).either());
	});
	return span;
}

/** A recursive descent over AND, OR and brackets; whatever it does not understand selects everything. */
class Conditions {
	/**
	 * @param {Token[]} tokens
	 * @param {number} at
	 * @param {string} column
	 */
	constructor(tokens, at, column) {
		this.tokens = tokens;
		this.at = at;
		this.column = column.toLowerCase();
	}

	#ended() {
		const token = this.tokens[this.at];
		if (!token || token.text === ')' || token.text === ';') return true;
		return token.kind === 'name' && CLAUSE_ENDS.has(token.text.toUpperCase());
	}

	/** @returns {Span} */
	either() {
		let span = this.#both();
		while (is(this.tokens[this.at], 'OR')) {
			this.at++;
			const other = this.#both();
			span = { ranges: [...span.ranges, ...other.ranges], nulls: span.nulls || other.nulls };
		}
		return span;
	}

	/** @returns {Span} */
	#both() {
		let span = this.#one();
		while (is(this.tokens[this.at], 'AND')) {
			this.at++;
			span = intersection(span, this.#one());
		}
		return span;
	}

	/** @returns {Span} */
	#one() {
		if (this.tokens[this.at]?.text === '(' && !is(this.tokens[this.at + 1], 'SELECT')) {
			const start = this.at++;
			const inner = this.either();
			if (this.tokens[this.at]?.text === ')') this.at++;
			const next = this.tokens[this.at];
			if (this.#ended() || is(next, 'AND') || is(next, 'OR')) return inner;
			// The brackets were part of an expression, as in `(a + b) > 3`.
			this.at = start;
		}
		const start = this.at;
		let depth = 0;
		let between = 0;
		for (; this.at < this.tokens.length; this.at++) {
			const token = this.tokens[this.at];
			if (depth === 0 && (this.#ended() || is(token, 'OR') || (is(token, 'AND') && between === 0))) break;
			if (is(token, 'AND') && depth === 0) between--;
			if (is(token, 'BETWEEN')) between++;
			if (token.text === '(') depth++;
			if (token.text === ')') depth--;
		}
		return this.#predicate(this.tokens.slice(start, this.at));
	}

	/**
	 * @param {Token[]} tokens
	 * @returns {Span}
	 */
	#predicate(tokens) {
		const [left, rest] = this.#operand(tokens);
		if (left === undefined) return everything();
		if (left === 'column' && is(rest[0], 'IS')) {
			return is(rest[1], 'NOT') ? { ranges: [[LOWEST, HIGHEST]], nulls: false } : { ranges: [], nulls: true };
		}
		if (left === 'column' && is(rest[0], 'BETWEEN')) {
			const [low, more] = this.#operand(rest.slice(1));
			const [high] = this.#operand(more.slice(1));
			if (typeof low !== 'bigint' || typeof high !== 'bigint') return everything();
			return { ranges: [[low, high + 1n]], nulls: false };
		}
		const [right, end] = this.#operand(rest.slice(1));
		if (right === undefined || end.length > 0) return everything();
		if (left === 'column' && typeof right === 'bigint') return comparison(rest[0].text, right);
		if (right === 'column' && typeof left === 'bigint') return comparison(mirrored(rest[0].text), left);
		return everything();
	}

	/**
	 * Reads the column or a constant at the start of the tokens.
	 * @param {Token[]} tokens
	 * @returns {['column' | bigint | undefined, Token[]]}
	 */
	#operand(tokens) {
		const [first, second] = tokens;
		if (!first) return [undefined, []];
		if (first.kind === 'name' && second?.text === '.') return this.#operand(tokens.slice(2));
		if (first.kind === 'string') return [instantOf(first.text), tokens.slice(1)];
		if (first.kind === 'number') return [integerOf(first.text), tokens.slice(1)];
		if (first.text === '-' && second?.kind === 'number') {
			const value = integerOf(second.text);
			return [value === undefined ? undefined : -value, tokens.slice(2)];
		}
		if (first.kind !== 'name') return [undefined, tokens];
		if (first.text.toLowerCase() === this.column && second?.text !== '(' && second?.kind !== 'string') {
			return ['column', tokens.slice(1)];
		}
		const factor = FACTORS[first.text.toUpperCase()];
		const call = second?.text === '(';
		if (factor && call) {
			const [value, more] = this.#operand(tokens.slice(2));
			return [typeof value === 'bigint' ? value * factor : undefined, more.slice(1)];
		}
		if (!/^(TIMESTAMP|DATETIME|DATE)$/i.test(first.text)) return [undefined, tokens];
		const literal = call ? tokens[2] : second;
		if (literal?.kind !== 'string') return [undefined, tokens];
		return [instantOf(literal.text), tokens.slice(call ? 4 : 2)];
	}
}

/** @param {string} text */
function integerOf(text) {
	return /^\d+$/.test(text) ? BigInt(text) : undefined;
}

/**
 * @param {string} text A date or a time in any of BigQuery's usual spellings.
 * @returns {bigint | undefined} Microseconds since 1970.
 */
function instantOf(text) {
	const match = /^(\d{4}-\d\d?-\d\d?)(?:[T ](\d\d?:\d\d:\d\d)(?:\.(\d{1,9}))?)?\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)?$/i.exec(
		text
	);
	if (!match) return undefined;
	const [, date, time = '00:00:00', fraction = '', zone = 'Z'] = match;
	const offset = /^(Z|UTC)$/i.test(zone) ? 'Z' : zone.length === 3 ? `${zone}:00` : zone;
	const milliseconds = Date.parse(`${date}T${time}${offset}`);
	if (Number.isNaN(milliseconds)) return undefined;
	return BigInt(milliseconds) * 1000n + BigInt(fraction.padEnd(6, '0').slice(0, 6));
}

/** @param {string} sign */
function mirrored(sign) {
	return { '<': '>', '<=': '>=', '>': '<', '>=': '<=' }[sign] ?? sign;
}

/**
 * @param {string} sign
 * @param {bigint} value
 * @returns {Span}
 */
function comparison(sign, value) {
	switch (sign) {
		case '=':
			return { ranges: [[value, value + 1n]], nulls: false };
		case '>':
			return { ranges: [[value + 1n, HIGHEST]], nulls: false };
		case '>=':
			return { ranges: [[value, HIGHEST]], nulls: false };
		case '<':
			return { ranges: [[LOWEST, value]], nulls: false };
		case '<=':
			return { ranges: [[LOWEST, value + 1n]], nulls: false };
		default:
			return everything();
	}
}

/**
 * @param {Span} a
 * @param {Span} b
 * @returns {Span}
 */
function intersection(a, b) {
	/** @type {[bigint, bigint][]} */
	const ranges = [];
	for (const [aLow, aHigh] of a.ranges) {
		for (const [bLow, bHigh] of b.ranges) {
			const low = aLow > bLow ? aLow : bLow;
			const high = aHigh < bHigh ? aHigh : bHigh;
			if (low < high) ranges.push([low, high]);
		}
	}
	return { ranges, nulls: a.nulls && b.nulls };
}
