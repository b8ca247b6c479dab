/** Reads the ids of many records, and little else of them, without keeping the thread from other work. */

import { setTimeout as sleep } from 'node:timers/promises';

/** How long the thread may be busy at a time, and how long it then does something else. */
const SLICE_MS = 4;
const PAUSE_MS = 4;
/** So long if it is in no hurry: it is busy for a tenth of the time. */
const LONG_PAUSE_MS = 36;
/** The records that are handed over at a time. */
const RECORDS_AT_A_TIME = 1_000;
/** To look at the time costs as much as to read some entries. */
const ENTRIES_AT_A_TIME = 50;

/**
 * Reads the ids of the records that exist.
 * @param {any} table
 * @param {object} range
 * @param {[string, string] | undefined} range.bounds The first and the last id; all ids if there are no bounds.
 * @param {string | undefined} range.attribute
 * @param {(texts: (string | null)[]) => unknown} range.take Gets the ids of the records that exist, and behind each id the
 *   value of the attribute if there is one.
 * @param {AbortSignal} range.signal
 */
export async function scan(table, { bounds, attribute, take, signal }) {
	const textsAtATime = attribute === undefined ? RECORDS_AT_A_TIME : 2 * RECORDS_AT_A_TIME;
	/** @type {(string | null)[]} */
	let texts = [];
	const handOver = () => {
		if (texts.length > 0) take(texts);
		texts = [];
	};
	const visit = ({ key, value }) => {
		if (isDeleted(value)) return;
		texts.push(String(key));
		if (attribute !== undefined) texts.push(textOf(value[attribute]));
		if (texts.length >= textsAtATime) handOver();
	};
	await walk(table, { bounds, pause_ms: PAUSE_MS, visit, handOver, signal });
}

/**
 * Visits the records that exist.
 * @param {any} table
 * @param {object} options
 * @param {(entry: {key: any, value: any, version?: number}) => void} options.visit Gets the record, and the time of its last
 *   writing in ms.
 * @param {() => Promise<void>} options.handOver Awaited whenever the thread has been busy for a while, and at the end.
 * @param {AbortSignal} options.signal
 */
export async function scanRecords(table, { visit, handOver, signal }) {
	const visitExisting = (entry) => isDeleted(entry.value) || visit(entry);
	await walk(table, { versions: true, pause_ms: PAUSE_MS, visit: visitExisting, handOver, signal });
}

/**
 * Reads when records were written, in no hurry.
 * @param {any} table
 * @param {object} range
 * @param {[number, number]} range.written After when and until when they were written, in ms since 1970.
 * @param {(ids: string[], writtenAt: Float64Array) => unknown} range.take Gets them, deleted ones too.
 * @param {AbortSignal} range.signal
 */
export async function scanWritten(table, { written: [after, until], take, signal }) {
	/** @type {string[]} */
	let ids = [];
	/** @type {number[]} */
	let times = [];
	const handOver = () => {
		if (ids.length > 0) take(ids, Float64Array.from(times));
		[ids, times] = [[], []];
	};
	const visit = ({ key, version }) => {
		if (!(version > after && version <= until)) return;
		ids.push(String(key));
		times.push(version);
		if (ids.length >= RECORDS_AT_A_TIME) handOver();
	};
	await walk(table, { versions: true, pause_ms: LONG_PAUSE_MS, visit, handOver, signal });
}

/**
 * Visits a table's entries in slices, at whose ends what was collected is handed over.
 * @param {any} table
 * @param {{bounds?: [string, string], versions?: boolean, pause_ms: number, visit: (entry: any) => void,
 *   handOver: () => unknown, signal: AbortSignal}} options
 */
async function walk(table, { bounds, versions = false, pause_ms, visit, handOver, signal }) {
	const [first, last] = bounds ?? [];
	/** @type {any} */
	let start = first;
	let isLeftOut = false;
	for (let isAtEnd = false; !isAtEnd && !signal.aborted;) {
		const until = performance.now() + SLICE_MS;
		let visited = 0;
		isAtEnd = true;
		for (const entry of table.primaryStore.getRange({ start, end: last, lazy: true, snapshot: false, versions })) {
			if (isLeftOut && entry.key === start) continue;
			[start, isLeftOut] = [entry.key, true];
			// Harper's own entries have symbols as keys.
			if (typeof entry.key !== 'symbol') visit(entry);
			if (++visited % ENTRIES_AT_A_TIME !== 0 || performance.now() < until) continue;
			isAtEnd = false;
			break;
		}
		await handOver();
		if (!isAtEnd) await sleep(pause_ms, undefined, { ref: false });
	}
}

/** Of a deleted record, only the key is left. */
function isDeleted(value) {
	return !value;
}

/** A value as a text that the core can read as a cursor. */
export function textOf(value) {
	if (value === null || value === undefined) return null;
	return value instanceof Date ? value.toISOString() : String(value);
}
