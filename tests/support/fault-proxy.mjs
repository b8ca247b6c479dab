/**
 * A proxy in front of a BigQuery emulator that fails on command and adds what emulators lack: bytes billed, limits on
 * them, dry runs, modification times, a clock and a slow network.
 */

import http from 'node:http';
import { pipeline } from 'node:stream/promises';
import { gunzipSync, gzipSync } from 'node:zlib';

import { Billing, MINIMUM_BYTES } from './billing.mjs';
import { Faults, errorBody } from './faults.mjs';
import { Network } from './network.mjs';
import { Modifications, emulatedBytes, endless, throttled } from './proxied-answers.mjs';
import { classify } from './routes.mjs';
import { refusalOf } from './service-limits.mjs';

/**
 * @typedef {import('./faults.mjs').Fault} Fault
 * @typedef {import('./routes.mjs').Route} Route
 *
 * @typedef {object} SeenRequest
 * @property {number} at Milliseconds since 1970.
 * @property {string} method
 * @property {string} path With the query string.
 * @property {import('./routes.mjs').RouteName} route
 * @property {number | undefined} status Undefined while, or because, there is no answer.
 * @property {boolean} isGivenUp The client closed the connection before the answer was complete.
 * @property {Fault | undefined} fault
 * @property {string | undefined} sql
 * @property {number} bytesBilled
 *
 * @typedef {object} Estimate
 * @property {number} processed Bytes.
 * @property {number} billed Bytes.
 * @property {Record<string, number>} byTable Bytes billed.
 * @property {boolean} dryRun
 * @property {object} [refusal] The error body, when the query's limit is lower.
 *
 * @typedef {object} Exchange
 * @property {http.IncomingMessage} request
 * @property {http.ServerResponse} response
 * @property {Route} route
 * @property {SeenRequest} seen
 * @property {Buffer | undefined} body Of the request; undefined for uploads, which are streamed.
 * @property {any} json The body, parsed.
 */

/** Whose answers the emulator gives differently from the service. */
const REWRITTEN = new Set(['tables.get', 'jobs.query', 'jobs.insert', 'jobs.get', 'jobs.cancel', 'getQueryResults']);

/**
 * @param {object} options
 * @param {string} options.target The emulator's URL.
 * @param {number} [options.port] Chosen when not given.
 * @param {string} [options.project]
 * @param {number} [options.minimumBytes] Billed at least, per table and query (default 10 MiB as on the service).
 * @returns {Promise<FaultProxy>}
 */
export async function startFaultProxy({ target, port = 0, project = 'test-project', minimumBytes = MINIMUM_BYTES }) {
	const proxy = new FaultProxy(target, new Billing({ url: target, project, minimumBytes }));
	await proxy.listen(port);
	return proxy;
}

export class FaultProxy {
	/** @type {SeenRequest[]} */
	#requests = [];
	/** @type {Map<string, {processed: number, billed: number}>} The bills of jobs, by the job's id. */
	#bills = new Map();
	/** @type {Set<string>} */
	#lostJobs = new Set();
	/** @type {Billing} */
	#billing;
	/** Closes no idle connection, for a client might be about to use it. */
	#server = http.createServer({ keepAliveTimeout: 0 }, (request, response) => void this.#serve(request, response));
	/** Keeps no connection, for the emulator closes idle ones at moments of its own. */
	#agent = new http.Agent({ keepAlive: false });

	/**
	 * @param {string} target
	 * @param {Billing} billing
	 */
	constructor(target, billing) {
		this.target = new URL(target);
		this.url = '';
		/** Rules for faults; change them at any time. */
		this.faults = new Faults();
		/** What lies between the proxy and its clients; change its settings at any time. */
		this.network = new Network();
		/** BigQuery's clock minus this machine's, in ms; seen in the Date header and in modification times. */
		this.clockSkewMs = 0;
		/** False hands out the emulator's own times, which never change: an endpoint without this service. */
		this.maintainsModification = true;
		/** False spares each query the look at its tables' contents (0.1 s per 300,000 rows); nothing is billed then. */
		this.accounting = true;
		/** Accept-Encoding: gzip is honoured when true. */
		this.gzip = false;
		/** @type {Map<string, {estimatedRows: string, estimatedBytes: string, oldestEntryTime: string}>} By dataset.table. */
		this.streamingBuffers = new Map();
		/** @type {Map<string, Record<string, any>>} What tables.get tells instead of the truth, by dataset.table. */
		this.pretences = new Map();
		this.#billing = billing;
		this.modifications = new Modifications(billing, () => this.now());
	}

	/** @param {number} port */
	async listen(port) {
		await new Promise((resolve, reject) => {
			this.#server.once('error', (/** @type {any} */ error) => {
				reject(error.code === 'EADDRINUSE' ? Object.assign(error, { code: 'PORT_TAKEN' }) : error);
			});
			this.#server.listen(port, '127.0.0.1', () => resolve(undefined));
		});
		const address = /** @type {import('node:net').AddressInfo} */ (this.#server.address());
		this.url = `http://127.0.0.1:${address.port}`;
		this.#server.unref();
	}

	/** Ends the proxy and all its connections, hanging ones too. */
	async stop() {
		this.#server.closeAllConnections();
		this.#agent.destroy();
		await new Promise((resolve) => this.#server.close(resolve));
	}

	/** The time that this BigQuery believes in, in ms since 1970. */
	now() {
		return Date.now() + this.clockSkewMs;
	}

	/**
	 * The requests so far, oldest first.
	 * @param {import('./routes.mjs').RouteName} [route]
	 * @returns {SeenRequest[]}
	 */
	requests(route) {
		return this.#requests.filter((one) => route === undefined || one.route === route);
	}

	/** @returns {Record<string, number>} How many requests each route has had. */
	counts() {
		/** @type {Record<string, number>} */
		const counts = {};
		for (const { route } of this.#requests) counts[route] = (counts[route] ?? 0) + 1;
		return counts;
	}

	/** @returns {{total: number, queries: number, byTable: Record<string, number>}} Bytes billed so far. */
	billing() {
		const { total, queries, byTable } = this.#billing;
		return { total, queries, byTable: { ...byTable } };
	}

	/** Sets the bill to nothing and forgets the requests. */
	reset() {
		Object.assign(this.#billing, { total: 0, queries: 0, byTable: {} });
		this.#requests = [];
	}

	/**
	 * From now on the results of this job are gone, as after 24 hours.
	 * @param {string} jobId
	 */
	loseResult(jobId) {
		this.#lostJobs.add(jobId);
	}

	/**
	 * @param {http.IncomingMessage} request
	 * @param {http.ServerResponse} response
	 */
	async #serve(request, response) {
		const { method = 'GET', url = '/' } = request;
		const route = classify(method, url);
		/** @type {SeenRequest} */
		const seen = {
			at: Date.now(),
			method,
			path: url,
			route: route.route,
			status: undefined,
			isGivenUp: false,
			fault: undefined,
			sql: undefined,
			bytesBilled: 0,
		};
		this.#requests.push(seen);
		response.once('close', () => (seen.isGivenUp = !response.writableFinished));
		response.setHeader('date', new Date(this.now()).toUTCString());
		try {
			const body = route.route === 'upload' ? undefined : await bodyOf(request);
			const json = parsed(body, request.headers['content-encoding']);
			seen.sql = json?.query ?? json?.configuration?.query?.query;
			if (seen.sql !== undefined) seen.sql = String(seen.sql);
			await this.#handle({ request, response, route, seen, body, json });
		} catch (error) {
			if (response.headersSent || response.destroyed) response.destroy();
			else sendJson(response, seen, 502, errorBody(502, 'proxyError', String(error)));
		}
	}

	/** @param {Exchange} exchange */
	async #handle(exchange) {
		const { response, route, seen, json } = exchange;
		const fault = this.faults.next(route.route, { method: seen.method, url: seen.path, body: json });
		seen.fault = fault;
		if (fault?.kind === 'loseResult' && route.jobId) this.#lostJobs.add(route.jobId);
		// The service tells of a job for half a year after its result is gone.
		if (route.route === 'getQueryResults' && this.#lostJobs.has(route.jobId ?? '')) {
			const message = `Not found: Job ${route.project}:${route.jobId}`;
			return sendJson(response, seen, 404, errorBody(404, 'notFound', message));
		}
		await this.network.delay(route.route);
		if (fault && ['error', 'hang', 'reset'].includes(fault.kind)) {
			if (fault.executed) await this.#discardAnswer(exchange);
			return this.#fail(exchange, fault);
		}
		return this.#forward(exchange, fault);
	}

	/**
	 * @param {Exchange} exchange
	 * @param {Fault} fault
	 */
	#fail({ request, response, seen }, fault) {
		if (fault.kind === 'hang') return;
		if (fault.kind === 'reset') {
			request.socket.resetAndDestroy();
			return;
		}
		const { status = 500, reason = 'internalError', message = 'Injected', retryAfterS } = fault;
		if (retryAfterS !== undefined) response.setHeader('retry-after', `${retryAfterS}`);
		sendJson(response, seen, status, errorBody(status, reason, message));
	}

	/** @param {Exchange} exchange */
	async #discardAnswer(exchange) {
		const answer = await this.#ask(exchange);
		await bodyOf(answer);
	}

	/**
	 * Passes the request on to the emulator.
	 * @param {Exchange} exchange
	 * @returns {Promise<http.IncomingMessage>}
	 */
	#ask({ request, body }) {
		const headers = { ...request.headers };
		// The answer is rewritten as text, so it must come as text.
		delete headers['accept-encoding'];
		const { hostname, port } = this.target;
		const { method, url: path } = request;
		return new Promise((resolve, reject) => {
			const upstream = http.request({ hostname, port, method, path, headers, agent: this.#agent }, resolve);
			upstream.once('error', reject);
			if (body) upstream.end(body);
			else pipeline(request, upstream).catch(reject);
		});
	}

	/**
	 * @param {Exchange} exchange
	 * @param {Fault | undefined} fault
	 */
	async #forward(exchange, fault) {
		const { response, seen, route } = exchange;
		const refusal = refusalOf(route.route, exchange.request.url ?? '', exchange.json);
		if (refusal) return sendJson(response, seen, 400, refusal);
		const estimate = await this.#estimate(exchange);
		if (estimate?.refusal) return sendJson(response, seen, 400, estimate.refusal);
		const answer = await this.#ask(exchange);
		const { statusCode: status = 502, headers } = answer;
		seen.status = status;
		for (const name of ['content-type', 'location', 'range', 'etag', 'x-guploader-uploadid']) {
			const value = headers[name];
			if (value !== undefined) response.setHeader(name, value);
		}
		response.statusCode = status;
		const mustRewrite = status === 200 && REWRITTEN.has(route.route);
		if (!mustRewrite && !fault && !this.gzip && !this.network.isLimited) {
			if (headers['content-length']) response.setHeader('content-length', headers['content-length']);
			await pipeline(answer, response).catch(() => response.destroy());
			return;
		}
		/** @type {Buffer} */
		let body = await bodyOf(answer);
		if (mustRewrite) body = await this.#rewrite(exchange, body, estimate);
		await this.#send(exchange, body, fault);
	}

	/**
	 * @param {Exchange} exchange
	 * @param {Buffer} body
	 * @param {Fault | undefined} fault
	 */
	async #send({ request, response }, body, fault) {
		if (fault?.kind === 'endless') {
			await pipeline(endless(body), response).catch(() => response.destroy());
			return;
		}
		let bytes = fault?.kind === 'cutJson' ? body.subarray(0, Math.floor(body.length / 2)) : body;
		if (this.gzip && /\bgzip\b/.test(request.headers['accept-encoding'] ?? '') && bytes.length > 0) {
			bytes = gzipSync(bytes, { level: 1 });
			response.setHeader('content-encoding', 'gzip');
		}
		if (response.statusCode !== 204) response.setHeader('content-length', bytes.length);
		if (fault?.kind === 'truncate') {
			response.write(bytes.subarray(0, Math.floor(bytes.length / 2)), () => request.socket.destroySoon());
			return;
		}
		if (fault?.kind === 'slow') {
			await pipeline(throttled(bytes, fault.bytesPerSecond ?? 20_000), response).catch(() => response.destroy());
			return;
		}
		if (!this.network.isLimited) return void response.end(bytes);
		await pipeline(this.network.carry(bytes), response).catch(() => response.destroy());
	}

	/**
	 * What a query will cost, and whether its limit forbids it.
	 * @param {Exchange} exchange
	 * @returns {Promise<Estimate | undefined>} Undefined for what is no query.
	 */
	async #estimate({ route, seen, json }) {
		if (!this.accounting || seen.sql === undefined) return undefined;
		if (route.route !== 'jobs.query' && route.route !== 'jobs.insert') return undefined;
		const query = route.route === 'jobs.query' ? json : json.configuration.query;
		const dryRun = Boolean(route.route === 'jobs.query' ? json.dryRun : json.configuration.dryRun);
		const estimate = await this.#billing.estimate(seen.sql, query.defaultDataset?.datasetId);
		const limit = query.maximumBytesBilled === undefined ? undefined : Number(query.maximumBytesBilled);
		if (dryRun || limit === undefined || estimate.billed <= limit) return { ...estimate, dryRun };
		const message = `Query exceeded limit for bytes billed: ${limit}. ${estimate.billed} or higher required.`;
		return { ...estimate, dryRun, refusal: errorBody(400, 'bytesBilledLimitExceeded', message) };
	}

	/**
	 * @param {Exchange} exchange
	 * @param {Buffer} body
	 * @param {Estimate | undefined} estimate
	 */
	async #rewrite({ route, seen }, body, estimate) {
		if (route.route === 'tables.get') {
			const { dataset = '', table = '' } = route;
			const resource = JSON.parse(body.toString());
			const streamingBuffer = this.streamingBuffers.get(`${dataset}.${table}`);
			if (streamingBuffer) Object.assign(resource, { streamingBuffer });
			if (this.maintainsModification) await this.modifications.apply({ dataset, table }, resource);
			Object.assign(resource, this.pretences.get(`${dataset}.${table}`));
			return Buffer.from(JSON.stringify(resource));
		}
		return emulatedBytes(body, (jobId) => {
			if (estimate?.dryRun) return { processed: estimate.processed, billed: 0 };
			const known = jobId === undefined ? undefined : this.#bills.get(jobId);
			if (known || !estimate) return known;
			this.#billing.charge(estimate);
			seen.bytesBilled = estimate.billed;
			if (jobId !== undefined) this.#bills.set(jobId, estimate);
			return estimate;
		});
	}
}

/** @param {http.IncomingMessage} message */
async function bodyOf(message) {
	const chunks = [];
	for await (const chunk of message) chunks.push(chunk);
	return Buffer.concat(chunks);
}

/**
 * @param {Buffer | undefined} body
 * @param {string | undefined} encoding
 * @returns {any} Undefined when it is no JSON.
 */
function parsed(body, encoding) {
	if (!body || body.length === 0) return undefined;
	try {
		return JSON.parse((encoding === 'gzip' ? gunzipSync(body) : body).toString());
	} catch {
		return undefined;
	}
}

/**
 * @param {http.ServerResponse} response
 * @param {SeenRequest} seen
 * @param {number} status
 * @param {object} body
 */
function sendJson(response, seen, status, body) {
	seen.status = status;
	const text = Buffer.from(JSON.stringify(body));
	response.writeHead(status, { 'content-type': 'application/json; charset=UTF-8', 'content-length': text.length });
	response.end(text);
}
