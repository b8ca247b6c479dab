/** Finds rows that were stored before the source's columns changed, so that no row is duplicated or lost. */

import { Turn } from './turn.js';

/** The id of a row without a key starts with so many characters of its cursor. */
const CURSOR_CHARACTERS = 11;

/** Sorts behind all characters that ids have. */
const LAST = '~';

/** The rows that are passed to the core at a time. */
const ROWS_AT_A_TIME = 200;

/**
 * @typedef {import('./batch.js').Layout} Layout
 * @typedef {{record: number | null, stored: number | null, former: number[]}} Heir
 * @typedef {object} Replacement What has to be written besides the records.
 * @property {Map<string | number, string[]>} replaced By records' ids: the ids that they replace.
 * @property {{id: string, past: Record<string, any>, former: string[]}[]} late Stored rows that replace others, and get
 *   their values of dropped columns.
 * @typedef {{seekFormer: () => void, addStored: (rows: string) => void, settle: (records: string) => Heir[]}} Core
 */

/**
 * Finds the stored rows that the records replace, under the same ids or under ids of former eras. Gives the records the
 * values of dropped columns, which only the stored rows have.
 * @param {any} table
 * @param {Layout} layout
 * @param {{replaces: boolean, renewed: [string, string] | null}} order Tells whether there may be ids of former eras,
 *   and in which range of ids all rows get new ids, so that no former id may stay.
 * @param {Record<string, any>[]} records
 * @param {Core} [core] Decides which record replaces which row.
 * @returns {Promise<Replacement>}
 */
export async function succeed(table, layout, { replaces, renewed }, records, core) {
	const seeksFormer = (replaces || renewed) && layout.newerBy === null && layout.idType === 'text';
	if (core && seeksFormer) return new Search(table, layout, records, core, renewed).run();
	if (layout.retired.length > 0) {
		const turn = new Turn();
		for (const record of records) {
			const stored = await readAll(table, { attribute: 'id', value: record.id });
			Object.assign(record, pastOf(layout, stored));
			if (turn.isOver()) await turn.end();
		}
	}
	return { replaced: new Map(), late: [] };
}

/** A search for the rows that records replace. */
class Search {
	#turn = new Turn();
	/** @type {Replacement} */
	#found = { replaced: new Map(), late: [] };
	/** Records by the start of their ids, which is the cursor. @type {Map<string, Record<string, any>[]>} */
	#records = new Map();

	constructor(table, layout, records, core, renewed) {
		this.table = table;
		this.layout = layout;
		this.core = core;
		this.renewed = renewed;
		this.dates = new Set(table.attributes.filter(({ type }) => type === 'Date').map(({ name }) => name));
		for (const record of records) {
			const alike = this.#records.get(cursorOf(record));
			if (alike) alike.push(record);
			else this.#records.set(cursorOf(record), [record]);
		}
	}

	/** @returns {Promise<Replacement>} */
	async run() {
		const [first, last] = this.renewed ?? [];
		for (const cursor of [...this.#records.keys()]) {
			if (first === undefined || cursor < first || cursor > last) await this.#look(cursor, `${cursor}${LAST}`);
		}
		if (first !== undefined) await this.#look(first, last);
		return this.#found;
	}

	/** Looks at rows that share a cursor together. */
	async #look(first, last) {
		let rows = [];
		const range = { attribute: 'id', comparator: 'between', value: [first, last] };
		for await (const row of this.table.search({ conditions: [range] })) {
			if (rows.length >= ROWS_AT_A_TIME && cursorOf(row) !== cursorOf(rows[rows.length - 1])) {
				await this.#settle(rows);
				rows = [];
			}
			rows.push(row);
			if (this.#turn.isOver()) await this.#turn.end();
		}
		await this.#settle(rows);
	}

	async #settle(rows) {
		const records = [...new Set(rows.map(cursorOf))].flatMap((cursor) => this.#records.get(cursor) ?? []);
		const suffix = `~${this.layout.era}`;
		if (records.length === 0 && rows.every(({ id }) => id.endsWith(suffix))) return;
		this.core.seekFormer();
		for (let from = 0; from < rows.length; from += ROWS_AT_A_TIME) {
			this.core.addStored(this.#told(rows.slice(from, from + ROWS_AT_A_TIME)));
			if (this.#turn.isOver()) await this.#turn.end();
		}
		for (const { record, stored, former } of this.core.settle(this.#told(records))) {
			const ids = former.map((place) => rows[place].id);
			const selves = [...(stored === null ? [] : [stored]), ...former].map((place) => rows[place]);
			const past = pastOf(this.layout, selves);
			if (record === null) {
				this.#found.late.push({ id: selves[0].id, past, former: ids });
				continue;
			}
			Object.assign(records[record], past);
			if (ids.length > 0) this.#found.replaced.set(records[record].id, ids);
		}
	}

	#told(rows) {
		const values = (row) => this.layout.columns.map(({ name }) => comparableText(row[name], this.dates.has(name)));
		return JSON.stringify(rows.map((row) => [row.id, values(row)]));
	}
}

/** Returns the start of an id, which is the same for all rows with one cursor. */
function cursorOf({ id }) {
	return id.slice(0, CURSOR_CHARACTERS);
}

/** Returns the rows' values of dropped columns. Of several rows, the first one with a value counts. */
function pastOf({ retired }, rows) {
	/** @type {Record<string, any>} */
	const past = {};
	for (const attribute of retired) {
		const keeper = rows.find((row) => row[attribute] !== undefined);
		if (keeper) past[attribute] = keeper[attribute];
	}
	return past;
}

/** @param {any} table @param {object} condition */
async function readAll(table, condition) {
	const found = [];
	for await (const row of table.search({ conditions: [condition] })) found.push(row);
	return found;
}

/** Returns a text that is equal for equal values; null if there is no value. */
export function comparableText(value, isDate) {
	if (value === null || value === undefined) return null;
	return JSON.stringify(isDate ? new Date(value).getTime() : comparable(value));
}

/** Makes equal values equal as JSON: fields are in one order, and fields without a value are left out. */
function comparable(value) {
	// Harper may return a small one as a number.
	if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : `${value}n`;
	if (typeof value === 'number') return Number.isFinite(value) ? value : `${value}`;
	if (value === null || typeof value !== 'object') return value;
	if (value instanceof Date) return value.toISOString();
	if (ArrayBuffer.isView(value)) {
		return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64');
	}
	if (Array.isArray(value)) return value.map(comparable);
	const members = Object.keys(value)
		.filter((name) => value[name] !== null && value[name] !== undefined)
		.sort();
	return members.map((name) => [name, comparable(value[name])]);
}
