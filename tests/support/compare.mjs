/**
 * Compares a BigQuery table with a Harper table completely, and knows nothing of how the product copies them.
 *
 * Both sides are read page by page and only a digest per row is kept; differing rows are read again for the report.
 */

import { createHash } from 'node:crypto';

import { canonicalText, recordOf } from './values.mjs';

const HARPER_PAGE_ROWS = 20_000;
/** Attributes that are Harper's or the product's own, unless the source has columns of these names. */
const OWN_ATTRIBUTES = ['id', '_syncedAt', '__createdtime__', '__updatedtime__'];

/**
 * @typedef {Record<string, any>} Row
 *
 * @typedef {object} Source
 * @property {string} dataset
 * @property {string} table
 * @property {string[]} [key] Rows are compared by these columns; without them as a multiset of contents.
 * @property {string} [cursor] Keyed: of several rows with one key the latest counts. Keyless: a missing and a phantom
 *   row of the same cursor value are one different row.
 * @property {string[]} [columns] Only these (and key and cursor) are expected in Harper.
 * @property {string} [where] A SQL condition that the rows to compare fulfil.
 *
 * @typedef {object} Comparison
 * @property {boolean} equal
 * @property {number} rows Rows that are right on both sides.
 * @property {number} sourceRows
 * @property {number} targetRows
 * @property {number} missing In the source only.
 * @property {number} duplicate Surplus copies of a row that the source has.
 * @property {number} phantom In Harper only.
 * @property {number} different On both sides with different contents.
 * @property {{kind: 'missing' | 'duplicate' | 'phantom' | 'different', side: 'source' | 'target', row: Row}[]} samples
 *
 * @typedef {object} Options
 * @property {import('./bigquery.mjs').BigQueryClient} bigquery
 * @property {Source} source
 * @property {import('./harper.mjs').HarperNode} harper
 * @property {{database?: string, table: string}} target
 * @property {number} [limitSamples] Of each kind, default 3. Without any, both sides are read only once.
 * @property {(row: Row) => Row} [expected] What Harper must hold for a source row, for `schemaOverrides`.
 */

/**
 * Reads both tables completely and reports every difference.
 * @param {Options} options
 * @returns {Promise<Comparison>}
 */
export async function compareTables(options) {
	const ledger = options.source.key ? new KeyedLedger(options.source) : new MultisetLedger(options.source);
	const columns = await sourceColumns(options);
	const totals = { sourceRows: 0, targetRows: 0 };
	const readSource = async () => {
		for await (const rows of sourcePages(options)) {
			totals.sourceRows += rows.length;
			for (const row of rows) ledger.addSource(row, digestOf(row));
		}
	};
	const readTarget = async () => {
		for await (const rows of targetPages(options, columns)) {
			totals.targetRows += rows.length;
			for (const row of rows) ledger.addTarget(row, digestOf(row));
		}
	};
	await Promise.all([readSource(), readTarget()]);
	const counts = ledger.counts();
	const { missing, duplicate, phantom, different } = counts;
	const equal = missing + duplicate + phantom + different === 0;
	const samples = equal || options.limitSamples === 0 ? [] : await samplesOf(options, columns, ledger);
	return { equal, ...totals, ...counts, samples };
}

/** @param {Row} row */
function digestOf(row) {
	return createHash('sha1').update(canonicalText(row)).digest('base64');
}

/**
 * @param {Source} source
 * @returns {string[] | undefined} Undefined for all columns.
 */
function wantedColumns({ columns, key = [], cursor }) {
	return columns && [...new Set([...columns, ...key, ...(cursor === undefined ? [] : [cursor])])];
}

/**
 * @param {Options} options
 * @returns {Promise<Set<string>>}
 */
async function sourceColumns({ bigquery, source }) {
	const wanted = wantedColumns(source);
	if (wanted) return new Set(wanted);
	const { schema } = await bigquery.getTable(source.dataset, source.table);
	return new Set(schema.fields.map((/** @type {{name: string}} */ field) => field.name));
}

/**
 * @param {Options} options
 * @returns {AsyncGenerator<Row[]>}
 */
async function* sourcePages({ bigquery, source, expected }) {
	const { dataset, table, where } = source;
	const wanted = wantedColumns(source);
	const list = wanted ? wanted.map((name) => `\`${name}\``).join(', ') : '*';
	const sql = `SELECT ${list} FROM \`${bigquery.project}.${dataset}.${table}\` WHERE ${where ?? 'TRUE'}`;
	const pages = wanted || where ? bigquery.queryPages(sql) : bigquery.readAll(dataset, table);
	for await (const { fields, rows } of pages) {
		const records = rows.map((raw) => recordOf(fields, raw));
		yield expected ? records.map(expected) : records;
	}
}

/**
 * @param {Options} options
 * @param {Set<string>} columns
 * @returns {AsyncGenerator<Row[]>}
 */
async function* targetPages({ harper, target }, columns) {
	const ignored = OWN_ATTRIBUTES.filter((name) => !columns.has(name));
	for await (const page of harperPages(harper, target)) {
		for (const row of page) for (const name of ignored) delete row[name];
		yield page;
	}
}

/**
 * Reads a whole Harper table in the order of its primary key, each page by a range scan after the last key.
 * @param {import('./harper.mjs').HarperNode} harper
 * @param {{database?: string, table: string}} target
 * @returns {AsyncGenerator<Row[]>}
 */
export async function* harperPages(harper, { database = 'data', table }) {
	const described = await harper.tableOperation({ operation: 'describe_table', database, table });
	const key = described.hash_attribute ?? described.primary_key;
	const pageAfter = (/** @type {any} */ last) =>
		harper.tableOperation({
			operation: 'search_by_conditions',
			database,
			table,
			get_attributes: ['*'],
			conditions: [{ attribute: key, comparator: 'greater_than', value: last }],
			sort: { attribute: key },
			limit: HARPER_PAGE_ROWS,
		});
	// Numbers sort before strings, and no number is below this one.
	let next = pageAfter(Number.MIN_SAFE_INTEGER);
	for (;;) {
		/** @type {Row[]} */
		const page = await next;
		if (page.length === 0) return;
		next = pageAfter(page[page.length - 1][key]);
		// A reader that stops early leaves this promise alone; its failure is then nobody's concern.
		next.catch(() => {});
		yield page;
	}
}

/**
 * Reads both sides once more and collects rows that the ledger blames.
 * @param {Options} options
 * @param {Set<string>} columns
 * @param {MultisetLedger | KeyedLedger} ledger
 */
async function samplesOf(options, columns, ledger) {
	const limit = options.limitSamples ?? 3;
	/** @type {Comparison['samples']} */
	const samples = [];
	/** @type {Record<string, number>} */
	const taken = {};
	/** @param {'source' | 'target'} side @param {Row} row */
	const look = (side, row) => {
		const kind = ledger.blame(side, row, digestOf(row));
		if (!kind) return;
		const place = `${side} ${kind}`;
		taken[place] = (taken[place] ?? 0) + 1;
		if (taken[place] <= limit) samples.push({ kind, side, row });
	};
	for await (const rows of sourcePages(options)) for (const row of rows) look('source', row);
	for await (const rows of targetPages(options, columns)) for (const row of rows) look('target', row);
	return samples;
}

/** Counts copies of each content. */
class MultisetLedger {
	/** @param {Source} source */
	constructor(source) {
		this.cursor = source.cursor;
		/** @type {Map<string, {source: number, target: number, cursor: string | undefined}>} */
		this.entries = new Map();
		/** @type {Set<string>} Cursor values that have a missing and a phantom row each. */
		this.changed = new Set();
	}

	/**
	 * @param {Row} row
	 * @param {string} digest
	 */
	#entry(row, digest) {
		let entry = this.entries.get(digest);
		if (!entry) {
			// The cursor's text is copied, because a part of a page's text would keep the whole page in memory.
			const cursor = this.cursor === undefined ? undefined : canonicalText(row[this.cursor]);
			entry = { source: 0, target: 0, cursor };
			this.entries.set(digest, entry);
		}
		return entry;
	}

	/**
	 * @param {Row} row
	 * @param {string} digest
	 */
	addSource(row, digest) {
		this.#entry(row, digest).source++;
	}

	/**
	 * @param {Row} row
	 * @param {string} digest
	 */
	addTarget(row, digest) {
		this.#entry(row, digest).target++;
	}

	counts() {
		const counts = { rows: 0, missing: 0, duplicate: 0, phantom: 0, different: 0 };
		/** @type {Map<string, {missing: number, phantom: number}>} */
		const byCursor = new Map();
		for (const { source, target, cursor } of this.entries.values()) {
			counts.rows += Math.min(source, target);
			const missing = Math.max(source - target, 0);
			const phantom = source === 0 ? target : 0;
			counts.missing += missing;
			counts.phantom += phantom;
			counts.duplicate += source === 0 ? 0 : Math.max(target - source, 0);
			if (cursor === undefined || missing + phantom === 0) continue;
			const at = byCursor.get(cursor) ?? { missing: 0, phantom: 0 };
			byCursor.set(cursor, { missing: at.missing + missing, phantom: at.phantom + phantom });
		}
		for (const [cursor, at] of byCursor) {
			const different = Math.min(at.missing, at.phantom);
			if (different === 0) continue;
			this.changed.add(cursor);
			counts.different += different;
			counts.missing -= different;
			counts.phantom -= different;
		}
		return counts;
	}

	/**
	 * @param {'source' | 'target'} side
	 * @param {Row} row
	 * @param {string} digest
	 * @returns {Comparison['samples'][number]['kind'] | undefined}
	 */
	blame(side, row, digest) {
		const entry = this.#entry(row, digest);
		if (entry.source === entry.target) return undefined;
		if (entry.source > 0 && entry.target > entry.source) return side === 'target' ? 'duplicate' : undefined;
		if (side === 'source' ? entry.source < entry.target : entry.source > 0) return undefined;
		if (entry.cursor !== undefined && this.changed.has(entry.cursor)) return 'different';
		return side === 'source' ? 'missing' : 'phantom';
	}
}

/**
 * Follows each key: which contents are acceptable, which there are.
 *
 * @typedef {object} KeyedEntry
 * @property {string[]} source The digests of the source rows with the latest cursor.
 * @property {any} cursor
 * @property {string[]} target The digests of all target rows.
 */
class KeyedLedger {
	/** @param {Source} source */
	constructor(source) {
		this.key = source.key ?? [];
		this.cursor = source.cursor;
		/** @type {Map<string, KeyedEntry>} */
		this.entries = new Map();
	}

	/** @param {Row} row */
	#entry(row) {
		const key = canonicalText(this.key.map((name) => row[name]));
		let entry = this.entries.get(key);
		if (!entry) {
			entry = { source: [], cursor: undefined, target: [] };
			this.entries.set(key, entry);
		}
		return entry;
	}

	/**
	 * @param {Row} row
	 * @param {string} digest
	 */
	addSource(row, digest) {
		const entry = this.#entry(row);
		const cursor = this.cursor === undefined ? undefined : (row[this.cursor] ?? undefined);
		const first = entry.source.length === 0;
		if (first || cursor === entry.cursor) {
			entry.source.push(digest);
			entry.cursor = cursor;
		} else if (cursor !== undefined && (entry.cursor === undefined || cursor > entry.cursor)) {
			entry.source = [digest];
			entry.cursor = cursor;
		}
	}

	/**
	 * @param {Row} row
	 * @param {string} digest
	 */
	addTarget(row, digest) {
		this.#entry(row).target.push(digest);
	}

	/** @param {KeyedEntry} entry */
	#verdict({ source, target }) {
		if (target.length === 0) return 'missing';
		if (source.length === 0) return 'phantom';
		return target.some((digest) => source.includes(digest)) ? 'right' : 'different';
	}

	counts() {
		const counts = { rows: 0, missing: 0, duplicate: 0, phantom: 0, different: 0 };
		for (const entry of this.entries.values()) {
			const verdict = this.#verdict(entry);
			if (verdict === 'phantom') counts.phantom += entry.target.length;
			else counts[verdict === 'right' ? 'rows' : verdict]++;
			if (verdict !== 'phantom') counts.duplicate += Math.max(entry.target.length - 1, 0);
		}
		return counts;
	}

	/**
	 * @param {'source' | 'target'} side
	 * @param {Row} row
	 * @param {string} digest
	 * @returns {Comparison['samples'][number]['kind'] | undefined}
	 */
	blame(side, row, digest) {
		const entry = this.#entry(row);
		const verdict = this.#verdict(entry);
		// Of a source with several versions of a key only the latest is to blame.
		if (side === 'source' && !entry.source.includes(digest)) return undefined;
		if (verdict !== 'right') return verdict;
		return side === 'target' && entry.target.length > 1 ? 'duplicate' : undefined;
	}
}
