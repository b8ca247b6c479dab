/**
 * What the real service refuses and the emulator takes: names that it does not know, ids that are too long.
 */

import { errorBody } from './faults.mjs';

/** The members of a QueryRequest, as the reference of jobs.query lists them. */
const QUERY_MEMBERS = new Set(
	`kind query maxResults defaultDataset timeoutMs jobTimeoutMs maxSlots destinationEncryptionConfiguration dryRun
	preserveNulls useQueryCache useLegacySql parameterMode queryParameters location formatOptions connectionProperties labels
	maximumBytesBilled requestId createSession jobCreationMode reservation writeIncrementalResults`.split(/\s+/)
);
const RESULT_PARAMETERS = new Set(
	`startIndex maxResults pageToken timeoutMs location formatOptions.useInt64Timestamp formatOptions.timestampOutputFormat
	alt prettyPrint fields key quotaUser`.split(/\s+/)
);
const REQUEST_ID = /^[\x21-\x7e]{1,36}$/;
const JOB_ID = /^[A-Za-z0-9_-]{1,1024}$/;
/** Characters of a query before its names are resolved. */
const QUERY_CHARACTERS_MAX = 1024 * 1024;
const TIMEOUT_MS_MAX = 200_000;

/**
 * Tells why the service would refuse a request, if it would.
 * @param {string} route
 * @param {string} url
 * @param {any} json The body.
 * @returns {object | undefined} The body of the refusal.
 */
export function refusalOf(route, url, json) {
	const reason = { 'jobs.query': wrongQuery, 'jobs.insert': wrongJob, 'getQueryResults': wrongResult }[route]?.(
		json,
		url
	);
	return reason === undefined ? undefined : errorBody(400, 'invalid', reason);
}

/** @param {any} query */
function wrongQuery(query) {
	const unknown = Object.keys(query).find((name) => !QUERY_MEMBERS.has(name));
	if (unknown !== undefined) return `Invalid JSON payload received. Unknown name "${unknown}": Cannot find field.`;
	if (query.requestId !== undefined && !REQUEST_ID.test(query.requestId)) {
		return `The requestId "${query.requestId}" is not of 1 to 36 ASCII characters.`;
	}
	if (String(query.query).length > QUERY_CHARACTERS_MAX) return 'The query is too long.';
	if (query.timeoutMs > TIMEOUT_MS_MAX) return 'timeoutMs is too large.';
	if (query.maxResults !== undefined && !(query.maxResults > 0 && query.maxResults < 2 ** 32)) {
		return `maxResults is ${query.maxResults}.`;
	}
	return undefined;
}

/** @param {any} job */
function wrongJob({ jobReference }) {
	const id = jobReference?.jobId;
	return id === undefined || JOB_ID.test(id) ? undefined : `Invalid job ID "${id}".`;
}

/** @param {any} _ @param {string} url */
function wrongResult(_, url) {
	const parameters = new URL(url, 'http://localhost').searchParams;
	const unknown = [...parameters.keys()].find((name) => !RESULT_PARAMETERS.has(name));
	if (unknown !== undefined) {
		return `Invalid JSON payload received. Unknown name "${unknown}": Cannot bind query parameter.`;
	}
	const isWhole = (/** @type {string | null} */ text) => text === null || /^\d+$/.test(text);
	const wrong = ['startIndex', 'maxResults', 'timeoutMs'].find((name) => !isWhole(parameters.get(name)));
	return wrong === undefined ? undefined : `Invalid value of ${wrong}.`;
}
