/**
 * Creates target tables with types and indexes, completes them on each node, and checks them before anything is
 * written.
 */

import { randomUUID } from 'node:crypto';

import { HostFailure } from '../../bigquery.js';
import { DATABASE, findTable, readAll, readRecord } from '../database.js';
import { change, replace } from '../stamps.js';

/** How long a new table may take to be known on this thread. */
const TABLE_WAIT_MS = 10_000;

/** The attribute that each target has that the component made; a schema of the user's own hardly declares it. */
const OWN_ATTRIBUTE = '_syncedAt';

/** Harper may load the modules under several addresses, so the function is kept where all of them find it. */
const MAKER = Symbol.for('bigquery-sync.tableMaker');

/**
 * @typedef {{name: string, type?: string, indexed?: any, nullable?: boolean, isPrimaryKey?: boolean}} Definition
 * @typedef {(table: {table: string, database: string, schemaDefined: boolean, attributes: Definition[]}) => any} TableMaker
 *   Replaces the attributes of a table that is there.
 * @typedef {{name: string, type: string, indexed: boolean, accepts: string[]}} Attribute
 * @typedef {import('../sync/batch.js').Layout & {attributes: Attribute[], mayCreate: boolean}} Target
 */

/** @type {WeakSet<object>} The tables that were completed since this worker started. */
const completed = new WeakSet();

/** @param {TableMaker} maker */
export function offerTableMaker(maker) {
	/** @type {Record<symbol, TableMaker>} */ (globalThis)[MAKER] = maker;
}

/** @param {string} name */
export async function readIncarnation(name) {
	return (await readRecord('SyncTarget', name))?.incarnation ?? '';
}

/**
 * Makes sure that a target table exists, that it takes the rows, and that it has its indexes on this node.
 * @param {string} name
 * @param {Target} target
 * @param {boolean} isFirst Whether to make it at once; else another worker is given the time to.
 * @param {(table: object) => string | undefined} refusalOf Says why a table cannot take the rows.
 * @returns {Promise<{table: any, incarnation: string}>}
 */
export async function ensureTarget(name, target, isFirst, refusalOf) {
	if (!target.mayCreate && !discover(name)) {
		fail(
			`the table ${name} is missing, and schema.create is false: declare it in a schema.graphql, or allow to make it`
		);
	}
	if (!isFirst) await appears(name);
	if (!findTable(name)) await makeTable(name, target);
	const table = findTable(name);
	const refusal = refusalOf(describe(table));
	if (refusal !== undefined) fail(refusal);
	if (target.mayCreate) await remember(name, definitionsOf(target));
	return { table, incarnation: await readIncarnation(name) };
}

/**
 * Gives the targets that the component made, wherever in the cluster, their types and indexes on this node too: Harper
 * replicates a table's definition without its indexes. Never makes a table: one that is missing here may have been
 * dropped, and would have to be filled anew.
 * @param {{targetTable: string, mayCreate: boolean}[]} tables
 */
export async function completeTargets(tables) {
	const made = new Map((await readAll('SyncTarget')).map((target) => [target.id, target]));
	for (const { targetTable: name, mayCreate } of tables) {
		const { attributes } = made.get(name) ?? {};
		if (mayCreate && attributes) complete(discover(name), attributes);
	}
}

/** Waits for a table, though not for long, and tells whether it is there. */
async function appears(name) {
	const deadline = Date.now() + TABLE_WAIT_MS;
	while (!discover(name) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
	return findTable(name) !== undefined;
}

/**
 * Finds a table also if this thread does not know of it, though it is in the database. When a thread of Harper 4.7 makes
 * a table, each other one looks once, possibly at what it has read a moment before, and may miss the table for good.
 * @param {string} name
 */
function discover(name) {
	if (!findTable(name)) {
		const definitions = storedDefinitions(name);
		// Whoever wants to make a table that is stored already is made to look again; nothing is changed.
		if (definitions.length > 0) define(name, definitions);
	}
	return findTable(name);
}

/** A table's attributes as the database has them, without those that are computed. @param {string} name */
function storedDefinitions(name) {
	const store = findTable('SyncTarget').primaryStore.rootStore.dbisDb;
	// They are stored under the table's name, a slash and their own; 0 comes after the slash.
	const stored = store?.getRange({ start: `${name}/`, end: `${name}0` }) ?? [];
	return [...stored].map((/** @type {{value: Definition}} */ { value }) => value);
}

async function makeTable(name, target) {
	const attributes = definitionsOf(target);
	// Known before the table is there: whoever dies in between makes it under yet another incarnation.
	const incarnation = randomUUID();
	await replace('SyncTarget', { id: name, incarnation, madeAt: new Date().toISOString(), attributes });
	const id = { name: 'id', type: target.idType === 'integer' ? 'Long' : 'ID', isPrimaryKey: true };
	let refusal = 'it did not appear';
	try {
		completed.add(define(name, [id, ...attributes]));
	} catch (error) {
		// Another worker may be faster: what counts is that the table appears.
		refusal = error.message ?? String(error);
	}
	if (!(await appears(name))) fail(`the table ${name} could not be created: ${refusal}`);
}

/** @param {Target} target */
function definitionsOf({ attributes }) {
	// A flag that is absent equals one that Harper has stored as absent.
	return attributes.map(({ name, type, indexed }) => ({ name, type, ...(indexed && { indexed }) }));
}

/** @param {string} name @param {Definition[]} attributes */
function define(name, attributes) {
	const maker = /** @type {Record<symbol, TableMaker | undefined>} */ (globalThis)[MAKER];
	if (!maker) fail(`the table ${name} cannot be made: Harper did not load the folder extension of the component`);
	const copies = attributes.map((attribute) => ({ ...attribute }));
	return maker({ table: name, database: DATABASE, schemaDefined: true, attributes: copies });
}

/** Completes a table that the component made, and tells the other nodes how, should that have changed. */
async function remember(name, attributes) {
	const made = await readRecord('SyncTarget', name);
	if (!made) return;
	complete(findTable(name), attributes);
	// Attributes of columns that are gone stay, with what they hold.
	const former = made.attributes.filter((one) => !attributes.some((current) => current.name === one.name));
	const all = [...attributes, ...former];
	// The incarnation is not touched: another worker may be making the table anew.
	if (JSON.stringify(made.attributes) !== JSON.stringify(all)) {
		await change('SyncTarget', name, { attributes: all });
	}
}

/**
 * Adds what is missing of types and indexes; whatever somebody else declared stays. Once in each worker's life Harper is
 * told in any case: it goes on with an index that was being built when the process ended.
 * @param {any} table
 * @param {Definition[]} attributes
 */
function complete(table, attributes) {
	if (!table?.attributes.some(({ name }) => name === OWN_ATTRIBUTE)) return;
	let isComplete = completed.has(table);
	const merged = table.attributes.map((attribute) => ({ ...attribute }));
	for (const { name, type, indexed } of attributes) {
		let found = merged.find((attribute) => attribute.name === name);
		if (!found) merged.push((found = { name }));
		if (!found.type && type) {
			found.type = type;
			isComplete = false;
		}
		if (!found.indexed && indexed) {
			found.indexed = true;
			isComplete = false;
		}
	}
	if (isComplete) return;
	completed.add(define(table.tableName, merged));
}

/** What the core is told of a table, to decide whether it can take the rows. @param {any} table */
function describe({ tableName, primaryKey, sealed, attributes }) {
	const declared = attributes.map(({ name, type, nullable }) => ({
		name,
		type: type ?? null,
		required: nullable === false,
	}));
	return { name: tableName, primaryKey, sealed: sealed === true, attributes: declared };
}

/** @param {string} message @returns {never} */
function fail(message) {
	throw new HostFailure('harper_table', message);
}
