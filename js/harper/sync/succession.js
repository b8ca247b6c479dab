/** Rows that are in Harper from before the source's columns changed: found again, so that nothing is doubled or lost. */

import { Turn } from './turn.js';

/** An id of a row without key starts with so many characters that tell its cursor. */
const CURSOR_CHARACTERS = 11;

/** @typedef {import('./batch.js').Layout} Layout */

/**
 * Gives records what only the stored ones have, the values of columns that are gone; and finds those that are stored
 * under an id of a former era.
 * @param {any} table
 * @param {Layout} layout
 * @param {boolean} replaces Whether there may be such.
 * @param {Record<string, any>[]} records
 * @returns {Promise<Map<string | number, string[]>>} Of records' ids, the ones that they replace.
 */
export async function succeed(table, layout, replaces, records) {
	/** @type {Map<string | number, string[]>} */
	const replaced = new Map();
	if (!replaces && layout.retired.length === 0) return replaced;
	const isKeyless = layout.newerBy === null && layout.idType === 'text';
	const cursors = new Map();
	const turn = new Turn();
	for (const record of records) {
		const stored = isKeyless
			? await findKeyless(table, layout, cursors, replaces, record)
			: await readAll(table, record.id);
		const ids = stored.map(({ id }) => id).filter((id) => id !== record.id);
		if (ids.length > 0) replaced.set(record.id, ids);
		for (const attribute of layout.retired) {
			const keeper = stored.find((row) => row[attribute] !== undefined);
			if (keeper) record[attribute] = keeper[attribute];
		}
		if (turn.isOver()) await turn.end();
	}
	return replaced;
}

/** @param {any} table @param {string | number} id */
async function readAll(table, id) {
	const found = [];
	for await (const stored of table.search({ conditions: [{ attribute: 'id', value: id }] })) found.push(stored);
	return found;
}

/**
 * Finds the stored row: under its own id, or under those of former eras, which no other row then may have.
 * @param {any} table
 * @param {Layout} layout
 * @param {Map<string, FormerRows>} cursors
 * @param {boolean} replaces
 * @param {Record<string, any>} record
 */
async function findKeyless(table, layout, cursors, replaces, record) {
	const prefix = record.id.slice(0, CURSOR_CHARACTERS);
	let rows = cursors.get(prefix);
	if (!rows) {
		rows = new FormerRows(table, layout);
		await rows.read(prefix);
		cursors.set(prefix, rows);
	}
	const own = rows.own.get(record.id);
	// A Harper that ended itself may have kept the new row, and the former one with it.
	const former = replaces ? rows.take(record) : [];
	return own ? [own, ...former] : former;
}

/** The stored rows of one cursor value. */
class FormerRows {
	/** Those whose ids are of the current era. @type {Map<string, any>} */
	own = new Map();
	/** The others, by era and content. @type {Map<number, Map<string, any[]>>} */
	#former = new Map();

	/** @param {any} table @param {Layout} layout */
	constructor(table, layout) {
		this.table = table;
		this.layout = layout;
		this.dates = new Set(table.attributes.filter(({ type }) => type === 'Date').map(({ name }) => name));
	}

	/** @param {string} prefix */
	async read(prefix) {
		// The tilde sorts behind all characters that ids have.
		const range = { attribute: 'id', comparator: 'between', value: [prefix, `${prefix}~`] };
		const turn = new Turn();
		for await (const row of this.table.search({ conditions: [range] })) {
			if (turn.isOver()) await turn.end();
			const era = eraOf(row.id);
			if (era >= this.layout.era) {
				this.own.set(row.id, row);
				continue;
			}
			const contents = this.#former.get(era) ?? new Map();
			this.#former.set(era, contents);
			const content = this.#content(row, era);
			const alike = contents.get(content);
			if (alike) alike.push(row);
			else contents.set(content, [row]);
		}
	}

	/**
	 * One of each era: nodes that did not hear of each other may have written the same row in different ones.
	 * @param {Record<string, any>} record
	 */
	take(record) {
		const eras = [...this.#former].sort(([one], [other]) => other - one);
		return eras.flatMap(([era, contents]) => contents.get(this.#content(record, era))?.shift() ?? []);
	}

	/** What rows of an era and of now have in common. A column that an old row does not have at all was NULL. */
	#content(row, era) {
		const columns = this.layout.columns.filter(({ since }) => since <= era);
		return JSON.stringify(columns.map(({ name }) => this.#comparable(name, row[name])));
	}

	#comparable(name, value) {
		if (value === null || value === undefined) return null;
		return this.dates.has(name) ? new Date(value).getTime() : comparable(value);
	}
}

/** @param {string} id */
function eraOf(id) {
	return Number(id.split('~')[2] ?? 0);
}

/** Makes equal values equal as JSON: fields in one order, those without a value left out. */
function comparable(value) {
	if (typeof value === 'bigint') return `${value}n`;
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
