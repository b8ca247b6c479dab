/** Reads the ids of many records without keeping the thread from other work. */

import { setTimeout as sleep } from 'node:timers/promises';

/** How long the thread may be busy at a time, and how long it then does something else. */
const SLICE_MS = 4;
const PAUSE_MS = 4;
/** The ids that are handed over at a time. */
const IDS_AT_A_TIME = 1_000;

/**
 * @param {any} table
 * @param {object} range
 * @param {string} range.first
 * @param {string} range.last
 * @param {(ids: string[]) => unknown} range.take Gets the ids of the records that exist.
 * @param {AbortSignal} range.signal
 */
export async function scanIds(table, { first, last, take, signal }) {
	let start = first;
	let isLeftOut = false;
	for (let isAtEnd = false; !isAtEnd && !signal.aborted;) {
		const until = performance.now() + SLICE_MS;
		/** @type {string[]} */
		let ids = [];
		isAtEnd = true;
		for (const { key, value } of table.primaryStore.getRange({ start, end: last, lazy: true, snapshot: false })) {
			if (isLeftOut && key === start) continue;
			[start, isLeftOut] = [key, true];
			// Of a deleted record, only the key is left.
			if (value) ids.push(key);
			if (ids.length < IDS_AT_A_TIME) continue;
			take(ids);
			ids = [];
			if (performance.now() < until) continue;
			isAtEnd = false;
			break;
		}
		if (ids.length > 0) take(ids);
		if (!isAtEnd) await sleep(PAUSE_MS, undefined, { ref: false });
	}
}
