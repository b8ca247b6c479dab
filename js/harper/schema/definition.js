/** Passes definitions of tables to Harper. */

import { HostFailure } from '../../bigquery.js';
import { DATABASE, findTable } from '../database.js';
import { keepHeld } from './holding.js';

/** Harper may load a module under several addresses, so the function is stored where all of them find it. */
const MAKER = Symbol.for('bigquery-sync.tableMaker');

/**
 * @typedef {{name: string, type?: string, indexed?: any, nullable?: boolean, isPrimaryKey?: boolean}} Definition
 * @typedef {Definition & {indexingPID?: number, lastIndexedKey?: any}} Stored As the database has an attribute. The
 *   process and the last key are there until the index has been built.
 * @typedef {(table: {table: string, database: string, schemaDefined: boolean, attributes: Definition[]}) => any} TableMaker
 *   Creates a table, or replaces the attributes of one that exists.
 */

/** @param {TableMaker} maker */
export function offerTableMaker(maker) {
	/** @type {Record<symbol, TableMaker>} */ (globalThis)[MAKER] = maker;
}

/**
 * Creates a table, or replaces the attributes of one that exists.
 * @param {string} name
 * @param {Definition[]} attributes
 */
export function define(name, attributes) {
	const maker = /** @type {Record<symbol, TableMaker | undefined>} */ (globalThis)[MAKER];
	if (!maker) {
		const message = `the table ${name} cannot be made: Harper did not load the folder extension of the component`;
		throw new HostFailure('harper_table', message);
	}
	const copies = attributes.map((attribute) => ({ ...attribute }));
	const definition = { table: name, database: DATABASE, schemaDefined: true, attributes: copies };
	return keepHeld(findTable(name), () => maker(definition));
}

/** Where the database has the definitions of its tables. */
export function definitionStore() {
	return findTable('SyncTarget').primaryStore.rootStore.dbisDb;
}

/**
 * Returns a table's attributes as the database has them, without the computed ones.
 * @param {string} name
 * @returns {Stored[]}
 */
export function storedDefinitions(name) {
	// They are stored under the table's name, a slash and their own; 0 comes after the slash.
	const stored = definitionStore()?.getRange({ start: `${name}/`, end: `${name}0` }) ?? [];
	return [...stored].map((/** @type {{value: Stored}} */ { value }) => value);
}
