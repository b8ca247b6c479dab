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
/** The members of what makes a query's job, as the references of Job and JobConfigurationQuery list them. */
const JOB_MEMBERS = new Set(['kind', 'configuration', 'jobReference']);
const CONFIGURATION_MEMBERS = new Set(
	'jobType query load copy extract dryRun jobTimeoutMs labels maxSlots reservation'.split(' ')
);
const JOB_QUERY_MEMBERS = new Set(
	`query destinationTable tableDefinitions userDefinedFunctionResources createDisposition writeDisposition defaultDataset
	priority preserveNulls allowLargeResults useQueryCache flattenResults maximumBillingTier maximumBytesBilled useLegacySql
	parameterMode queryParameters schemaUpdateOptions timePartitioning rangePartitioning clustering
	destinationEncryptionConfiguration scriptOptions connectionProperties createSession continuous
	writeIncrementalResults`.split(/\s+/)
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
	const checks = {
		'jobs.query': wrongQuery,
		'jobs.insert': wrongJob,
		'jobs.cancel': wrongCancel,
		'getQueryResults': wrongResult,
	};
	const reason = checks[route]?.(json, url);
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
function wrongJob(job) {
	const { jobReference, configuration } = job;
	const id = jobReference?.jobId;
	if (id !== undefined && !JOB_ID.test(id)) return `Invalid job ID "${id}".`;
	const unknown = [
		...Object.keys(job).filter((name) => !JOB_MEMBERS.has(name)),
		...Object.keys(configuration ?? {}).filter((name) => !CONFIGURATION_MEMBERS.has(name)),
		...Object.keys(configuration?.query ?? {}).filter((name) => !JOB_QUERY_MEMBERS.has(name)),
	];
	if (unknown.length > 0) return `Invalid JSON payload received. Unknown name "${unknown[0]}": Cannot find field.`;
	if (String(configuration?.query?.query).length > QUERY_CHARACTERS_MAX) return 'The query is too long.';
	return undefined;
}

/** @param {any} body */
function wrongCancel(body) {
	return body === undefined ? undefined : 'Invalid JSON payload received. The request body must be empty.';
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
