/**
 * Creates target tables with types and indexes, completes them on each node, and checks them before anything is
 * written.
 */

import { randomUUID } from 'node:crypto';

import { HostFailure } from '../../bigquery.js';
import { DATABASE, findTable } from '../database.js';
import { KeptById } from '../kept-records.js';
import { change, replace } from '../stamps.js';

/** How long to wait until this thread knows a new table. */
const TABLE_WAIT_MS = 10_000;

/** The attribute by which the component knows the targets that it has created. Users' schemas hardly declare it. */
const OWN_ATTRIBUTE = '_syncedAt';

/** Harper may load a module under several addresses, so the function is stored where all of them find it. */
const MAKER = Symbol.for('bigquery-sync.tableMaker');

/**
 * @typedef {{name: string, type?: string, indexed?: any, nullable?: boolean, isPrimaryKey?: boolean}} Definition
 * @typedef {(table: {table: string, database: string, schemaDefined: boolean, attributes: Definition[]}) => any} TableMaker
 *   Creates a table, or replaces the attributes of one that exists.
 * @typedef {{name: string, type: string, indexed: boolean, accepts: string[]}} Attribute
 * @typedef {import('../sync/batch.js').Layout & {attributes: Attribute[], mayCreate: boolean}} Target
 */

/** @type {WeakSet<object>} The tables that were completed since this worker started. */
const completed = new WeakSet();

/** The targets that the component has created, by their names. */
const targets = new KeptById('SyncTarget');

/** @param {TableMaker} maker */
export function offerTableMaker(maker) {
	/** @type {Record<symbol, TableMaker>} */ (globalThis)[MAKER] = maker;
}

/** @param {string} name */
export async function readIncarnation(name) {
	return (await targets.read(name))?.incarnation ?? '';
}

/**
 * Makes sure that a target table exists, that it takes the rows, and that it has its indexes on this node.
 * @param {string} name
 * @param {Target} target
 * @param {boolean} isFirst Whether to create it at once. Otherwise another worker gets the time to do so.
 * @param {(table: object) => string | undefined} refusalOf Says why a table cannot take the rows.
 * @returns {Promise<{table: any, incarnation: string}>}
 */
export async function ensureTarget(name, target, isFirst, refusalOf) {
	if (!target.mayCreate && !(await discover(name))) {
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
 * Gives targets that the component created on any node their types and indexes on this node, because Harper replicates
 * a table's definition without its indexes. It never creates a table: a missing one may have been dropped, and would
 * have to be filled again.
 * @param {{targetTable: string, mayCreate: boolean}[]} tables
 */
export async function completeTargets(tables) {
	for (const { targetTable: name, mayCreate } of tables) {
		const { attributes } = (await targets.read(name)) ?? {};
		if (mayCreate && attributes) complete(await discover(name), attributes);
	}
}

/** Waits a limited time for a table, and tells whether it exists. */
async function appears(name) {
	const deadline = Date.now() + TABLE_WAIT_MS;
	while (!(await discover(name)) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
	return findTable(name) !== undefined;
}

/**
 * Finds a table even if only the database knows it, and not this thread. When a thread of Harper 4.7 creates a table,
 * each other thread looks for it once, possibly in data that it read a moment before. Then it misses the table for
 * ever.
 *
 * A thread that drops a table forgets it at once, and the database a moment later. If the table was created again in
 * between, it would come back damaged, and as if it had never been gone.
 * @param {string} name
 */
async function discover(name) {
	if (!findTable(name)) {
		const store = findTable('SyncTarget').primaryStore.rootStore.dbisDb;
		await store?.committed;
		const definitions = findTable(name) ? [] : storedDefinitions(store, name);
		// If a thread creates a table that is already stored, it looks again, and nothing is changed.
		if (definitions.length > 0) define(name, definitions);
	}
	return findTable(name);
}

/** Returns a table's attributes as the database has them, without the computed ones. @param {string} name */
function storedDefinitions(store, name) {
	// They are stored under the table's name, a slash and their own; 0 comes after the slash.
	const stored = store?.getRange({ start: `${name}/`, end: `${name}0` }) ?? [];
	return [...stored].map((/** @type {{value: Definition}} */ { value }) => value);
}

async function makeTable(name, target) {
	const attributes = definitionsOf(target);
	// It is stored before the table exists. After a crash in between, the table gets yet another incarnation.
	const incarnation = randomUUID();
	await replace('SyncTarget', { id: name, incarnation, madeAt: new Date().toISOString(), attributes });
	const id = { name: 'id', type: target.idType === 'integer' ? 'Long' : 'ID', isPrimaryKey: true };
	let refusal = 'it did not appear';
	try {
		completed.add(define(name, [id, ...attributes]));
	} catch (error) {
		// Another worker may be faster. It only matters that the table appears.
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

/** Completes a table that the component created, and tells the other nodes its attributes if they have changed. */
async function remember(name, attributes) {
	const made = await targets.read(name);
	if (!made) return;
	complete(findTable(name), attributes);
	// Attributes of dropped columns stay, with their values.
	const former = made.attributes.filter((one) => !attributes.some((current) => current.name === one.name));
	const all = [...attributes, ...former];
	// The incarnation is not changed, because another worker may be creating the table again.
	if (JSON.stringify(made.attributes) !== JSON.stringify(all)) {
		await change('SyncTarget', name, { attributes: all });
	}
}

/**
 * Adds missing types and indexes. What somebody else has declared stays. Each worker passes the definition to Harper at
 * least once, so that Harper continues to build an index that was unfinished when the process ended.
 * @param {any} table
 * @param {Definition[]} attributes
 */
function complete(table, attributes) {
	if (!table?.attributes.some(({ name }) => name === OWN_ATTRIBUTE)) return;
	/** @param {Definition} attribute */
	const lacks = ({ name, type, indexed }) => {
		const found = table.attributes.find((attribute) => attribute.name === name);
		return (!found?.type && type) || (!found?.indexed && indexed);
	};
	if (completed.has(table) && !attributes.some(lacks)) return;
	const merged = table.attributes.map((attribute) => ({ ...attribute }));
	for (const { name, type, indexed } of attributes) {
		let found = merged.find((attribute) => attribute.name === name);
		if (!found) merged.push((found = { name }));
		if (!found.type && type) found.type = type;
		if (!found.indexed && indexed) found.indexed = true;
	}
	completed.add(define(table.tableName, merged));
}

/** Describes a table to the core, which decides whether it can take the rows. @param {any} table */
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
