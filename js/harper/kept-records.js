/**
 * Records as they were read last, for as long as the database has the same bytes of them. To compare the bytes costs far
 * less than to have Harper find and decode records, and to copy these. What is returned may be kept by several, so nobody
 * may change it.
 */

import { bytesOf, bytesOfAll, readAll, readRecord, tellsBytes } from './database.js';

/** If more single records are kept, they are all forgotten. */
const SINGLE_MAX = 10_000;

/** Some records of a table that are read together. */
export class KeptRecords {
	/** @type {Map<string, Uint8Array> | undefined} */
	#bytes;
	/** @type {any[]} */
	#records = [];

	/**
	 * @param {string} table
	 * @param {object} [which] All records by default.
	 * @param {HarperCondition[]} [which.conditions] What the records meet.
	 * @param {string} [which.prefix] What their ids start with; others may start with it too.
	 */
	constructor(table, { conditions = [], prefix = '' } = {}) {
		this.table = table;
		this.conditions = conditions;
		this.prefix = prefix;
	}

	/** Reads the records, as plain objects. */
	async read() {
		// What is read afterwards is at least as new as these bytes.
		const bytes = tellsBytes(this.table) ? bytesOfAll(this.table, this.prefix) : undefined;
		if (bytes !== undefined && areSame(bytes, this.#bytes)) return this.#records;
		const records = await readAll(this.table, this.conditions);
		[this.#bytes, this.#records] = [bytes, records];
		return records;
	}
}

/** The checkpoints of a source table. @param {string} tableId */
export function keptCheckpoints(tableId) {
	const conditions = [{ attribute: 'tableId', value: tableId }];
	return new KeptRecords('SyncCheckpoint', { conditions, prefix: `${tableId}:` });
}

/** The checkpoints of several source tables. */
export class KeptCheckpoints {
	/** @type {Map<string, KeptRecords>} */
	#tables = new Map();

	/** Reads those of a source table, as plain objects. @param {string} tableId */
	read(tableId) {
		const known = this.#tables.get(tableId) ?? keptCheckpoints(tableId);
		this.#tables.set(tableId, known);
		return known.read();
	}
}

/** Records of a table that are read one by one. */
export class KeptById {
	/** @type {Map<string, {bytes: Uint8Array, record: any}>} */
	#known = new Map();

	/** @param {string} table */
	constructor(table) {
		this.table = table;
	}

	/** Reads a record as a plain object; null if it does not exist. @param {string} id */
	async read(id) {
		if (!tellsBytes(this.table)) return readRecord(this.table, id);
		// What is read afterwards is at least as new as these bytes.
		const bytes = bytesOf(this.table, id);
		if (bytes === undefined) return null;
		const known = this.#known.get(id);
		if (known !== undefined && isSame(bytes, known.bytes)) return known.record;
		const record = await readRecord(this.table, id);
		if (this.#known.size >= SINGLE_MAX) this.#known.clear();
		this.#known.set(id, { bytes, record });
		return record;
	}
}

/** @param {Map<string, Uint8Array>} bytes @param {Map<string, Uint8Array> | undefined} before */
function areSame(bytes, before) {
	if (bytes.size !== before?.size) return false;
	for (const [id, some] of bytes) {
		const known = before.get(id);
		if (known === undefined || !isSame(some, known)) return false;
	}
	return true;
}

/** @param {Uint8Array} one @param {Uint8Array} other */
function isSame(one, other) {
	return Buffer.compare(one, other) === 0;
}
