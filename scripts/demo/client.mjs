import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { BigQueryClient, BigQueryError } from '../../tests/support/bigquery.mjs';
import { DemoFailure } from './failure.mjs';

const SCOPES = ['https://www.googleapis.com/auth/bigquery'];
const LOAD_ROWS = 100_000;
const REQUEST_TIMEOUT_MS = 120_000;
const RETRY_DELAYS_MS = [500, 1_000, 2_000, 4_000];
const NOBODY_THERE = new Set(['ECONNREFUSED', 'ENOTFOUND']);
/** Should the demo be killed before it can delete its dataset, the service deletes the tables after a day. */
const TABLE_LIFE_MS = 86_400_000;

/** A BigQuery client that can also talk to the service itself: with credentials, locations and further attempts. */
export class DemoClient extends BigQueryClient {
	#location;
	/** @type {(() => Promise<string | null | undefined>) | undefined} */
	#accessToken;

	/** @param {{url: string, project: string, location: string, accessToken?: () => Promise<string | null | undefined>}} options */
	constructor({ url, project, location, accessToken }) {
		super(url, project);
		this.#location = location;
		this.#accessToken = accessToken;
	}

	/**
	 * @override
	 * @param {string} method
	 * @param {string} path
	 * @param {{body?: unknown, query?: Record<string, string | number | boolean | undefined>}} [options]
	 */
	async request(method, path, { body, query = {} } = {}) {
		const url = new URL(`${this.url}/bigquery/v2/projects/${this.project}${path}`);
		for (const [name, value] of Object.entries(query)) {
			if (value !== undefined) url.searchParams.set(name, name === 'location' ? this.#location : `${value}`);
		}
		const text = body === undefined ? undefined : JSON.stringify(body);
		return this.#send(url, method, 'application/json', text);
	}

	/**
	 * @override
	 * @param {string} dataset
	 */
	async createDataset(dataset) {
		const datasetReference = { projectId: this.project, datasetId: dataset };
		const body = { datasetReference, location: this.#location, defaultTableExpirationMs: `${TABLE_LIFE_MS}` };
		await unless(409, this.request('POST', '/datasets', { body }));
	}

	/**
	 * Loads rows job by job, so that any number of them needs little memory.
	 *
	 * @param {string} dataset
	 * @param {string} table
	 * @param {Iterable<object>} rows
	 * @param {(rows: number) => void} onProgress Told how many rows are in.
	 */
	async load(dataset, table, rows, onProgress) {
		let lines = [];
		let count = 0;
		const flush = async () => {
			await this.#loadJob(dataset, table, lines.join(''));
			count += lines.length;
			onProgress(count);
			lines = [];
		};
		for (const row of rows) {
			lines.push(`${JSON.stringify(row)}\n`);
			if (lines.length === LOAD_ROWS) await flush();
		}
		if (lines.length > 0) await flush();
	}

	async #loadJob(dataset, table, lines) {
		const jobReference = { projectId: this.project, jobId: `demo-${randomUUID()}`, location: this.#location };
		const load = {
			destinationTable: { projectId: this.project, datasetId: dataset, tableId: table },
			sourceFormat: 'NEWLINE_DELIMITED_JSON',
			writeDisposition: 'WRITE_APPEND',
		};
		const boundary = `demo-${randomUUID()}`;
		const part = (/** @type {string} */ type, /** @type {string} */ text) => {
			return `--${boundary}\r\ncontent-type: ${type}\r\n\r\n${text}\r\n`;
		};
		const job = part('application/json', JSON.stringify({ jobReference, configuration: { load } }));
		const body = `${job}${part('application/octet-stream', lines)}--${boundary}--\r\n`;
		const url = new URL(`${this.url}/upload/bigquery/v2/projects/${this.project}/jobs?uploadType=multipart`);
		// A job that is there already was made by an attempt whose answer was lost.
		await unless(409, this.#send(url, 'POST', `multipart/related; boundary=${boundary}`, body));
		await this.waitForJob(jobReference.jobId);
	}

	async #send(url, method, contentType, body) {
		for (let attempt = 0; ; attempt++) {
			const delay_ms = RETRY_DELAYS_MS[attempt];
			const outcome = await this.#attempt(url, method, contentType, body);
			if ('answer' in outcome) return outcome.answer;
			if (!outcome.mayPass || delay_ms === undefined) throw outcome.error;
			await sleep(delay_ms);
		}
	}

	async #attempt(url, method, contentType, body) {
		const headers = await this.#headers(body && contentType);
		try {
			const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
			const response = await fetch(url, { method, headers, body, signal, redirect: 'error' });
			const text = await response.text();
			if (response.ok) return { answer: text === '' ? {} : JSON.parse(text) };
			return { error: refusal(response.status, text), mayPass: response.status === 429 || response.status >= 500 };
		} catch (error) {
			const { cause, message } = /** @type {any} */ (error);
			const reason = cause?.code ?? cause?.message ?? message;
			const failure = new DemoFailure('UNREACHABLE', `BigQuery at ${this.url} does not answer: ${reason}.`);
			return { error: failure, mayPass: !NOBODY_THERE.has(reason) };
		}
	}

	async #headers(contentType) {
		/** @type {Record<string, string>} */
		const headers = {};
		if (contentType) headers['content-type'] = contentType;
		if (this.#accessToken) headers.authorization = `Bearer ${await this.#accessToken()}`;
		return headers;
	}
}

/**
 * Gives access tokens for the credentials of a key file, renewed in time.
 * @param {string} keyFile
 */
export async function tokenSource(keyFile) {
	const { GoogleAuth } = await import('google-auth-library');
	const auth = new GoogleAuth({ keyFilename: keyFile, scopes: SCOPES });
	return async () => {
		try {
			return await auth.getAccessToken();
		} catch (error) {
			const reason = /** @type {any} */ (error).message?.split('\n')[0].slice(0, 200);
			throw new DemoFailure('CREDENTIALS', `The credentials gave no access token: ${reason}`);
		}
	};
}

async function unless(status, request) {
	try {
		await request;
	} catch (error) {
		if (!(error instanceof BigQueryError) || error.status !== status) throw error;
	}
}

function refusal(status, text) {
	try {
		const { error } = JSON.parse(text);
		return new BigQueryError(status, error.errors?.[0]?.reason ?? 'unknown', error.message);
	} catch {
		return new BigQueryError(status, 'unknown', text.slice(0, 200));
	}
}
