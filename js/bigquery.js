/** Requests to BigQuery over fetch, with the credentials that the configuration names. */

import { readFile } from 'node:fs/promises';
import path from 'node:path';

/** Google's services compress answers only for clients that ask for it here, too. */
const USER_AGENT = 'bigquery-sync (gzip)';
const SCOPES = ['https://www.googleapis.com/auth/bigquery'];
/** BigQuery's pages have at most 20 MB, so a longer answer cannot be a page. */
const BODY_BYTES_MAX = 128 * 1024 * 1024;

/** Codes of errors that an invalid key or a missing file causes. All other codes are errors of the network. */
const OWN_FAULTS = /^(?:ERR_OSSL_|ERR_CRYPTO_|ERR_INVALID_|(?:ENOENT|EACCES|EPERM|EISDIR|ENOTDIR)$)/;

/** A failure with a code that the core knows. */
export class HostFailure extends Error {
	/**
	 * @param {string} code
	 * @param {string} message Without secrets.
	 */
	constructor(code, message) {
		super(message);
		this.code = code;
	}
}

/**
 * @typedef {{projectId: string, credentials: string | null, apiEndpoint: string, anonymous: boolean}} Connection
 * @typedef {{method: string, path: string, body: string | null, timeoutMs: number, renewToken: boolean}} Request
 */

/** Talks to one endpoint; shared by the tables of a worker. */
export class BigQueryConnection {
	/** @type {Promise<{getAccessToken(): Promise<any>}> | undefined} */
	#authorizer;

	/**
	 * @param {Connection} connection
	 * @param {string} directory Where a relative path of the credentials starts.
	 */
	constructor(connection, directory) {
		this.connection = connection;
		this.directory = directory;
	}

	/**
	 * Sends a request and reads its whole answer.
	 * @param {Request} request
	 * @param {AbortSignal} stopped
	 * @returns {Promise<{status: number, date: string | null, retryAfter: string | null, body: Uint8Array}>}
	 * @throws {HostFailure}
	 */
	async send(request, stopped) {
		const limit = timeLimit(request.timeoutMs, stopped);
		try {
			const response = await fetch(this.connection.apiEndpoint + request.path, {
				method: request.method,
				headers: await this.#headers(request, limit.signal),
				body: request.body ?? undefined,
				signal: limit.signal,
				redirect: 'error',
			});
			return {
				status: response.status,
				date: response.headers.get('date'),
				retryAfter: response.headers.get('retry-after'),
				body: await bodyOf(response),
			};
		} catch (error) {
			if (error instanceof HostFailure) throw error;
			if (limit.isOver()) {
				throw new HostFailure('timeout', `BigQuery did not answer within ${request.timeoutMs / 1000} s`);
			}
			throw new HostFailure(
				'unreachable',
				`the connection to ${this.connection.apiEndpoint} failed: ${reasonOf(error)}`
			);
		} finally {
			limit.clear();
		}
	}

	async #headers(request, signal) {
		/** @type {Record<string, string>} */
		const headers = { 'accept': 'application/json', 'user-agent': USER_AGENT };
		if (request.body !== null) headers['content-type'] = 'application/json';
		if (!this.connection.anonymous) {
			headers.authorization = `Bearer ${await this.#accessToken(request.renewToken, signal)}`;
		}
		return headers;
	}

	async #accessToken(renew, signal) {
		if (renew) this.#authorizer = undefined;
		try {
			this.#authorizer ??= this.#makeAuthorizer();
			const token = await orAborted((await this.#authorizer).getAccessToken(), signal);
			if (!token) throw new HostFailure('credentials', 'the credentials gave no access token');
			return token;
		} catch (error) {
			this.#authorizer = undefined;
			if (error instanceof HostFailure) throw error;
			if (signal.aborted) throw new HostFailure('timeout', 'the access token did not come in time');
			throw tokenFailure(error);
		}
	}

	async #makeAuthorizer() {
		const { credentials } = this.connection;
		// Loaded late: it is large, and an emulator needs none of it.
		const { GoogleAuth } = await import('google-auth-library');
		if (credentials === null) return new GoogleAuth({ scopes: SCOPES });
		const file = path.resolve(this.directory, credentials);
		return new GoogleAuth({ scopes: SCOPES, credentials: await readCredentials(file) });
	}
}

/**
 * Reads an answer's body up to a limit. The length of a compressed or chunked body is not known before.
 * @param {Response} response
 * @returns {Promise<Uint8Array>}
 */
async function bodyOf(response) {
	if (Number(response.headers.get('content-length')) > BODY_BYTES_MAX) {
		response.body?.cancel().catch(() => {});
		throw tooLong();
	}
	const parts = [];
	let bytes = 0;
	for await (const part of response.body ?? []) {
		bytes += part.length;
		// Leaving the loop cancels the rest of the body.
		if (bytes > BODY_BYTES_MAX) throw tooLong();
		parts.push(part);
	}
	return parts.length === 1 ? parts[0] : concatenated(parts, bytes);
}

function tooLong() {
	return new HostFailure('response_malformed', `BigQuery sent more than ${BODY_BYTES_MAX} bytes`);
}

/**
 * @param {Uint8Array[]} parts
 * @param {number} bytes The length of all of them.
 */
function concatenated(parts, bytes) {
	const whole = new Uint8Array(bytes);
	let at = 0;
	for (const part of parts) {
		whole.set(part, at);
		at += part.length;
	}
	return whole;
}

async function readCredentials(file) {
	let text;
	try {
		text = await readFile(file, 'utf8');
	} catch (error) {
		throw new HostFailure(
			'credentials',
			`the credentials file ${file} cannot be read (${error.code}): check bigquery.credentials`
		);
	}
	try {
		const credentials = JSON.parse(text);
		if (typeof credentials?.type === 'string') return credentials;
	} catch {
		// The parser's message would quote the file.
	}
	throw new HostFailure('credentials', `the credentials file ${file} is not a key file of a service account (JSON)`);
}

/**
 * A signal that fires after a time, or when another signal fires. AbortSignal.any is no alternative: its signals would
 * stay attached to the long-lived one.
 * @param {number} timeoutMs
 * @param {AbortSignal} stopped
 */
function timeLimit(timeoutMs, stopped) {
	const controller = new AbortController();
	let over = false;
	const abort = () => controller.abort(stopped.reason);
	const timer = setTimeout(() => {
		over = true;
		controller.abort(new Error('timeout'));
	}, timeoutMs);
	stopped.addEventListener('abort', abort, { once: true });
	if (stopped.aborted) abort();
	return {
		signal: controller.signal,
		isOver: () => over,
		clear() {
			clearTimeout(timer);
			stopped.removeEventListener('abort', abort);
		},
	};
}

/** Waits for a promise that cannot be aborted itself. */
function orAborted(promise, signal) {
	return new Promise((resolve, reject) => {
		const abort = () => reject(signal.reason);
		if (signal.aborted) abort();
		signal.addEventListener('abort', abort, { once: true });
		promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
	});
}

/** Tells whether the network or the credentials are the reason why there is no token. */
function tokenFailure(error) {
	const status = error.response?.status ?? error.status;
	if (status >= 500 || status === 429) {
		return new HostFailure('unavailable', `Google's token service answered HTTP ${status}`);
	}
	const code = error.code ?? error.cause?.code;
	if (status === undefined && code !== undefined && !OWN_FAULTS.test(code)) {
		return new HostFailure('unreachable', `Google's token service could not be reached: ${reasonOf(error)}`);
	}
	const said = String(error.message).split('\n')[0].slice(0, 200);
	return new HostFailure(
		'credentials',
		`no access token for BigQuery: ${said}; set bigquery.credentials to a service account's key file, or provide application default credentials`
	);
}

function reasonOf(error) {
	const cause = error.cause ?? error;
	return cause.code ?? cause.message ?? String(cause);
}
