/**
 * A small BigQuery REST client for tests: it prepares sources and reads them back, independent of the product's own.
 */

import { randomUUID } from 'node:crypto';

import { until } from './wait.mjs';
import { recordOf } from './values.mjs';

const UPLOAD_CHUNK_BYTES = 8 * 1024 * 1024;
const PAGE_ROWS = 25_000;
const REQUEST_TIMEOUT_MS = 280_000;
const JOB_DEADLINE_MS = 600_000;
/**
 * Each request has a connection of its own: a server closes those that are idle, perhaps at the moment at which the next
 * request goes out, and what creates something must not be sent twice.
 */
const OWN_CONNECTION = { connection: 'close' };

/** BigQuery refused a request. */
export class BigQueryError extends Error {
	/**
	 * @param {number} status HTTP status, or 200 for a job that failed.
	 * @param {string} reason BigQuery's reason, for example `notFound`.
	 * @param {string} message
	 */
	constructor(status, reason, message) {
		super(`${status} ${reason}: ${message}`);
		this.name = 'BigQueryError';
		this.status = status;
		this.reason = reason;
	}
}

/**
 * @typedef {import('./values.mjs').Field} Field
 * @typedef {{f: {v: any}[]}} RawRow
 * @typedef {{fields: Field[], rows: RawRow[], totalRows: number}} Page
 */

/**
 * @param {{url: string, project?: string}} options The URL of an emulator or of a fault proxy, without a path.
 */
export function bigQueryClient({ url, project = 'test-project' }) {
	return new BigQueryClient(url, project);
}

export class BigQueryClient {
	/**
	 * @param {string} url
	 * @param {string} project
	 */
	constructor(url, project) {
		this.url = url;
		this.project = project;
	}

	/**
	 * Sends one request below /projects/{project} and returns the parsed answer.
	 * @param {string} method
	 * @param {string} path
	 * @param {{body?: unknown, query?: Record<string, string | number | boolean | undefined>}} [options]
	 * @returns {Promise<any>}
	 */
	async request(method, path, { body, query = {} } = {}) {
		const url = new URL(`${this.url}/bigquery/v2/projects/${this.project}${path}`);
		for (const [key, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(key, `${value}`);
		const response = await fetch(url, {
			method,
			headers: { ...OWN_CONNECTION, ...(body !== undefined && { 'content-type': 'application/json' }) },
			body: body === undefined ? undefined : JSON.stringify(body),
			signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
		});
		return answerOf(response);
	}

	/**
	 * Creates a dataset; one that exists already is fine.
	 * @param {string} dataset
	 */
	async createDataset(dataset) {
		const datasetReference = { projectId: this.project, datasetId: dataset };
		try {
			await this.request('POST', '/datasets', { body: { datasetReference, location: 'US' } });
		} catch (error) {
			if (/** @type {any} */ (error).status !== 409) throw error;
		}
	}

	/**
	 * Deletes a dataset with all its tables; one that does not exist is fine.
	 * @param {string} dataset
	 */
	async deleteDataset(dataset) {
		try {
			await this.request('DELETE', `/datasets/${dataset}`, { query: { deleteContents: true } });
		} catch (error) {
			if (/** @type {any} */ (error).status !== 404) throw error;
		}
	}

	/**
	 * @param {string} dataset
	 * @param {string} table
	 * @param {object} definition
	 * @param {Field[]} definition.schema
	 * @param {{type: string, field?: string}} [definition.timePartitioning]
	 * @param {string[]} [definition.clustering]
	 * @param {string[]} [definition.primaryKey]
	 */
	async createTable(dataset, table, { schema, timePartitioning, clustering, primaryKey }) {
		return this.request('POST', `/datasets/${dataset}/tables`, {
			body: {
				tableReference: { projectId: this.project, datasetId: dataset, tableId: table },
				schema: { fields: schema },
				timePartitioning,
				clustering: clustering && { fields: clustering },
				tableConstraints: primaryKey && { primaryKey: { columns: primaryKey } },
			},
		});
	}

	/**
	 * @param {string} dataset
	 * @param {string} table
	 * @returns {Promise<any>} The table resource.
	 */
	async getTable(dataset, table) {
		return this.request('GET', `/datasets/${dataset}/tables/${table}`);
	}

	/**
	 * @param {string} dataset
	 * @param {string} table
	 */
	async deleteTable(dataset, table) {
		await this.request('DELETE', `/datasets/${dataset}/tables/${table}`);
	}

	/**
	 * Appends rows by one load job from a resumable upload, so any number of rows needs little memory.
	 *
	 * @param {string} dataset
	 * @param {string} table
	 * @param {Iterable<object> | AsyncIterable<object>} rows Plain objects; BigInt is written as a bare integer.
	 * @param {{writeDisposition?: string}} [options]
	 * @returns {Promise<number>} How many rows were loaded.
	 */
	async loadRows(dataset, table, rows, { writeDisposition = 'WRITE_APPEND' } = {}) {
		const jobId = `load-${randomUUID()}`;
		const load = {
			destinationTable: { projectId: this.project, datasetId: dataset, tableId: table },
			sourceFormat: 'NEWLINE_DELIMITED_JSON',
			writeDisposition,
		};
		const started = await fetch(`${this.url}/upload/bigquery/v2/projects/${this.project}/jobs?uploadType=resumable`, {
			method: 'POST',
			headers: {
				...OWN_CONNECTION,
				'content-type': 'application/json',
				'x-upload-content-type': 'application/octet-stream',
			},
			body: JSON.stringify({
				jobReference: { projectId: this.project, jobId },
				configuration: { load },
			}),
			signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
		});
		if (!started.ok) await answerOf(started);
		await started.arrayBuffer();
		const session = started.headers.get('location');
		if (!session) throw new Error('The upload got no Location');
		const job = await upload(session, lineChunks(rows));
		const done = await this.waitForJob(job.jobReference.jobId);
		return Number(done.statistics.load?.outputRows ?? 0);
	}

	/**
	 * Waits for the end of a job; a failed one is an error.
	 * @param {string} jobId
	 * @returns {Promise<any>} The job resource.
	 */
	async waitForJob(jobId) {
		const finished = async () => {
			const job = await this.request('GET', `/jobs/${jobId}`, { query: { location: 'US' } });
			return job.status.state === 'DONE' && job;
		};
		const job = await until(finished, { deadlineMs: JOB_DEADLINE_MS, what: `job ${jobId}` });
		const error = job.status.errorResult;
		if (error) throw new BigQueryError(200, error.reason, error.message);
		return job;
	}

	/**
	 * Streams rows by insertAll; a row that is refused is an error.
	 * @param {string} dataset
	 * @param {string} table
	 * @param {object[]} rows
	 * @param {(row: object, index: number) => string} [insertId]
	 */
	async insertAll(dataset, table, rows, insertId = () => randomUUID()) {
		const body = { rows: rows.map((row, index) => ({ insertId: insertId(row, index), json: plain(row) })) };
		const answer = await this.request('POST', `/datasets/${dataset}/tables/${table}/insertAll`, { body });
		const first = answer.insertErrors?.[0];
		if (first) throw new BigQueryError(200, first.errors[0].reason, `row ${first.index}: ${first.errors[0].message}`);
	}

	/**
	 * Runs a statement and hands out its result in pages of raw rows, timestamps as integer microseconds.
	 * @param {string} sql
	 * @param {{pageRows?: number}} [options]
	 * @returns {AsyncGenerator<Page>} At least one page, perhaps an empty one.
	 */
	async *queryPages(sql, { pageRows = PAGE_ROWS } = {}) {
		const answer = await this.request('POST', '/queries', {
			body: {
				query: sql,
				useLegacySql: false,
				maxResults: pageRows,
				timeoutMs: 200_000,
				formatOptions: { useInt64Timestamp: true },
			},
		});
		const { jobId } = answer.jobReference;
		let page = answer;
		if (!page.jobComplete) {
			await this.waitForJob(jobId);
			page = await this.#results(jobId, pageRows, undefined);
		}
		for (;;) {
			yield { fields: page.schema?.fields ?? [], rows: page.rows ?? [], totalRows: Number(page.totalRows ?? 0) };
			if (!page.pageToken) return;
			page = await this.#results(jobId, pageRows, page.pageToken);
		}
	}

	/**
	 * @param {string} jobId
	 * @param {number} pageRows
	 * @param {string | undefined} pageToken
	 */
	#results(jobId, pageRows, pageToken) {
		const format = { 'formatOptions.useInt64Timestamp': true, 'location': 'US' };
		return this.request('GET', `/queries/${jobId}`, { query: { maxResults: pageRows, pageToken, ...format } });
	}

	/**
	 * Runs a statement of any kind to its end and returns its whole result as records in Harper's types.
	 * @param {string} sql
	 * @returns {Promise<Record<string, any>[]>}
	 */
	async query(sql) {
		/** @type {Record<string, any>[]} */
		const records = [];
		for await (const page of this.queryPages(sql)) {
			for (const row of page.rows) records.push(recordOf(page.fields, row));
		}
		return records;
	}

	/**
	 * Reads a whole table without a query (free on the service), page by page.
	 * @param {string} dataset
	 * @param {string} table
	 * @param {{pageRows?: number}} [options]
	 * @returns {AsyncGenerator<Page>}
	 */
	async *readAll(dataset, table, { pageRows = PAGE_ROWS } = {}) {
		const { schema } = await this.getTable(dataset, table);
		const pageAt = (/** @type {string | undefined} */ pageToken) => {
			const query = { 'maxResults': pageRows, pageToken, 'formatOptions.useInt64Timestamp': true };
			return this.request('GET', `/datasets/${dataset}/tables/${table}/data`, { query });
		};
		let next = pageAt(undefined);
		while (next) {
			const page = await next;
			// One page is fetched ahead. A reader that stops early leaves it alone, and then its failure too.
			next = page.pageToken && pageAt(page.pageToken);
			next?.catch(() => {});
			yield { fields: schema?.fields ?? [], rows: page.rows ?? [], totalRows: Number(page.totalRows ?? 0) };
		}
	}
}

/** @param {Response} response */
async function answerOf(response) {
	const text = await response.text();
	if (response.ok) return text === '' ? {} : JSON.parse(text);
	let error;
	try {
		({ error } = JSON.parse(text));
	} catch {
		error = undefined;
	}
	const reason = error?.errors?.[0]?.reason ?? 'unknown';
	throw new BigQueryError(response.status, reason, error?.message ?? text.slice(0, 500));
}

/**
 * JSON with BigInt as bare integers, which is how NDJSON carries INT64 exactly. Plain JSON.stringify refuses BigInt;
 * it is tried first because a replacer is several times slower and most rows have none.
 * @param {object} row
 */
function jsonLine(row) {
	try {
		return `${JSON.stringify(row)}\n`;
	} catch (error) {
		if (!(error instanceof TypeError)) throw error;
	}
	const marked = JSON.stringify(row, (_, value) => (typeof value === 'bigint' ? `\u0000${value}\u0000` : value));
	return `${marked.replace(/"\\u0000(-?\d+)\\u0000"/g, '$1')}\n`;
}

/**
 * Streaming inserts are JSON, so INT64 beyond a double travels as a string.
 * @param {object} row
 */
function plain(row) {
	return JSON.parse(JSON.stringify(row, (_, value) => (typeof value === 'bigint' ? `${value}` : value)));
}

/** @param {Iterable<object> | AsyncIterable<object>} rows */
async function* lineChunks(rows) {
	let lines = [];
	let characters = 0;
	for await (const row of rows) {
		const line = jsonLine(row);
		lines.push(line);
		characters += line.length;
		if (characters < UPLOAD_CHUNK_BYTES) continue;
		yield Buffer.from(lines.join(''));
		lines = [];
		characters = 0;
	}
	yield Buffer.from(lines.join(''));
}

/**
 * @param {string} session The upload's own URL.
 * @param {AsyncIterable<Buffer>} chunks
 * @returns {Promise<any>} The load job.
 */
async function upload(session, chunks) {
	let offset = 0;
	/** @type {Buffer | undefined} */
	let held;
	for await (const chunk of chunks) {
		if (held) {
			await put(session, held, offset, '*');
			offset += held.length;
		}
		held = chunk;
	}
	const last = held ?? Buffer.alloc(0);
	return answerOf(await put(session, last, offset, `${offset + last.length}`));
}

/**
 * @param {string} session
 * @param {Buffer} bytes
 * @param {number} offset
 * @param {string} total `*` while it is unknown.
 */
async function put(session, bytes, offset, total) {
	const range = bytes.length === 0 ? `bytes */${total}` : `bytes ${offset}-${offset + bytes.length - 1}/${total}`;
	const response = await fetch(session, {
		method: 'PUT',
		headers: { ...OWN_CONNECTION, 'content-range': range, 'content-type': 'application/octet-stream' },
		body: /** @type {any} */ (bytes),
		redirect: 'manual',
		signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
	});
	if (total === '*' && response.status === 308) await response.arrayBuffer();
	return response;
}
