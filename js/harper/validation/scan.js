/** Reads the ids and some values of many records without keeping the thread from other work. */

import { setTimeout as sleep } from 'node:timers/promises';

/** How long the thread may be busy at a time, and how long it then does something else. */
const SLICE_MS = 4;
const PAUSE_MS = 4;
/** The records that are handed over at a time. */
const RECORDS_AT_A_TIME = 1_000;

/**
 * @param {any} table
 * @param {object} range
 * @param {[string, string] | undefined} range.bounds The first and the last id; all ids if there are no bounds.
 * @param {string | undefined} range.attribute
 * @param {(texts: (string | null)[]) => unknown} range.take Gets the ids of the records that exist, and behind each id the
 *   value of the attribute if there is one.
 * @param {AbortSignal} range.signal
 */
export function scan(table, { bounds, attribute, take, signal }) {
	/** @param {{key: any, value: any}} entry */
	const read = ({ key, value }) => (attribute === undefined ? [String(key)] : [String(key), textOf(value[attribute])]);
	return scanEntries(table, { bounds, read, take, signal });
}

/**
 * @template T
 * @param {any} table
 * @param {object} range
 * @param {[string, string]} [range.bounds]
 * @param {boolean} [range.versions] Whether the entries have `version`, the time of their last writing in ms.
 * @param {(entry: {key: any, value: any, version?: number}) => T[]} range.read Reads what is of interest of a record that exists.
 * @param {(read: T[]) => unknown} range.take Gets what was read, of many records at a time.
 * @param {() => Promise<void>} [range.pause] Awaited whenever the thread has been busy for a while, and at the end.
 * @param {AbortSignal} range.signal
 */
export async function scanEntries(table, { bounds, versions = false, read, take, pause, signal }) {
	const [first, last] = bounds ?? [];
	/** @type {any} */
	let start = first;
	let isLeftOut = false;
	for (let isAtEnd = false; !isAtEnd && !signal.aborted;) {
		const until = performance.now() + SLICE_MS;
		/** @type {T[]} */
		let found = [];
		let records = 0;
		isAtEnd = true;
		const range = { start, end: last, lazy: true, snapshot: false, versions };
		for (const entry of table.primaryStore.getRange(range)) {
			const { key, value } = entry;
			if (isLeftOut && key === start) continue;
			[start, isLeftOut] = [key, true];
			// Of a deleted record, only the key is left. Harper's own entries have symbols as keys.
			if (!value || typeof key === 'symbol') continue;
			found.push(...read(entry));
			if (++records < RECORDS_AT_A_TIME) continue;
			take(found);
			[found, records] = [[], 0];
			if (performance.now() < until) continue;
			isAtEnd = false;
			break;
		}
		if (records > 0) take(found);
		await pause?.();
		if (!isAtEnd) await sleep(PAUSE_MS, undefined, { ref: false });
	}
}

/** A value as a text that the core can read as a cursor. */
export function textOf(value) {
	if (value === null || value === undefined) return null;
	return value instanceof Date ? value.toISOString() : String(value);
}
