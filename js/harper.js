/** What is read from and written to Harper: checkpoints, target tables, rows. */

import { assembleRecords } from './batch.js';
import { HostFailure } from './bigquery.js';

/** The database of the targets and of the component's own tables. */
const DATABASE = 'data';

/** How long a new table may take to be known on this thread. */
const TABLE_WAIT_MS = 10_000;

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
 * Makes sure that a target table exists, and returns it.
 * @param {string} name
 * @param {string[]} columns The attributes besides id.
 */
export async function ensureTable(name, columns) {
	let refusal;
	if (!findTable(name)) {
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
	return table;
}

/**
 * Commits a batch and the progress behind it, all or nothing. Rows that Harper itself refuses go to the audit.
 * @param {any} table
 * @param {import('./batch.js').Layout} layout
 * @param {import('./batch.js').Batch & {checkpoint: any, rejections: {rowId: string | null, reason: string}[]}} order
 * @returns {Promise<{refused: number}>}
 */
export async function commit(table, layout, order) {
	const syncedAt = new Date().toISOString();
	const assembled = assembleRecords(layout, order, syncedAt);
	const records = layout.newerBy === null ? assembled : newestOfEach(assembled, layout.newerBy);
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
		rejections.forEach((rejection, index) => {
			findTable('SyncAudit').put(auditEntry(checkpoint, rejection, index, syncedAt), context);
		});
		findTable('SyncCheckpoint').put(
			{
				...checkpoint,
				recordsIngested: checkpoint.recordsIngested - refused,
				recordsRejected: checkpoint.recordsRejected + refused,
			},
			context
		);
	});
	return { refused };
}

/**
 * Leaves one record of each id, the newest, the later of equally new ones: a record that one transaction puts three
 * times is not there after it.
 */
function newestOfEach(records, cursor) {
	const newest = new Map();
	for (const record of records) {
		const other = newest.get(record.id);
		if (other === undefined || other[cursor] <= record[cursor]) newest.set(record.id, record);
	}
	return [...newest.values()];
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

function auditEntry(checkpoint, { rowId, reason }, index, at) {
	const place = `${checkpoint.lastTimestamp ?? ''}+${checkpoint.window?.offset ?? 'end'}.${index}`;
	return {
		id: `${checkpoint.tableId}:${rowId ?? place}`,
		tableId: checkpoint.tableId,
		kind: 'rejected_row',
		rowId,
		reason,
		nodeId: checkpoint.nodeId,
		at,
	};
}
