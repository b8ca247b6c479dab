/**
 * Creates target tables with types and indexes, completes them on each node, and checks them before anything is
 * written.
 */

import { randomUUID } from 'node:crypto';

import { HostFailure } from '../../bigquery.js';
import { findTable } from '../database.js';
import { KeptById } from '../kept-records.js';
import { change, replace } from '../stamps.js';
import { define, definitionStore, storedDefinitions } from './definition.js';
import { isOwn } from './indexes.js';

/** How long to wait until this thread knows a new table. */
const TABLE_WAIT_MS = 10_000;

/**
 * @typedef {{name: string, type: string, indexed: boolean, accepts: string[]}} Attribute
 * @typedef {import('../sync/batch.js').Layout & {attributes: Attribute[], mayCreate: boolean, doIndexesWait: boolean}} Target
 */

/** @type {WeakSet<object>} The tables that were completed since this worker started. */
const completed = new WeakSet();

/** The targets that the component has created, by their names. */
const known = new KeptById('SyncTarget');

/** @param {string} name */
export async function readIncarnation(name) {
	return (await known.read(name))?.incarnation ?? '';
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
 * @param {import('./indexes.js').Indexes} indexes
 * @returns {Promise<boolean>} Whether they lack nothing.
 */
export async function completeTargets(tables, indexes) {
	const targets = new Map();
	let areComplete = true;
	for (const { targetTable: name, mayCreate } of tables) {
		const { attributes } = (await known.read(name)) ?? {};
		if (!mayCreate || !attributes) continue;
		const table = await discover(name);
		complete(table, attributes);
		areComplete &&= !isOwn(table) || isComplete(table, attributes);
		targets.set(name, attributes);
	}
	await indexes.look(targets);
	return areComplete && !indexes.isBusy();
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
		await definitionStore()?.committed;
		const definitions = findTable(name) ? [] : storedDefinitions(name);
		// If a thread creates a table that is already stored, it looks again, and nothing is changed.
		if (definitions.length > 0) define(name, definitions);
	}
	return findTable(name);
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
function definitionsOf({ attributes, doIndexesWait }) {
	// A flag that is absent equals one that Harper has stored as absent.
	return attributes.map(({ name, type, indexed }) => ({ name, type, ...(indexed && !doIndexesWait && { indexed }) }));
}

/** Completes a table that the component created, and tells the other nodes its attributes if they have changed. */
async function remember(name, attributes) {
	const made = await known.read(name);
	if (!made) return;
	// The component never removes an index.
	for (const one of attributes) {
		if (made.attributes.some((before) => before.name === one.name && before.indexed)) one.indexed = true;
	}
	// Attributes of dropped columns stay, with their values.
	const former = made.attributes.filter((one) => !attributes.some((current) => current.name === one.name));
	const all = [...attributes, ...former];
	complete(findTable(name), all);
	// The incarnation is not changed, because another worker may be creating the table again.
	if (JSON.stringify(made.attributes) !== JSON.stringify(all)) {
		await change('SyncTarget', name, { attributes: all });
	}
}

/**
 * Adds missing types, and indexes that the database has and this thread does not know. What somebody else has declared
 * stays. Each worker passes the definition to Harper at least once.
 *
 * While an index is being built, nothing is passed: Harper would let this thread build it as well.
 * @param {any} table
 * @param {import('./definition.js').Definition[]} attributes
 */
function complete(table, attributes) {
	if (!isOwn(table)) return;
	if (isComplete(table, attributes)) return;
	const stored = new Map(storedDefinitions(table.tableName).map((one) => [one.name, one]));
	if ([...stored.values()].some(({ indexingPID }) => indexingPID !== undefined)) return;
	let isUnchanged = completed.has(table);
	const merged = table.attributes.map((attribute) => ({ ...attribute }));
	for (const { name, type, indexed } of attributes) {
		let found = merged.find((attribute) => attribute.name === name);
		if (!found) merged.push((found = { name }));
		if (!found.type && type) {
			found.type = type;
			isUnchanged = false;
		}
		if (!found.indexed && indexed && stored.get(name)?.indexed) {
			found.indexed = true;
			isUnchanged = false;
		}
	}
	if (isUnchanged) return;
	completed.add(define(table.tableName, merged));
}

/** @param {any} table @param {import('./definition.js').Definition[]} attributes */
function isComplete(table, attributes) {
	return completed.has(table) && attributes.every((one) => lacksNothing(table, one));
}

/** @param {any} table @param {import('./definition.js').Definition} wanted */
function lacksNothing(table, wanted) {
	const found = table.attributes.find(({ name }) => name === wanted.name);
	return found !== undefined && Boolean(found.type || !wanted.type) && Boolean(found.indexed || !wanted.indexed);
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
