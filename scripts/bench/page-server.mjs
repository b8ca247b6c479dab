/**
 * A BigQuery that has every answer ready: one table of sample rows in the wire format, in a file, of which it sends
 * ranges. It costs almost nothing per row, so that what it feeds is the limit. Runs as a worker thread.
 */

import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { VESSEL_SCHEMA, vesselPositions } from '../../tests/support/samples.mjs';
import { temporaryFolder } from '../../tests/support/processes.mjs';
import { wireCell } from '../../tests/support/wire.mjs';
import { microsOf } from './instant.mjs';

const WRITE_CHARACTERS = 4 << 20;
const JOB_PATH = /\/queries\/job-(\d+)-(\d+)$/;
/** A row takes about this many bytes in BigQuery's own count. */
const BYTES_PER_ROW = 80;
const DAY_US = 86_400_000_000n;

class PreparedTable {
	#folder = temporaryFolder('pages');
	#file = openSync(path.join(this.#folder.path, 'rows'), 'w+');
	/** Where each row starts in the file, and where the last one ends. */
	#starts;
	/** The rows' cursors, which ascend. */
	#cursors;

	/** @param {number} rows */
	constructor(rows) {
		this.rows = rows;
		this.#starts = new Float64Array(rows + 1);
		this.#cursors = new BigInt64Array(rows);
		this.#write();
	}

	#write() {
		/** @type {string[]} */
		let texts = [];
		let [row, start, waiting] = [0, 0, 0];
		const flush = () => {
			writeSync(this.#file, texts.join(''));
			texts = [];
			waiting = 0;
		};
		for (const position of vesselPositions({ rows: this.rows })) {
			const cursor = microsOf(position.timestamp);
			const cells = { ...position, timestamp: cursor };
			// The samples are ASCII, so that characters are bytes.
			const text = `${row > 0 ? ',' : ''}${JSON.stringify({ f: VESSEL_SCHEMA.map((field) => wireCell(cells[field.name], field)) })}`;
			this.#starts[row] = start;
			this.#cursors[row++] = BigInt(cursor);
			start += text.length;
			waiting += text.length;
			texts.push(text);
			if (waiting > WRITE_CHARACTERS) flush();
		}
		this.#starts[row] = start;
		flush();
	}

	/** Number of rows up to and with a cursor. */
	rowsUntil(cursor) {
		let [low, high] = [0, this.rows];
		while (low < high) {
			const middle = (low + high) >> 1;
			if (this.#cursors[middle] <= cursor) low = middle + 1;
			else high = middle;
		}
		return low;
	}

	/** Rows per day: day's start in µs, and number. */
	days() {
		const days = [];
		for (let row = 0; row < this.rows;) {
			const start = (this.#cursors[row] / DAY_US) * DAY_US;
			const end = this.rowsUntil(start + DAY_US - 1n);
			days.push([start, end - row]);
			row = end;
		}
		return days;
	}

	/** The rows of a range as JSON text, with commas between them. */
	text(from, to) {
		// All rows but the first have a comma in front of them.
		const start = this.#starts[from] + (from > 0 ? 1 : 0);
		const bytes = Buffer.allocUnsafe(Math.max(0, this.#starts[to] - start));
		readSync(this.#file, bytes, 0, bytes.length, start);
		return bytes;
	}

	remove() {
		closeSync(this.#file);
		this.#folder.remove();
	}
}

/** @param {PreparedTable} table */
function serve(table) {
	const server = http.createServer((request, response) => {
		const url = new URL(request.url ?? '/', 'http://localhost');
		const chunks = [];
		request.on('data', (chunk) => chunks.push(chunk));
		request.on('end', () => {
			const answer = answerTo(table, request.method, url, Buffer.concat(chunks).toString());
			const body = answer ?? Buffer.from('{"error":{"code":404,"errors":[{"reason":"notFound"}]}}');
			response.writeHead(answer ? 200 : 404, { 'content-type': 'application/json', 'content-length': body.length });
			response.end(body);
		});
	});
	return new Promise((resolve) => {
		server.listen(0, '127.0.0.1', () => resolve(/** @type {import('node:net').AddressInfo} */ (server.address()).port));
	});
}

function answerTo(table, method, url, body) {
	if (method === 'GET' && url.pathname.includes('/tables/')) return description(table);
	if (method === 'POST') {
		const { query, maxResults } = JSON.parse(body);
		if (query.includes('GROUP BY')) return numbers(table.days());
		const [from, to] = range(table, query);
		return query.includes('COUNT(') ? numbers([[0]]) : page(table, from, to, from, maxResults);
	}
	const job = JOB_PATH.exec(url.pathname);
	if (!job) return undefined;
	const [from, to] = [Number(job[1]), Number(job[2])];
	return page(
		table,
		from,
		to,
		from + Number(url.searchParams.get('startIndex')),
		Number(url.searchParams.get('maxResults'))
	);
}

function description({ rows }) {
	const timePartitioning = { type: 'DAY', field: 'timestamp' };
	const counts = { numRows: `${rows}`, numBytes: `${rows * BYTES_PER_ROW}` };
	return Buffer.from(JSON.stringify({ type: 'TABLE', schema: { fields: VESSEL_SCHEMA }, timePartitioning, ...counts }));
}

/** The rows that a query's bounds hold. */
function range(table, query) {
	const bound = (sign) => {
		const text = new RegExp(`\`timestamp\` ${sign} TIMESTAMP '([^']+)'`).exec(query)?.[1];
		return text === undefined
			? undefined
			: table.rowsUntil(BigInt(microsOf(text.replace(' ', 'T').replace('+00', 'Z'))));
	};
	return [bound('>') ?? 0, bound('<=') ?? table.rows];
}

function page(table, from, to, start, maxResults) {
	const head = {
		jobReference: { projectId: 'p', jobId: `job-${from}-${to}`, location: 'US' },
		schema: { fields: VESSEL_SCHEMA },
		totalRows: `${to - from}`,
	};
	const rows = table.text(Math.min(start, to), Math.min(start + maxResults, to));
	const opening = `${JSON.stringify(head).slice(0, -1)},"rows":[`;
	return Buffer.concat([Buffer.from(opening), rows, Buffer.from('],"totalBytesProcessed":"0","jobComplete":true}')]);
}

function numbers(rows) {
	const totalRows = `${rows.length}`;
	const cells = rows.map((row) => ({ f: row.map((number) => ({ v: `${number}` })) }));
	return Buffer.from(JSON.stringify({ totalRows, rows: cells, jobComplete: true }));
}

const table = new PreparedTable(workerData.rows);
parentPort?.once('message', () => {
	table.remove();
	process.exit();
});
parentPort?.postMessage({ port: await serve(table) });
