/** Commits rows together with the progress. */

import { entryOf, findTable, versionOf } from '../database.js';
import { assembleRecords } from './batch.js';
import { bundlePrefetches } from './prefetches.js';
import { comparableText, succeed } from './succession.js';
import { Turn } from './turn.js';
import { putHead, putOpening, putProof, putWitness } from './witnesses.js';

/** At the start of a commit, Harper encodes the rows on this thread. A timer of this length fires just after that. */
const COMMIT_START_MS = 1;

/**
 * @typedef {import('./batch.js').Batch & {
 *   checkpoints: any[],
 *   stampMs?: number,
 *   superseded: Uint32Array,
 *   replaces: boolean,
 *   mayBeStored?: boolean,
 *   comparesValues?: boolean,
 *   rewritesBeforeMs?: number,
 *   goneBeforeMs?: number,
 *   renewed: [string, string] | null,
 *   rejections: Rejection[],
 *   notes: {kind: string, reason: string}[],
 *   head: import('./witnesses.js').Commit | null,
 *   witness: import('./witnesses.js').Commit | null,
 *   proof: import('./witnesses.js').Commit | null,
 * }} Order Without checkpoints if the progress is known already.
 *
 * @typedef {{rowId: string | null, mark: string, reason: string}} Rejection The mark is the same each time that the row
 *   is read.
 *
 * @typedef {object} Write Where records go.
 * @property {any} table
 * @property {import('./batch.js').Layout} layout
 * @property {import('./witnesses.js').Writer} writer
 * @property {import('./witnesses.js').Commit | null} head What the worker tells of its last commit.
 * @property {import('./witnesses.js').Commit | null} witness That of this commit, if it has one.
 * @property {Map<string | number, string[]>} replaced By records' ids: the ids that they replace.
 * @property {number} [timestamp] The time of the write for Harper, in ms. Harper keeps the later one of two versions of
 *   a record, so a node whose clock is behind could not replace a version of another node.
 * @property {number} [rewritesBeforeMs] What was written up to this time is written again, also if a newer version is
 *   stored: that shows that the source still has the row.
 * @property {number} [goneBeforeMs] Of that, what says that it was synced before this time gives way to older versions.
 */

/**
 * Commits a batch and the progress, all or nothing. Rows that Harper itself refuses go to the audit.
 * @param {{table: any, layout: import('./batch.js').Layout, writer: import('./witnesses.js').Writer}} target
 * @param {Order} order
 * @param {object} [around]
 * @param {import('./succession.js').Core} [around.core] What decides about former rows.
 * @param {() => void} [around.onWait] Called once, while the database is at work and this thread is not.
 * @returns {Promise<{refused: number, rejected: number, unchanged: number, busyMs: number}>} `busyMs` is how
 *   long this thread was busy. The time of the disk and of other threads' commits does not count: smaller batches would
 *   only make it longer.
 */
export async function commit({ table, layout, writer }, order, { core, onWait } = {}) {
	bundlePrefetches(table);
	const syncedAt = new Date().toISOString();
	const before = performance.eventLoopUtilization();
	const assembled = assembleRecords(layout, order, syncedAt);
	// Harper 4.7 may lose a record that one transaction puts several times, so each is put once.
	const superseded = new Set(order.superseded);
	const read = superseded.size === 0 ? assembled : assembled.filter((_, row) => !superseded.has(row));
	const records = order.mayBeStored ? await withoutStored(table, layout, read, order) : read;
	const unchanged = read.length - records.length;
	if (order.comparesValues && records.length === 0) return { refused: 0, rejected: 0, unchanged, busyMs: 0 };
	const { replaced, late } = await succeed(table, layout, order, records, core);
	const progress = (refused, news) => (context) => {
		for (const { id, past, former } of late) {
			if (Object.keys(past).length > 0) table.patch(id, past, context);
			for (const other of former) table.delete(other, context);
		}
		putProgress(writer, order, { news, notWritten: refused.length + unchanged }, syncedAt, context);
	};
	const { head, witness, stampMs: timestamp, rewritesBeforeMs, goneBeforeMs } = order;
	const write = { table, layout, writer, head, witness, replaced, timestamp, rewritesBeforeMs, goneBeforeMs };
	let refused = [];
	let news = await newRejections(order.checkpoints[0], order.rejections);
	try {
		await putAll(write, records, { progress: progress([], news), onWait });
	} catch (error) {
		if (error.statusCode !== 400) throw error;
		refused = await putAcceptable({ ...write, witness: null }, records);
		news = [...news, ...(await newRejections(order.checkpoints[0], refused))];
		// Other nodes miss rows only behind the opening of their commit.
		const ids = new Set(refused.map(({ rowId }) => rowId));
		const accepted = records.filter(({ id }) => !ids.has(String(id)));
		await putAll(write, accepted, { progress: progress(refused, news) });
	}
	const busyMs = performance.eventLoopUtilization(before).active;
	return { refused: refused.length, rejected: news.length, unchanged, busyMs };
}

/** Puts the audit, the witness and the progress. Last comes the checkpoint with the counts and the open window. */
function putProgress(writer, { checkpoints, notes, witness, proof }, { news, notWritten }, syncedAt, context) {
	const [first, ...others] = checkpoints;
	const rejectedRows = (first?.recordsRejected ?? 0) + news.length;
	const counting = { partition: first?.partition, recordsRejected: rejectedRows };
	for (const entry of auditEntries(writer, counting, news, notes, syncedAt)) {
		findTable('SyncAudit').put(entry, context);
	}
	if (witness) putWitness(witness, context);
	if (proof) putProof(proof, writer.node, context);
	for (const checkpoint of others) findTable('SyncCheckpoint').put(checkpoint, context);
	if (first === undefined) return;
	const counted = {
		...first,
		recordsIngested: first.recordsIngested - notWritten,
		recordsRejected: rejectedRows,
	};
	findTable('SyncCheckpoint').put(counted, context);
}

/**
 * Puts records and then the progress in one transaction. Harper validates at its end, and refuses all or nothing.
 *
 * A Harper that ends itself in the middle of a commit keeps a prefix of the writes. So the progress comes last: rows
 * that the stored progress does not include are written again, under the same ids.
 * @param {Write} write
 * @param {any[]} records
 * @param {{progress?: (context: object) => void, onWait?: () => void}} [around]
 */
async function putAll(write, records, { progress, onWait } = {}) {
	const { table, writer, head, witness, replaced, timestamp } = write;
	const context = { timestamp };
	await transaction(context, async () => {
		putHead(writer, head, context);
		if (witness) putOpening(witness, context);
		const turn = new Turn();
		for (const record of records) {
			const current = await versionToWrite(write, record, context);
			if (current === null) continue;
			table.put(current, context);
			for (const id of replaced.get(record.id) ?? []) table.delete(id, context);
			if (turn.isOver()) await turn.end();
		}
		progress?.(context);
		if (onWait) setTimeout(onWait, COMMIT_START_MS);
	});
}

/**
 * Puts the records that Harper accepts, and returns the others with the reasons. The progress is committed later. This
 * is safe, because rows that are written twice get the same ids.
 */
async function putAcceptable(write, records) {
	try {
		await putAll(write, records);
		return [];
	} catch (error) {
		if (error.statusCode !== 400) throw error;
		if (records.length === 1) {
			const rowId = String(records[0].id);
			return [{ rowId, mark: rowId, reason: refusalOf(error) }];
		}
	}
	const middle = Math.ceil(records.length / 2);
	const first = await putAcceptable(write, records.slice(0, middle));
	return [...first, ...(await putAcceptable(write, records.slice(middle)))];
}

/**
 * Leaves out records that Harper already has unchanged. The id of a row without a key depends on its content, so such a record
 * differs only if somebody else has changed it. Where all values are compared, what was written later is left out as well.
 * @param {any} table
 * @param {import('./batch.js').Layout} layout
 * @param {Record<string, any>[]} records
 * @param {Order} order
 */
async function withoutStored(table, layout, records, { comparesValues, rewritesBeforeMs, stampMs }) {
	const turn = new Turn();
	const others = [];
	const isTrusted = layout.newerBy === null && !comparesValues;
	const hasVersions = layout.newerBy !== null && comparesValues;
	const isLater = (stored, version, record) =>
		hasVersions && (isNewer(layout, stored, record) || version >= (stampMs ?? Infinity));
	for (const record of records) {
		const { value: stored, version = 0 } = entryOf(table, record.id) ?? {};
		const isSame =
			stored && (isTrusted || hasSameValues(table, layout, stored, record) || isLater(stored, version, record));
		if (!isSame || isToBeRewritten(table, record.id, rewritesBeforeMs)) others.push(record);
		if (turn.isOver()) await turn.end();
	}
	return others;
}

/** Whether a stored record is a newer version of a row. A cursor that is stored as a Date is compared as a Date. */
function isNewer({ newerBy }, stored, record) {
	const at = newerBy === null ? null : stored?.[newerBy];
	if (at === undefined || at === null) return false;
	return at instanceof Date ? at.getTime() > new Date(record[newerBy]).getTime() : at > record[newerBy];
}

function hasSameValues(table, { columns }, stored, record) {
	const isDate = (name) => table.attributes.some((attribute) => attribute.name === name && attribute.type === 'Date');
	const isSame = ({ name }) =>
		comparableText(stored[name], isDate(name)) === comparableText(record[name], isDate(name));
	return columns.every(isSame);
}

/**
 * The version of a row that has to be written; null if Harper has a newer one.
 * @param {Write} write
 * @param {Record<string, any>} record
 * @param {object} context
 */
async function versionToWrite({ table, layout, rewritesBeforeMs, goneBeforeMs }, record, context) {
	if (layout.newerBy === null) return record;
	const stored = await table.get(record.id, context);
	if (!isNewer(layout, stored, record)) return record;
	if (!isToBeRewritten(table, record.id, rewritesBeforeMs)) return null;
	const isGone = goneBeforeMs !== undefined && Date.parse(stored._syncedAt) < goneBeforeMs;
	return isGone ? record : copyOf(stored, layout);
}

/** Whether a record has to be written again to show that it was read; so it is if nobody knows when it was written. */
function isToBeRewritten(table, id, rewritesBeforeMs) {
	return rewritesBeforeMs !== undefined && (versionOf(table, id) ?? 0) <= rewritesBeforeMs;
}

/** What the component has stored in a record. */
function copyOf(stored, { columns, retired }) {
	/** @type {Record<string, any>} */
	const copy = {};
	for (const name of ['id', ...columns.map((column) => column.name), ...retired, '_syncedAt']) {
		if (stored[name] !== undefined) copy[name] = stored[name];
	}
	return copy;
}

/** Harper's message quotes the value. Only the attribute's name is kept. */
function refusalOf(error) {
	const attribute = /\bproperty (\w+)/.exec(String(error.message))?.[1];
	return attribute === undefined ? 'Harper refused the row' : `Harper refused the value of ${attribute}`;
}

const rejectionId = (tableId, { mark }) => `${tableId}:${mark}`;

/**
 * Leaves out rejected rows that were counted before: those with an entry in the audit. The entry is written before the
 * progress, so a Harper that ends itself may keep the entry alone; then the row was not counted.
 * @param {any} checkpoint The checkpoint with the former count. There is none if the rows were lost between nodes: then
 *   another node has counted them.
 * @param {Rejection[]} rejections
 * @returns {Promise<Rejection[]>}
 */
async function newRejections(checkpoint, rejections) {
	if (checkpoint === undefined) return [];
	const { tableId, partition, recordsRejected } = checkpoint;
	const news = new Map();
	for (const rejection of rejections) {
		const entry = await findTable('SyncAudit').get(rejectionId(tableId, rejection));
		const isCounted = entry && (entry.partition !== partition || entry.rejectedRows <= recordsRejected);
		if (!isCounted) news.set(rejection.mark, rejection);
	}
	return [...news.values()];
}

/** A row has one entry, however often it is rejected. A note about a table has an entry each time. */
function auditEntries({ tableId, node: nodeId }, { partition, recordsRejected }, rejections, notes, at) {
	const entry = { tableId, rowId: null, nodeId, at };
	return [
		...rejections.map((rejection) => {
			const { rowId, reason } = rejection;
			const id = rejectionId(tableId, rejection);
			return { ...entry, id, kind: 'rejected_row', rowId, reason, partition, rejectedRows: recordsRejected };
		}),
		...notes.map(({ kind, reason }) => ({ ...entry, id: `${tableId}:${kind}.${at}`, kind, reason })),
	];
}
