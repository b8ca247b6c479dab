/**
 * Throw-away application folders for Harper, with the component as a plugin or as the application itself.
 */

import {
	appendFileSync,
	cpSync,
	existsSync,
	mkdirSync,
	readFileSync,
	readdirSync,
	symlinkSync,
	writeFileSync,
} from 'node:fs';
import path from 'node:path';

import { temporaryFolder } from './processes.mjs';

/** What a deployed component does not have (or must not bring along from this checkout). */
const NOT_SHIPPED = new Set(['.git', 'node_modules', 'target', 'tests', 'dist', 'coverage']);

/**
 * @typedef {object} Application
 * @property {string} path
 * @property {(config: Record<string, unknown>) => void} configure Replaces the configuration that was given.
 * @property {() => void} remove
 */

/** @param {string} component */
function shippedEntries(component) {
	return readdirSync(component).filter((entry) => !NOT_SHIPPED.has(entry));
}

/**
 * Copies the component as a package manager would install it: its own files, its dependencies beside it. The
 * dependencies are links into the component's own node_modules, which Node resolves from there.
 * @param {string} component
 * @param {string} folder
 * @param {string} modules The node_modules folder that gets the dependencies.
 */
function installComponent(component, folder, modules) {
	mkdirSync(folder, { recursive: true });
	for (const entry of shippedEntries(component)) {
		cpSync(path.join(component, entry), path.join(folder, entry), { recursive: true });
	}
	const { dependencies = {} } = JSON.parse(readFileSync(path.join(component, 'package.json'), 'utf8'));
	for (const name of Object.keys(dependencies)) {
		const from = path.join(component, 'node_modules', name);
		const to = path.join(modules, name);
		if (!existsSync(from) || existsSync(to)) continue;
		mkdirSync(path.dirname(to), { recursive: true });
		symlinkSync(from, to);
	}
}

/**
 * Makes an application of its own files only, without the component. A file `resources.js` has its resources.
 * @param {{config?: Record<string, unknown>, schema?: string, files?: Record<string, string>}} [options]
 * @returns {Application}
 */
export function plainApplication({ config = {}, schema, files = {} } = {}) {
	const folder = temporaryFolder('application');
	/** @type {Record<string, unknown>} */
	const own = { rest: true };
	if (schema !== undefined) own.graphqlSchema = { files: 'schema.graphql' };
	if (files['resources.js'] !== undefined) own.jsResource = { files: 'resources.js' };
	const configure = (/** @type {Record<string, unknown>} */ wanted) => {
		// YAML is a superset of JSON.
		writeFileSync(path.join(folder.path, 'config.yaml'), `${JSON.stringify({ ...own, ...wanted }, null, '\t')}\n`);
	};
	configure(config);
	writeFileSync(
		path.join(folder.path, 'package.json'),
		'{"name":"bench-application","type":"module","private":true}\n'
	);
	if (schema !== undefined) writeFileSync(path.join(folder.path, 'schema.graphql'), schema);
	for (const [name, text] of Object.entries(files)) {
		const file = path.join(folder.path, name);
		mkdirSync(path.dirname(file), { recursive: true });
		writeFileSync(file, text);
	}
	return { path: folder.path, configure, remove: folder.remove };
}

/**
 * Makes an application that lists the component as a plugin.
 *
 * @param {object} options
 * @param {string} options.component The component's folder: the checkout, or an unpacked package.
 * @param {Record<string, unknown>} options.config What stands under the plugin's key: `bigquery`, `sync`, …
 * @param {string} [options.name] The plugin's key and folder name.
 * @param {string} [options.schema] The application's own schema.graphql.
 * @param {Record<string, string>} [options.files] More files of the application, by relative path.
 * @returns {Application}
 */
export function pluginApplication({ component, config, name = 'bigquery-sync', schema, files }) {
	const entry = (/** @type {Record<string, unknown>} */ wanted) => ({ [name]: { package: name, ...wanted } });
	const application = plainApplication({ config: entry(config), schema, files });
	const modules = path.join(application.path, 'node_modules');
	installComponent(component, path.join(modules, name), modules);
	return { ...application, configure: (wanted) => application.configure(entry(wanted)) };
}

/**
 * Makes an application of the component itself, as `harper deploy` of its folder does.
 *
 * @param {object} options
 * @param {string} options.component
 * @param {Record<string, unknown>} options.config Top-level sections that are added: `bigquery`, `sync`, …
 * @param {string} [options.schema] Added to the component's own schema.graphql.
 * @param {Record<string, string>} [options.files]
 * @returns {Application}
 */
export function selfApplication({ component, config, schema, files = {} }) {
	const folder = temporaryFolder('application');
	installComponent(component, folder.path, path.join(folder.path, 'node_modules'));
	const configFile = path.join(folder.path, 'config.yaml');
	const original = existsSync(configFile) ? readFileSync(configFile, 'utf8') : '';
	const configure = (/** @type {Record<string, unknown>} */ wanted) => {
		const sections = Object.entries(wanted).map(([key, value]) => `${key}: ${JSON.stringify(value)}\n`);
		const kept = withoutSections(original, Object.keys(wanted));
		writeFileSync(configFile, `${kept.trimEnd()}\n${sections.join('')}`.trimStart());
	};
	configure(config);
	if (schema !== undefined) appendFileSync(path.join(folder.path, 'schema.graphql'), `\n${schema}`);
	for (const [name, text] of Object.entries(files)) writeFileSync(path.join(folder.path, name), text);
	return { path: folder.path, configure, remove: folder.remove };
}

/**
 * Drops top-level sections of a block-style YAML text; a key twice would be an error for its reader.
 * @param {string} yaml
 * @param {string[]} keys
 */
function withoutSections(yaml, keys) {
	let dropping = false;
	return yaml
		.split('\n')
		.filter((line) => {
			const key = /^['"]?([^\s#'":][^'":]*)['"]?\s*:/.exec(line)?.[1];
			if (key !== undefined) dropping = keys.includes(key);
			return !dropping;
		})
		.join('\n');
}
