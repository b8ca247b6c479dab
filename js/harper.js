/** What is read from and written to Harper: checkpoints, target tables, rows. */

import { assembleRecords } from './batch.js';
import { HostFailure } from './bigquery.js';

/** The database of the targets and of the component's own tables. */
const DATABASE = 'data';

/** How long a new table may take to be known on this thread. */
const TABLE_WAIT_MS = 10_000;

/**
 * @typedef {import('./batch.js').Batch & {
 *   checkpoint: any,
 *   superseded: Uint32Array,
 *   rejections: {rowId: string | null, reason: string}[],
 *   notes: {kind: string, reason: string}[],
 * }} Order
 */

/** @param {string} name */
export function findTable(name) {
	return databases[DATABASE]?.[name];
}

/**
 * Reads a record as a plain object.
 * @param {string} table
 * @param {string} id
 */
export async function readRecord(table, id) {
	const record = await findTable(table).get(id);
	return record ? plainCopy(record) : null;
}

/**
 * Reads all records of one of the component's small tables.
 * @param {string} table
 */
export async function readAll(table) {
	const records = [];
	for await (const record of findTable(table).search({ conditions: [] })) records.push(plainCopy(record));
	return records;
}

/** Harper's records are frozen views; the core wants plain objects. */
function plainCopy(record) {
	return JSON.parse(JSON.stringify(record));
}

/**
 * Makes sure that a target table exists.
 * @param {string} name
 * @param {string[]} columns The attributes besides id.
 * @returns {Promise<{table: any, created: boolean}>}
 */
export async function ensureTable(name, columns) {
	let refusal;
	const created = !findTable(name);
	if (created) {
		const attributes = ['id', ...columns, '_syncedAt'].map((attribute) => ({ name: attribute }));
		const operation = { operation: 'create_table', database: DATABASE, table: name, primary_key: 'id', attributes };
		// Another worker may be faster: what counts is whether the table appears.
		refusal = await server.operation(operation, {}).then(
			() => undefined,
			(error) => error.message ?? String(error)
		);
	}
	const deadline = Date.now() + TABLE_WAIT_MS;
	while (!findTable(name)) {
		if (Date.now() > deadline) {
			throw new HostFailure(
				'harper_table',
				`the table ${name} could not be created: ${refusal ?? 'it did not appear'}`
			);
		}
		await new Promise((resolve) => setTimeout(resolve, 20));
	}
	const table = findTable(name);
	if (table.primaryKey !== 'id') {
		const message = `the table ${name} has the primary key ${table.primaryKey}: the component needs id; choose another targetTable`;
		throw new HostFailure('harper_table', message);
	}
	return { table, created };
}

/**
 * Commits a batch and the progress behind it, all or nothing. Rows that Harper itself refuses go to the audit.
 * @param {any} table
 * @param {import('./batch.js').Layout} layout
 * @param {Order} order
 * @returns {Promise<{refused: number, elapsedMs: number}>}
 */
export async function commit(table, layout, order) {
	const syncedAt = new Date().toISOString();
	const started = performance.now();
	const assembled = assembleRecords(layout, order, syncedAt);
	// A record that one transaction puts several times may be lost in Harper 4.7: each is put once.
	const superseded = new Set(order.superseded);
	const records = superseded.size === 0 ? assembled : assembled.filter((_, row) => !superseded.has(row));
	const { checkpoint } = order;
	const rejections = [...order.rejections];
	let refused = 0;
	const context = {};
	await transaction(context, async () => {
		for (const record of records) {
			if (layout.newerBy !== null && (await isOlder(table, layout.newerBy, record, context))) continue;
			try {
				table.put(record, context);
			} catch (error) {
				if (error.statusCode !== 400) throw error;
				refused += 1;
				rejections.push({ rowId: record.id, reason: `Harper refused the row: ${refusalOf(error)}` });
			}
		}
		for (const entry of auditEntries(checkpoint, rejections, order.notes, syncedAt)) {
			findTable('SyncAudit').put(entry, context);
		}
		findTable('SyncCheckpoint').put(
			{
				...checkpoint,
				recordsIngested: checkpoint.recordsIngested - refused,
				recordsRejected: checkpoint.recordsRejected + refused,
			},
			context
		);
	});
	return { refused, elapsedMs: performance.now() - started };
}

/** Whether Harper holds a newer version of the row. */
async function isOlder(table, cursor, record, context) {
	const stored = await table.get(record.id, context);
	return Boolean(stored) && stored[cursor] > record[cursor];
}

/** Harper's words name the attribute and the type, and may quote the value behind a colon or in quotes. */
function refusalOf(error) {
	return String(error.message)
		.replace(/"[^"]*"|'[^']*'/g, '…')
		.slice(0, 200);
}

/** A row that is refused again and again has one entry; what is noted of a table has an entry each time. */
function auditEntries(checkpoint, rejections, notes, at) {
	const { tableId, nodeId, lastTimestamp, window } = checkpoint;
	const entry = (name, kind, rowId, reason) => ({ id: `${tableId}:${name}`, tableId, kind, rowId, reason, nodeId, at });
	const place = `${lastTimestamp ?? ''}+${window?.offset ?? 'end'}`;
	return [
		...rejections.map(({ rowId, reason }, index) => entry(rowId ?? `${place}.${index}`, 'rejected_row', rowId, reason)),
		...notes.map(({ kind, reason }) => entry(`${kind}.${at}`, kind, null, reason)),
	];
}
