/** Harper calls handleApplication on each worker, in both ways to run: as a plugin, and as the application itself. */

import { component } from './component.js';
import { syncControl } from './control.js';
import { findTable } from './harper.js';

/** The name that config.yaml gives the sub-folder that starts the component as the application itself. */
const STARTER = 'bigquery-sync-starter';

let takenByPlugin = false;

/** @param {any} scope */
export function handleApplication(scope) {
	const own = scope.options.getAll();
	const isStarter = own?.package === STARTER;
	// As a plugin, the component's own config.yaml is loaded too, and with it the starter, which then has no part.
	if (isStarter && takenByPlugin) return;
	if (!isStarter) takenByPlugin = true;

	const read = () => (isStarter ? scope.options.getRoot() : scope.options.getAll());
	const current = component();
	current.configure(scope, read(), isStarter);
	scope.resources.set('SyncControl', syncControl());
	followWishes(current);
	scope.options.on('change', () => {
		// One edit fires several changes.
		clearTimeout(pending);
		pending = setTimeout(() => current.configure(scope, read(), isStarter), 200);
	});
	scope.on?.('close', () => current.close());
}

/** @type {NodeJS.Timeout | undefined} */
let pending;
let following = false;

/** @param {import('./component.js').Component} current */
async function followWishes(current) {
	if (following) return;
	following = true;
	try {
		const wishes = await findTable('SyncControlState').subscribe({ omitCurrent: true });
		wishes.on('data', () => current.follow());
	} catch (error) {
		following = false;
		logger.error?.(`bigquery-sync: commands given on other workers will not be noticed: ${error}`);
	}
}
