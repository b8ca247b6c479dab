/** Reads the ids and cursors of many records without keeping the thread from other work. */

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
export async function scan(table, { bounds, attribute, take, signal }) {
	const [first, last] = bounds ?? [];
	/** @type {any} */
	let start = first;
	let isLeftOut = false;
	for (let isAtEnd = false; !isAtEnd && !signal.aborted;) {
		const until = performance.now() + SLICE_MS;
		/** @type {(string | null)[]} */
		let texts = [];
		let records = 0;
		isAtEnd = true;
		for (const { key, value } of table.primaryStore.getRange({ start, end: last, lazy: true, snapshot: false })) {
			if (isLeftOut && key === start) continue;
			[start, isLeftOut] = [key, true];
			// Of a deleted record, only the key is left. Harper's own entries have symbols as keys.
			if (!value || typeof key === 'symbol') continue;
			texts.push(String(key));
			if (attribute !== undefined) texts.push(textOf(value[attribute]));
			if (++records < RECORDS_AT_A_TIME) continue;
			take(texts);
			[texts, records] = [[], 0];
			if (performance.now() < until) continue;
			isAtEnd = false;
			break;
		}
		if (records > 0) take(texts);
		if (!isAtEnd) await sleep(PAUSE_MS, undefined, { ref: false });
	}
}

/** A value as a text that the core can read as a cursor. */
function textOf(value) {
	if (value === null || value === undefined) return null;
	return value instanceof Date ? value.toISOString() : String(value);
}
