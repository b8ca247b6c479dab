/**
 * What BigQuery's on-demand pricing would bill for a query, from the emulator's own tables: whole columns of the
 * partitions that the SQL text does not rule out. It is an estimate: string lengths are averages, NULLs count in full.
 */

import { bigQueryClient } from './bigquery.mjs';
import { scannedSpan, tokensOf } from './pruning.mjs';

/** BigQuery's smallest bill per table and query. */
export const MINIMUM_BYTES = 10 * 1024 * 1024;

/** @type {Record<string, number>} */
const FIXED_BYTES = { BOOL: 1, BOOLEAN: 1, NUMERIC: 16, BIGNUMERIC: 32, INTERVAL: 16, RANGE: 16 };
const VARIABLE_TYPES = new Set(['STRING', 'BYTES', 'JSON', 'GEOGRAPHY', 'RECORD', 'STRUCT']);
const UNIT_MICROS = { HOUR: 3_600_000_000n, DAY: 86_400_000_000n };

/**
 * @typedef {import('./values.mjs').Field} Field
 * @typedef {{dataset: string, table: string}} TableName
 *
 * @typedef {object} TableStatistics
 * @property {number} rows
 * @property {string} fingerprint Changes with the table's contents, order apart.
 * @property {string | undefined} partitionColumn
 * @property {{low: bigint, high: bigint, rows: number}[]} partitions
 * @property {number} nullRows Rows without a value in the partitioning column.
 * @property {Map<string, number>} columnBytes Average bytes per row, by lower-case name.
 */

export class Billing {
	/**
	 * @param {{url: string, project: string, minimumBytes: number}} options The URL of the emulator itself.
	 */
	constructor({ url, project, minimumBytes }) {
		this.client = bigQueryClient({ url, project });
		this.minimumBytes = minimumBytes;
		/** @type {Map<string, TableStatistics>} */
		this.known = new Map();
		this.total = 0;
		this.queries = 0;
		/** @type {Record<string, number>} */
		this.byTable = {};
	}

	/**
	 * @param {TableName} name
	 * @returns {Promise<{rows: number, fingerprint: string}>}
	 */
	async contents({ dataset, table }) {
		const from = `\`${this.client.project}.${dataset}.${table}\``;
		// HASH is DuckDB's and passes through the emulator; over whole rows it takes 0.1 s per 300,000 of them.
		const sql = `SELECT COUNT(*) AS n, CAST(SUM(HASH(t)) AS STRING) AS h FROM ${from} AS t`;
		const [{ n, h }] = await this.client.query(sql);
		return { rows: n, fingerprint: `${n}-${h}` };
	}

	/**
	 * @param {TableName} name
	 * @returns {Promise<TableStatistics>} From memory as long as the contents are the same.
	 */
	async statistics(name) {
		const key = `${name.dataset}.${name.table}`;
		const contents = await this.contents(name);
		const known = this.known.get(key);
		if (known?.fingerprint === contents.fingerprint) return known;
		const { schema, timePartitioning, rangePartitioning } = await this.client.getTable(name.dataset, name.table);
		const columnBytes = await this.#columnBytes(name, schema?.fields ?? []);
		const partitionColumn = timePartitioning?.field ?? rangePartitioning?.field;
		const field = (schema?.fields ?? []).find((/** @type {Field} */ one) => one.name === partitionColumn);
		const partitions = field ? await this.#partitions(name, field, timePartitioning, rangePartitioning) : [];
		const valued = partitions.reduce((sum, one) => sum + one.rows, 0);
		const statistics = { ...contents, partitionColumn, partitions, nullRows: contents.rows - valued, columnBytes };
		this.known.set(key, statistics);
		return statistics;
	}

	/**
	 * @param {TableName} name
	 * @param {Field[]} fields
	 */
	async #columnBytes({ dataset, table }, fields) {
		const variable = fields.filter((field) => VARIABLE_TYPES.has(field.type) || field.mode === 'REPEATED');
		const averages = variable.map((field, i) => {
			const text = field.type === 'STRING' && field.mode !== 'REPEATED' ? '' : 'TO_JSON_STRING';
			return `AVG(LENGTH(${text}(\`${field.name}\`))) AS a${i}`;
		});
		const from = `\`${this.client.project}.${dataset}.${table}\``;
		const [row] = averages.length ? await this.client.query(`SELECT ${averages.join(', ')} FROM ${from}`) : [{}];
		/** @type {Map<string, number>} */
		const bytes = new Map();
		for (const field of fields) {
			const at = variable.indexOf(field);
			const size = at >= 0 ? 2 + (row[`a${at}`] ?? 0) : (FIXED_BYTES[field.type] ?? 8);
			bytes.set(field.name.toLowerCase(), size);
		}
		return bytes;
	}

	/**
	 * @param {TableName} name
	 * @param {Field} field
	 * @param {{type?: string} | undefined} time
	 * @param {{range: {start: string, interval: string}} | undefined} range
	 */
	async #partitions({ dataset, table }, field, time, range) {
		const column = `\`${field.name}\``;
		const unit = time?.type ?? 'DAY';
		const part = range
			? `DIV(${column} - ${range.range.start}, ${range.range.interval})`
			: `UNIX_MICROS(TIMESTAMP_TRUNC(CAST(${column} AS TIMESTAMP), ${unit}))`;
		const from = `\`${this.client.project}.${dataset}.${table}\``;
		const sql = `SELECT ${part} AS p, COUNT(*) AS n FROM ${from} WHERE ${column} IS NOT NULL GROUP BY p`;
		const found = await this.client.query(sql);
		return found.map(({ p, n }) => {
			const low = range ? BigInt(p) * BigInt(range.range.interval) + BigInt(range.range.start) : BigInt(p);
			return { low, high: range ? low + BigInt(range.range.interval) : unitEnd(low, unit), rows: n };
		});
	}

	/**
	 * @param {string} sql
	 * @param {string | undefined} defaultDataset
	 * @returns {Promise<{processed: number, billed: number, byTable: Record<string, number>}>}
	 */
	async estimate(sql, defaultDataset) {
		let processed = 0;
		let billed = 0;
		/** @type {Record<string, number>} */
		const byTable = {};
		for (const name of tablesOf(sql, defaultDataset)) {
			const statistics = await this.statistics(name).catch(() => undefined);
			if (!statistics) continue;
			const bytes = scannedRows(sql, statistics) * rowBytes(sql, statistics.columnBytes);
			const bill = bytes === 0 ? 0 : Math.max(Math.round(bytes), this.minimumBytes);
			processed += Math.round(bytes);
			billed += bill;
			byTable[`${name.dataset}.${name.table}`] = bill;
		}
		return { processed, billed, byTable };
	}

	/** @param {{billed: number, byTable: Record<string, number>}} estimate */
	charge({ billed, byTable }) {
		this.total += billed;
		this.queries++;
		for (const [table, bytes] of Object.entries(byTable)) this.byTable[table] = (this.byTable[table] ?? 0) + bytes;
	}
}

/**
 * @param {bigint} low
 * @param {string} unit
 */
function unitEnd(low, unit) {
	if (unit === 'HOUR' || unit === 'DAY') return low + UNIT_MICROS[unit];
	const start = new Date(Number(low / 1000n));
	const [years, months] = unit === 'YEAR' ? [1, 0] : [0, 1];
	return BigInt(Date.UTC(start.getUTCFullYear() + years, start.getUTCMonth() + months, 1)) * 1000n;
}

/**
 * @param {string} sql
 * @param {TableStatistics} statistics
 */
function scannedRows(sql, { rows, partitionColumn, partitions, nullRows }) {
	if (partitionColumn === undefined) return rows;
	const { ranges, nulls } = scannedSpan(sql, partitionColumn);
	const hit = partitions.filter((one) => ranges.some(([low, high]) => low < one.high && one.low < high));
	return hit.reduce((sum, one) => sum + one.rows, nulls ? nullRows : 0);
}

/**
 * @param {string} sql
 * @param {Map<string, number>} columnBytes
 */
function rowBytes(sql, columnBytes) {
	const all = /\bSELECT\s+(?:DISTINCT\s+|ALL\s+)?(?:[\w`]+\s*\.\s*)?\*|,\s*(?:[\w`]+\s*\.\s*)?\*/i.test(sql);
	const tokens = tokensOf(sql);
	// `TIMESTAMP '…'` and `DATE(…)` are not columns of these names.
	const names = tokens
		.filter((token, i) => token.kind === 'name' && tokens[i + 1]?.kind !== 'string' && tokens[i + 1]?.text !== '(')
		.map((token) => token.text.toLowerCase());
	const used = new Set(names);
	let bytes = 0;
	for (const [name, size] of columnBytes) if (all || used.has(name)) bytes += size;
	return bytes;
}

/**
 * @param {string} sql
 * @param {string | undefined} defaultDataset
 * @returns {TableName[]} Each once.
 */
function tablesOf(sql, defaultDataset) {
	const tokens = tokensOf(sql);
	/** @type {Map<string, TableName>} */
	const found = new Map();
	tokens.forEach((token, index) => {
		if (token.kind !== 'name' || !/^(FROM|JOIN)$/i.test(token.text)) return;
		const parts = [];
		let at = index + 1;
		while (tokens[at]?.kind === 'name') {
			let part = tokens[at++].text;
			// Project names may hold dashes.
			while (tokens[at]?.text === '-' && tokens[at + 1]?.kind !== 'sign') {
				part += `-${tokens[at + 1].text}`;
				at += 2;
			}
			parts.push(part);
			if (tokens[at]?.text !== '.') break;
			at++;
		}
		const table = parts.pop();
		const dataset = parts.pop() ?? defaultDataset;
		if (table && dataset) found.set(`${dataset}.${table}`, { dataset, table });
	});
	return [...found.values()];
}
