/**
 * A BigQuery that has every answer ready: one table of sample rows in the wire format, in a file, of which it sends
 * ranges. It costs almost nothing per row, so that what it feeds is the limit. A slow network can lie in front of it.
 * Runs as a worker thread.
 */

import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { Billing } from '../../tests/support/billing.mjs';
import { Network } from '../../tests/support/network.mjs';
import { classify } from '../../tests/support/routes.mjs';
import { VESSEL_SCHEMA, vesselPositions } from '../../tests/support/samples.mjs';
import { temporaryFolder } from '../../tests/support/processes.mjs';
import { wireCell } from '../../tests/support/wire.mjs';
import { microsOf } from './instant.mjs';
import { selectedRows } from './selection.mjs';

const WRITE_CHARACTERS = 4 << 20;
const JOB_PATH = /\/queries\/([^/]+)$/;
const DAY_US = 86_400_000_000n;
/** When the table was last changed, in ms since 1970. Only with this does a poll find that nothing has changed. */
const MODIFIED_MS = '1735689600000';

class PreparedTable {
	#folder = temporaryFolder('pages');
	#file = openSync(path.join(this.#folder.path, 'rows'), 'w+');
	/** Where each row starts in the file, and where the last one ends. */
	#starts;
	/** The rows' cursors, which ascend. */
	#cursors;

	/** Average bytes of each column in BigQuery's own count. */
	columnBytes = new Map(VESSEL_SCHEMA.map(({ name, type }) => [name, type === 'STRING' ? 2 : 8]));

	/** @param {{rows: number, days: number}} extent */
	constructor({ rows, days }) {
		this.rows = rows;
		this.days = days;
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
		for (const position of vesselPositions({ rows: this.rows, days: this.days })) {
			this.#weigh(position);
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

	#weigh(position) {
		for (const { name, type } of VESSEL_SCHEMA) {
			if (type !== 'STRING') continue;
			this.columnBytes.set(name, (this.columnBytes.get(name) ?? 0) + position[name].length / this.rows);
		}
	}

	/** @returns {[bigint, bigint]} The first and the last cursor. */
	extent() {
		return [this.#cursors[0], this.#cursors[this.rows - 1]];
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

	/** Rows per day of a range: day's start in µs, and number. */
	byDay(from = 0, to = this.rows) {
		const days = [];
		for (let row = from; row < to;) {
			const start = (this.#cursors[row] / DAY_US) * DAY_US;
			const end = Math.min(to, this.rowsUntil(start + DAY_US - 1n));
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

/** What the table's queries are billed, by the same accounting as the fault proxy's. */
class PreparedBilling extends Billing {
	/** @param {PreparedTable} table */
	constructor(table) {
		super({ url: 'http://localhost', project: 'p', minimumBytes: 0 });
		const partitions = table.byDay().map(([low, rows]) => ({ low, high: low + DAY_US, rows }));
		const { rows, columnBytes } = table;
		this.prepared = { rows, fingerprint: '', partitionColumn: 'timestamp', partitions, nullRows: 0, columnBytes };
	}

	/** @override */
	async statistics() {
		return this.prepared;
	}
}

class PageServer {
	/** The rows that each query has selected, by the id of its job. */
	#jobs = new Map();
	/** @type {string[]} */
	#asked = [];
	#server = http.createServer((request, response) => this.#serve(request, response));
	network = new Network();

	/** @param {PreparedTable} table */
	constructor(table) {
		this.table = table;
	}

	/** @returns {Promise<number>} The port. */
	listen() {
		return new Promise((resolve) => {
			const port = () => /** @type {import('node:net').AddressInfo} */ (this.#server.address()).port;
			this.#server.listen(0, '127.0.0.1', () => resolve(port()));
		});
	}

	/** Bytes that the queries since the last bill are billed: those that read rows, and those that count them. */
	async bill() {
		const billing = new PreparedBilling(this.table);
		const bill = { readingBytes: 0, countingBytes: 0 };
		for (const query of this.#asked.splice(0)) {
			const { billed } = await billing.estimate(query, undefined);
			bill[query.includes('COUNT(') ? 'countingBytes' : 'readingBytes'] += billed;
		}
		return bill;
	}

	#serve(request, response) {
		const url = new URL(request.url ?? '/', 'http://localhost');
		const chunks = [];
		request.on('data', (chunk) => chunks.push(chunk));
		request.on('end', async () => {
			await this.network.delay(classify(request.method, url.pathname).route);
			const { status, body } = this.#answer(request.method, url, Buffer.concat(chunks).toString());
			response.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length });
			if (!this.network.isLimited) return response.end(body);
			await pipeline(this.network.carry(body), response).catch(() => response.destroy());
		});
	}

	#answer(method, url, body) {
		try {
			const found = this.#find(method, url, body);
			return found === undefined ? refusal(404, 'notFound', url.pathname) : { status: 200, body: found };
		} catch (error) {
			return refusal(400, 'invalidQuery', error.message);
		}
	}

	#find(method, url, body) {
		if (method === 'GET' && url.pathname.includes('/tables/')) return description(this.table);
		if (method === 'POST' && url.pathname.endsWith('/jobs')) return this.#insert(JSON.parse(body));
		if (method === 'POST') {
			const { query, maxResults } = JSON.parse(body);
			const ranges = this.#select(query);
			if (query.includes('GROUP BY')) return numbers(ranges.flatMap(([from, to]) => this.table.byDay(from, to)));
			if (query.includes('COUNT(')) return numbers([[countOf(ranges)]]);
			const job = `job-${this.#jobs.size}`;
			this.#jobs.set(job, ranges);
			return this.#page(job, 0, maxResults);
		}
		const job = JOB_PATH.exec(url.pathname)?.[1] ?? '';
		if (!this.#jobs.has(job)) return undefined;
		return this.#page(job, Number(url.searchParams.get('startIndex')), Number(url.searchParams.get('maxResults')));
	}

	/** Makes a job under an id that the client has chosen. */
	#insert({ jobReference, configuration }) {
		this.#jobs.set(jobReference.jobId, this.#select(configuration.query.query));
		return Buffer.from(JSON.stringify({ jobReference, status: { state: 'DONE' } }));
	}

	/** @param {string} query */
	#select(query) {
		this.#asked.push(query);
		return selectedRows(query, this.table);
	}

	#page(job, start, maxResults) {
		const ranges = this.#jobs.get(job);
		const head = {
			jobReference: { projectId: 'p', jobId: job, location: 'US' },
			schema: { fields: VESSEL_SCHEMA },
			totalRows: `${countOf(ranges)}`,
		};
		const pieces = [Buffer.from(`${JSON.stringify(head).slice(0, -1)},"rows":[`)];
		for (const [from, to] of part(ranges, start, maxResults)) {
			if (pieces.length > 1) pieces.push(Buffer.from(','));
			pieces.push(this.table.text(from, to));
		}
		pieces.push(Buffer.from('],"totalBytesProcessed":"0","jobComplete":true}'));
		return Buffer.concat(pieces);
	}
}

function refusal(status, reason, message) {
	const error = { code: status, message, errors: [{ reason, message }] };
	return { status, body: Buffer.from(JSON.stringify({ error })) };
}

/** The description that tables.get gives; a row's bytes are those that reading it is billed. */
function description({ rows, columnBytes }) {
	const timePartitioning = { type: 'DAY', field: 'timestamp' };
	const rowBytes = [...columnBytes.values()].reduce((sum, bytes) => sum + bytes, 0);
	const version = { numRows: `${rows}`, numBytes: `${Math.round(rows * rowBytes)}`, lastModifiedTime: MODIFIED_MS };
	return Buffer.from(
		JSON.stringify({ type: 'TABLE', schema: { fields: VESSEL_SCHEMA }, timePartitioning, ...version })
	);
}

function countOf(ranges) {
	return ranges.reduce((sum, [from, to]) => sum + to - from, 0);
}

/** Of ranges that follow one another, those `count` rows that come after the first `start`. */
function part(ranges, start, count) {
	const found = [];
	let skipped = 0;
	for (const [from, to] of ranges) {
		const first = Math.max(from, from + start - skipped);
		const end = Math.min(to, from + start + count - skipped);
		if (first < end) found.push([first, end]);
		skipped += to - from;
	}
	return found;
}

function numbers(rows) {
	const totalRows = `${rows.length}`;
	const cells = rows.map((row) => ({ f: row.map((number) => ({ v: `${number}` })) }));
	return Buffer.from(JSON.stringify({ totalRows, rows: cells, jobComplete: true }));
}

const table = new PreparedTable(workerData);
const server = new PageServer(table);
parentPort?.on('message', async (message) => {
	if (message === 'bill') {
		parentPort?.postMessage({ bill: await server.bill() });
		return;
	}
	if (message.network !== undefined) {
		server.network.set(message.network);
		parentPort?.postMessage({});
		return;
	}
	table.remove();
	process.exit();
});
parentPort?.postMessage({ port: await server.listen() });
