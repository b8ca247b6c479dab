/** Harper calls handleApplication on each worker, in both ways to run: as a plugin, and as the application itself. */

import { component } from './component.js';
import { syncControl } from './control.js';

/** The name that config.yaml gives the sub-folder that starts the component as the application itself. */
const STARTER = 'bigquery-sync-starter';

/** As a plugin, the component's own config.yaml starts the starter first; then the plugin's own call must win. */
const PLUGIN_WAIT_MS = 3_000;

/** @param {any} scope */
export function handleApplication(scope) {
	const current = component();
	const isStarter = scope.options.getAll()?.package === STARTER;
	scope.resources.set('SyncControl', syncControl());
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
	const configure = () => {
		const root = isApplication ? scope.options.getRoot() : scope.options.getAll();
		return current.configure(scope, root, isApplication);
	};
	/** @type {NodeJS.Timeout | undefined} */
	let pending;
	configure();
	current.followWishes();
	scope.options.on('change', () => {
		// One edit fires several changes.
		clearTimeout(pending);
		pending = setTimeout(configure, 200);
	});
	scope.on?.('close', () => {
		clearTimeout(pending);
		return current.close();
	});
}
