/**
 * The entry point: Harper calls handleApplication on each worker, whether as a plugin or as an application of its own.
 */

import { stat, utimes } from 'node:fs/promises';

import { component } from './component.js';
import { regularly } from './pulse.js';
import { syncControl } from './rest/control.js';
import { schemaDiff } from './rest/schema-diff.js';
import { holdUnfinished } from './schema/indexes.js';
import { commitOwnAsWhole } from './sync/whole-commits.js';

/** The name in config.yaml of the sub-folder that starts the component as the application itself. */
const STARTER = 'bigquery-sync-starter';

/** Its own config.yaml starts the starter even if the component is a plugin. So the starter waits for the plugin. */
const PLUGIN_WAIT_MS = 3_000;

/**
 * How often the configuration is compared with the one in use, because Harper reads it again after each edit, and how
 * soon a target that another thread or node has made is readable here.
 */
const LOOK_MS = 500;

// Transactions of other nodes may arrive before the application starts.
commitOwnAsWhole();

/** @param {any} scope */
export function handleApplication(scope) {
	commitOwnAsWhole();
	holdUnfinished();
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
	/** @type {any} */
	let knownFile = null;
	const configure = () => {
		const file = scope.options.getRoot();
		if (file === null) {
			readAgain(scope.configFilePath);
			return;
		}
		// Harper makes another object each time it reads the file.
		if (file === knownFile) return;
		knownFile = file;
		const root = isApplication ? file : scope.options.getAll();
		const text = JSON.stringify(root ?? {});
		if (text === known) return;
		known = text;
		current.configure(scope, root, isApplication);
	};
	configure();
	current.followCommands();
	// Harper's event tells only of changes in the component's own entry, not of an entry that comes back.
	const stopLooking = regularly(() => {
		configure();
		current.exposeTargets();
	}, LOOK_MS);
	scope.on?.('close', () => {
		stopLooking();
		return current.close();
	});
}

/**
 * Makes Harper read the configuration again, if Harper found the file empty although it is not. This happens if Harper
 * reads the file while somebody writes it. A file that is really empty is left alone.
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
