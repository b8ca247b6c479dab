/**
 * Watches the indexes that Harper builds on targets with rows, on each node for itself. The core decides what to do.
 */

import { DATABASE, findTable } from '../database.js';
import { KeptRecords } from '../kept-records.js';
import { replace } from '../stamps.js';
import { define, definitionStore, storedDefinitions } from './definition.js';
import { awaitIndex, hold, release } from './holding.js';

/** The attribute by which the component knows the targets that it has created. Users' schemas hardly declare it. */
const OWN_ATTRIBUTE = '_syncedAt';

/** How long the thread may be busy at a time while it compares rows with indexes. */
const SLICE_MS = 5;

/** Longer texts are stored in an index in a form of Harper's own. */
const TEXT_CHARACTERS_MAX = 200;

/** A look that has begun already may not see what is wanted from now on. */
const LOOKS_EXPECTED = 2;

/** Stands for a process that has ended: Harper continues what such a process began. */
const NO_PROCESS = -1;

/** Whether the component created a table. @param {any} table */
export function isOwn(table) {
	return table?.attributes.some(({ name }) => name === OWN_ATTRIBUTE) === true;
}

/** Holds back what was being built when the process or the thread before this one ended, before anybody searches. */
export function holdUnfinished() {
	for (const [name, table] of Object.entries(databases[DATABASE] ?? {})) {
		if (!isOwn(table)) continue;
		for (const attribute of storedDefinitions(name)) {
			const index = table.indices[attribute.name];
			if (index && attribute.indexingPID !== undefined) hold(index);
		}
	}
}

export class Indexes {
	#builds = new KeptRecords('SyncIndex');
	#stopped = new AbortController();
	/** The targets of which indexes are missing or incomplete. @type {Set<string>} */
	#unfinished = new Set();
	/** The targets that are to have none yet. @type {Set<string>} */
	#without = new Set();
	/** The looks within which the indexes of a target that waited for them are seen to be wanted. @type {Map<string, number>} */
	#expected = new Map();
	/** The tables that were looked at since this worker started. @type {WeakSet<object>} */
	#seen = new WeakSet();

	/**
	 * @param {object} options
	 * @param {boolean} options.isFirst Whether this is the node's first worker, which alone declares and compares.
	 * @param {(build: any, sight: any) => {turn: string, build: any}} options.turn Asks the core.
	 */
	constructor({ isFirst, turn }) {
		this.isFirst = isFirst;
		this.turn = turn;
	}

	stop() {
		this.#stopped.abort();
	}

	/** Notes that a target need not wait for its indexes any more, before the next looks show that. @param {string} name */
	expect(name) {
		if (!this.#without.has(name) || this.#expected.has(name)) return;
		this.#expected.set(name, LOOKS_EXPECTED);
		this.#unfinished.add(name);
	}

	/**
	 * Tells how the indexes of a target are on this node.
	 * @param {string} name
	 * @returns {'building' | 'ready' | undefined} Undefined if the component creates it and gives it none yet.
	 */
	stateOf(name) {
		if (this.#unfinished.has(name)) return 'building';
		return this.#without.has(name) || !findTable(name) ? undefined : 'ready';
	}

	/** Whether some index is missing, is being built, or is about to be. */
	isBusy() {
		return this.#unfinished.size > 0 || [...this.#expected.values()].some((looksLeft) => looksLeft > 0);
	}

	/**
	 * Looks after the indexes of the targets.
	 * @param {Map<string, import('./definition.js').Definition[]>} targets Their attributes, by their names.
	 */
	async look(targets) {
		const builds = new Map((await this.#builds.read()).map((build) => [build.id, build]));
		for (const [name, attributes] of targets) {
			const table = findTable(name);
			if (!isOwn(table)) continue;
			const wanted = attributes.filter(({ indexed }) => indexed).map((attribute) => attribute.name);
			const isBuilt = (one) => table.indices[one] && !builds.has(idOf(name, one));
			for (const attribute of attributes) holdOrRelease(table, attribute.name, builds);
			const looksLeft = this.#expected.get(name) ?? 0;
			if (looksLeft > 0) this.#expected.set(name, looksLeft - 1);
			const areComplete = wanted.every(isBuilt) && (wanted.length > 0 || looksLeft === 0);
			if (areComplete) this.#unfinished.delete(name);
			else this.#unfinished.add(name);
			if (wanted.length > 0) this.#without.delete(name);
			else this.#without.add(name);
			if (this.isFirst && !(areComplete && this.#seen.has(table))) await this.#build(table, wanted, builds);
			this.#seen.add(table);
		}
	}

	/** Does for each index of a table what the core decides. */
	async #build(table, wanted, builds) {
		const name = table.tableName;
		const stored = new Map(storedDefinitions(name).map((one) => [one.name, one]));
		const sights = new Map(wanted.map((one) => [one, sightOf(table, stored.get(one))]));
		let turns = await this.#decide(name, sights, builds);
		const compared = wanted.filter((one) => turns.get(one) === 'compare');
		if (compared.length > 0) {
			const missing = await this.#findMissing(table, compared);
			if (this.#stopped.signal.aborted) return;
			const again = compared.map((one) => [one, { ...sights.get(one), isMissingRows: missing.has(one) }]);
			turns = new Map([...turns, ...(await this.#decide(name, new Map(again), builds))]);
		}
		const continued = wanted.filter((one) => turns.get(one) === 'continue');
		for (const one of continued) await forgetBuilder(idOf(name, one), stored.get(one));
		const due = wanted.filter((one) => ['declare', 'continue'].includes(turns.get(one) ?? ''));
		// Harper builds all of them in one pass.
		if (due.length > 0) this.#declare(table, due);
		for (const one of wanted) holdOrRelease(table, one, builds);
	}

	/** Asks the core about indexes, and stores what it remembers. @returns {Promise<Map<string, string>>} */
	async #decide(name, sights, builds) {
		const turns = new Map();
		for (const [attribute, sight] of sights) {
			const id = idOf(name, attribute);
			const { turn, build } = this.turn(builds.get(id) ?? null, sight);
			await keep(id, build, builds);
			turns.set(attribute, turn);
			if (turn === 'doubt') {
				logger.error?.(`bigquery-sync: the index on ${attribute} of ${name} lacks rows on this node`);
			}
		}
		return turns;
	}

	#declare(table, names) {
		const merged = table.attributes.map((attribute) => ({ ...attribute }));
		for (const name of names) {
			const found = merged.find((attribute) => attribute.name === name);
			if (found) found.indexed = true;
			else merged.push({ name, indexed: true });
		}
		define(table.tableName, merged);
	}

	/** Returns those of the indexed attributes whose indexes lack some row. */
	async #findMissing(table, names) {
		const missing = new Set();
		/** @type {any} */
		let last;
		for (let isAtEnd = false; !isAtEnd && !this.#stopped.signal.aborted && missing.size < names.length;) {
			const until = performance.now() + SLICE_MS;
			isAtEnd = true;
			for (const { key, value } of table.primaryStore.getRange({ start: last, lazy: true, snapshot: false })) {
				last = key;
				// Of a deleted record, only the key is left.
				if (value) addLacking(table, { key, value }, names, missing);
				if (performance.now() < until) continue;
				isAtEnd = false;
				break;
			}
			await new Promise((resolve) => setImmediate(resolve));
		}
		return missing;
	}
}

/** @param {string} table @param {string} attribute */
const idOf = (table, attribute) => `${table}/${attribute}`;

/** What this node sees of an index, for the core. @param {any} table @param {import('./definition.js').Stored | undefined} stored */
function sightOf(table, stored) {
	const process_id = stored?.indexingPID;
	return {
		declared: Boolean(stored?.indexed),
		hasRows: table.primaryStore.getStats().entryCount > 0,
		isBuilding: process_id !== undefined,
		isOfFormer: process_id !== undefined && process_id !== process.pid,
		reached: stored?.lastIndexedKey === undefined ? null : String(stored.lastIndexedKey),
		isMissingRows: null,
	};
}

/** Stores what the core remembers of a build; null if it has ended. */
async function keep(id, build, builds) {
	if (build === null) {
		if (builds.delete(id)) await findTable('SyncIndex').delete(id);
		return;
	}
	const before = builds.get(id);
	const after = { ...before, ...build, id };
	if (before && JSON.stringify(before) === JSON.stringify(after)) return;
	builds.set(id, after);
	await replace('SyncIndex', after);
}

/** Makes Harper believe that the build of an index was begun by a process that has ended. */
async function forgetBuilder(key, stored) {
	// With a last key, Harper does not clear the index before it builds it.
	await definitionStore().put(key, { ...stored, indexingPID: NO_PROCESS, lastIndexedKey: stored.lastIndexedKey ?? '' });
}

/** Adds the attributes whose indexes lack a record. */
function addLacking(table, { key, value }, names, missing) {
	for (const name of names) if (!isIndexed(table.indices[name], value[name], key)) missing.add(name);
}

function isIndexed(index, value, key) {
	const isPlain = ['number', 'boolean'].includes(typeof value) || (value === null && index.indexNulls);
	const isShort = typeof value === 'string' && value.length <= TEXT_CHARACTERS_MAX;
	return isPlain || isShort ? index.doesExist(value, key) : true;
}

function holdOrRelease(table, attribute, builds) {
	const index = table.indices[attribute];
	if (index === undefined) awaitIndex(table, attribute);
	else if (builds.has(idOf(table.tableName, attribute))) hold(index);
	else release(index);
}
