/**
 * Names for the methods of BigQuery's REST API, by method and path.
 */

/**
 * @typedef {'tables.get' | 'tables.list' | 'tabledata.list' | 'insertAll' | 'jobs.query' | 'getQueryResults' |
 *   'jobs.insert' | 'jobs.get' | 'jobs.cancel' | 'upload' | 'other'} RouteName
 * @typedef {{route: RouteName, project: string, dataset?: string, table?: string, jobId?: string}} Route
 */

/** @type {[string, RegExp, RouteName][]} The paths are below /projects/{project}. */
const ROUTES = [
	['GET', /^\/datasets\/(?<dataset>[^/]+)\/tables$/, 'tables.list'],
	['GET', /^\/datasets\/(?<dataset>[^/]+)\/tables\/(?<table>[^/]+)$/, 'tables.get'],
	['GET', /^\/datasets\/(?<dataset>[^/]+)\/tables\/(?<table>[^/]+)\/data$/, 'tabledata.list'],
	['POST', /^\/datasets\/(?<dataset>[^/]+)\/tables\/(?<table>[^/]+)\/insertAll$/, 'insertAll'],
	['POST', /^\/queries$/, 'jobs.query'],
	['GET', /^\/queries\/(?<jobId>[^/]+)$/, 'getQueryResults'],
	['POST', /^\/jobs$/, 'jobs.insert'],
	['GET', /^\/jobs\/(?<jobId>[^/]+)$/, 'jobs.get'],
	['POST', /^\/jobs\/(?<jobId>[^/]+)\/cancel$/, 'jobs.cancel'],
];

/**
 * @param {string} method
 * @param {string} url The path, perhaps with a query string.
 * @returns {Route}
 */
export function classify(method, url) {
	const path = url.split('?', 1)[0];
	const [, upload, project, rest] = /^(\/upload)?(?:\/bigquery\/v2)?\/projects\/([^/]+)(.*)$/.exec(path) ?? [];
	if (project === undefined) return { route: 'other', project: '' };
	if (upload) return { route: 'upload', project };
	for (const [verb, pattern, route] of ROUTES) {
		const match = verb === method ? pattern.exec(rest) : null;
		if (match) return { route, project, ...match.groups };
	}
	return { route: 'other', project };
}
