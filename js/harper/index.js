/**
 * The entry point: Harper calls handleApplication on each worker, whether as a plugin or as an application of its own.
 */

import { stat, utimes } from 'node:fs/promises';

import { component } from './component.js';
import { syncControl } from './rest/control.js';
import { schemaDiff } from './rest/schema-diff.js';
import { commitOwnAsWhole } from './sync/whole-commits.js';

/** The name that config.yaml gives the sub-folder that starts the component as the application itself. */
const STARTER = 'bigquery-sync-starter';

/** As a plugin, the component's own config.yaml starts the starter first; then the plugin's own call must win. */
const PLUGIN_WAIT_MS = 3_000;

/** How often the configuration, which Harper reads anew after each edit, is compared with the one in force. */
const CONFIGURATION_LOOK_MS = 500;

// What other nodes have written meanwhile may arrive before the application starts.
commitOwnAsWhole();

/** @param {any} scope */
export function handleApplication(scope) {
	commitOwnAsWhole();
	const current = component();
	const isStarter = scope.options.getAll()?.package === STARTER;
	scope.resources.set('SyncControl', syncControl());
	scope.resources.set('SchemaDiff', schemaDiff());
	if (!isStarter) {
		current.isPlugin = true;
		run(current, scope, false);
	} else if (scope.options.getRoot()?.bigquery !== undefined) {
		run(current, scope, true);
	} else {
		setTimeout(() => current.isPlugin || run(current, scope, true), PLUGIN_WAIT_MS);
	}
}

/**
 * @param {import('./component.js').Component} current
 * @param {any} scope
 * @param {boolean} isApplication
 */
function run(current, scope, isApplication) {
	let known = '';
	const configure = () => {
		if (scope.options.getRoot() === null) {
			readAgain(scope.configFilePath);
			return;
		}
		const root = isApplication ? scope.options.getRoot() : scope.options.getAll();
		const text = JSON.stringify(root ?? {});
		if (text === known) return;
		known = text;
		current.configure(scope, root, isApplication);
	};
	configure();
	current.followCommands();
	// Harper's event tells of changes in the component's own entry only, and not of an entry that comes back.
	const look = setInterval(configure, CONFIGURATION_LOOK_MS);
	look.unref();
	scope.on?.('close', () => {
		clearInterval(look);
		return current.close();
	});
}

/**
 * Makes Harper read the file again, in which it found nothing: it does not notice the end of a writing that it saw
 * begin. Whoever emptied the file on purpose changes nothing.
 * @param {string} file
 */
async function readAgain(file) {
	try {
		const { size } = await stat(file);
		if (size > 0) await utimes(file, new Date(), new Date());
	} catch (error) {
		logger.warn?.(`bigquery-sync: configuration: ${file} cannot be read again (${error.code})`);
	}
}
