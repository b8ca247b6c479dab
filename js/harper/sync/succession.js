/** Rows that are in Harper from before the source's columns changed: found again, so that nothing is doubled or lost. */

import { Turn } from './turn.js';

/** An id of a row without key starts with so many characters that tell its cursor. */
const CURSOR_CHARACTERS = 11;

/** So many rows are handed to the core at a time. */
const ROWS_AT_A_TIME = 200;

/**
 * @typedef {import('./batch.js').Layout} Layout
 * @typedef {{record: number | null, stored: number | null, former: number[]}} Heir
 * @typedef {{seekFormer: (isWhole: boolean) => void, addStored: (rows: string) => void, settle: (records: string) => Heir[]}} Core
 */

/**
 * Gives records what only the stored ones have, the values of columns that are gone; and finds those that are stored
 * under an id of a former era.
 * @param {any} table
 * @param {Layout} layout
 * @param {{replaces: boolean}} order Tells whether there may be such.
 * @param {Record<string, any>[]} records
 * @param {Core} [core] Decides which one is the former self of which.
 * @returns {Promise<Map<string | number, string[]>>} Of records' ids, the ones that they replace.
 */
export async function succeed(table, layout, { replaces }, records, core) {
	if (!replaces && layout.retired.length === 0) return new Map();
	if (core && replaces && layout.newerBy === null && layout.idType === 'text') {
		return replaceFormer(table, layout, records, core);
	}
	const turn = new Turn();
	for (const record of records) {
		keepPast(layout, record, await readAll(table, { attribute: 'id', value: record.id }));
		if (turn.isOver()) await turn.end();
	}
	return new Map();
}

/** @param {any} table @param {Layout} layout @param {Record<string, any>[]} records @param {Core} core */
async function replaceFormer(table, layout, records, core) {
	const dates = new Set(table.attributes.filter(({ type }) => type === 'Date').map(({ name }) => name));
	const told = (/** @type {Record<string, any>} */ row) => [
		row.id,
		layout.columns.map(({ name }) => comparableText(row[name], dates.has(name))),
	];
	const turn = new Turn();
	const stored = [];
	core.seekFormer(false);
	for (const prefix of new Set(records.map(({ id }) => id.slice(0, CURSOR_CHARACTERS)))) {
		// The tilde sorts behind all characters that ids have.
		const range = { attribute: 'id', comparator: 'between', value: [prefix, `${prefix}~`] };
		const found = await readAll(table, range, turn);
		for (let from = 0; from < found.length; from += ROWS_AT_A_TIME) {
			core.addStored(JSON.stringify(found.slice(from, from + ROWS_AT_A_TIME).map(told)));
			if (turn.isOver()) await turn.end();
		}
		for (const row of found) stored.push(row);
	}
	/** @type {Map<string | number, string[]>} */
	const replaced = new Map();
	for (const { record, stored: own, former } of core.settle(JSON.stringify(records.map(told)))) {
		const heir = records[/** @type {number} */ (record)];
		const past = own === null ? [] : [own];
		keepPast(
			layout,
			heir,
			[...past, ...former].map((place) => stored[place])
		);
		if (former.length > 0) {
			const ids = former.map((place) => stored[place].id);
			replaced.set(heir.id, ids);
		}
	}
	return replaced;
}

/** Gives a record the values of columns that are gone. */
function keepPast({ retired }, record, stored) {
	for (const attribute of retired) {
		const keeper = stored.find((row) => row[attribute] !== undefined);
		if (keeper) record[attribute] = keeper[attribute];
	}
}

/** @param {any} table @param {object} condition @param {Turn} [turn] */
async function readAll(table, condition, turn) {
	const found = [];
	for await (const row of table.search({ conditions: [condition] })) {
		found.push(row);
		if (turn?.isOver()) await turn.end();
	}
	return found;
}

/** A text that is equal for equal values; null for those that are none. */
function comparableText(value, isDate) {
	if (value === null || value === undefined) return null;
	return JSON.stringify(isDate ? new Date(value).getTime() : comparable(value));
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
