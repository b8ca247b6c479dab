/**
 * The faults that the proxy can inject, and the rules that say when.
 */

import { randomFrom } from './samples.mjs';

/**
 * @typedef {import('./routes.mjs').RouteName} RouteName
 *
 * @typedef {object} Fault
 * @property {'error' | 'hang' | 'reset' | 'truncate' | 'cutJson' | 'slow' | 'endless' | 'loseResult'} kind
 * @property {number} [status] Of an error.
 * @property {string} [reason] Of an error.
 * @property {string} [message] Of an error.
 * @property {number} [retryAfterS] Sent as Retry-After with an error.
 * @property {boolean} [executed] Error, hang and reset: the request is carried out, only its answer is lost.
 * @property {number} [bytesPerSecond] Of a slow body.
 *
 * @typedef {object} Rule
 * @property {RouteName | RouteName[] | '*'} [route] Default all.
 * @property {Fault} fault
 * @property {number} [nth] Only the nth matching request from now on, counted from 1.
 * @property {number} [every] Each nth matching request.
 * @property {number} [rate] A share of the matching requests, 0 to 1, drawn from the seed.
 * @property {number} [seed]
 * @property {number} [limit] Ends after so many faults.
 * @property {(request: {method: string, url: string, body: any}) => boolean} [when] A further condition.
 *
 * @typedef {Rule & {seen: number, injected: number, remove: () => void}} ActiveRule
 */

/**
 * @param {number} status
 * @param {string} reason
 * @param {string} message
 * @returns {(more?: Partial<Fault>) => Fault}
 */
function answer(status, reason, message) {
	return (more = {}) => ({ kind: 'error', status, reason, message, ...more });
}

/**
 * @param {Fault['kind']} kind
 * @returns {(more?: Partial<Fault>) => Fault}
 */
function trouble(kind) {
	return (more = {}) => ({ kind, ...more });
}

/** Makers of the faults that BigQuery and networks are known for; each takes details that override its own. */
export const FAULT = Object.freeze({
	rateLimited: answer(429, 'rateLimitExceeded', 'Exceeded rate limits: too many api requests per user per method'),
	internalError: answer(500, 'internalError', 'An internal error occurred and the request could not be completed'),
	backendError: answer(503, 'backendError', 'Error encountered during execution. Retrying may solve the problem.'),
	accessDenied: answer(403, 'accessDenied', 'Access Denied: User does not have bigquery.jobs.create permission'),
	quotaExceeded: answer(403, 'quotaExceeded', 'Quota exceeded: Your project exceeded quota for free query bytes'),
	tokenExpired: answer(401, 'authError', 'Request had invalid authentication credentials.'),
	notFound: answer(404, 'notFound', 'Not found'),
	/** No answer until the client gives up. */
	hang: trouble('hang'),
	/** The connection is reset instead of an answer. */
	reset: trouble('reset'),
	/** The head promises the whole body, half of it comes, then the connection is cut. */
	truncate: trouble('truncate'),
	/** Half of the JSON text with a Content-Length that fits. */
	cutJson: trouble('cutJson'),
	/** The body trickles. */
	slow: (/** @type {Partial<Fault>} */ more = {}) => ({ kind: 'slow', bytesPerSecond: 20_000, ...more }),
	/** The body goes on after the JSON text, with blanks, without a Content-Length and without an end. */
	endless: trouble('endless'),
	/** The job of the request is gone from now on: 404 for its results. */
	loseResult: trouble('loseResult'),
});

/** The rules in force, first match wins. */
export class Faults {
	/** @type {ActiveRule[]} */
	#rules = [];

	/**
	 * @param {Rule} rule
	 * @returns {ActiveRule} Counts what it has seen and injected; `remove()` ends it.
	 */
	add(rule) {
		const remove = () => {
			this.#rules = this.#rules.filter((one) => one !== active);
		};
		const active = { ...rule, seen: 0, injected: 0, random: randomFrom(rule.seed ?? 1), remove };
		this.#rules.push(active);
		return active;
	}

	/** Ends all rules. */
	clear() {
		this.#rules = [];
	}

	/**
	 * @param {RouteName} route
	 * @param {{method: string, url: string, body: any}} request
	 * @returns {Fault | undefined} The fault to inject into this request.
	 */
	next(route, request) {
		for (const rule of /** @type {(ActiveRule & {random: () => number})[]} */ (this.#rules)) {
			const routes = rule.route ?? '*';
			if (routes !== '*' && ![routes].flat().includes(route)) continue;
			if (rule.when && !rule.when(request)) continue;
			rule.seen++;
			if (rule.limit !== undefined && rule.injected >= rule.limit) continue;
			if (rule.nth !== undefined && rule.seen !== rule.nth) continue;
			if (rule.every !== undefined && rule.seen % rule.every !== 0) continue;
			if (rule.rate !== undefined && rule.random() >= rule.rate) continue;
			rule.injected++;
			return rule.fault;
		}
		return undefined;
	}
}

/**
 * An error body in BigQuery's shape.
 * @param {number} status
 * @param {string} reason
 * @param {string} message
 */
export function errorBody(status, reason, message) {
	/** @type {Record<number, string>} */
	const names = { 400: 'INVALID_ARGUMENT', 401: 'UNAUTHENTICATED', 403: 'PERMISSION_DENIED', 404: 'NOT_FOUND' };
	Object.assign(names, { 429: 'RESOURCE_EXHAUSTED', 500: 'INTERNAL', 503: 'UNAVAILABLE' });
	const errors = [{ message, domain: 'global', reason }];
	return { error: { code: status, message, errors, status: names[status] ?? 'UNKNOWN' } };
}
