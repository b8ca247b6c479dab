/** Makes targets readable over REST on this worker. Harper does not do that for tables that are created at run time. */

import { findTable } from '../database.js';

export class Exposure {
	/** @type {Map<string, any>} What is readable by the doing of this worker. */
	#exposed = new Map();

	/**
	 * @param {any} resources Harper's, by their paths.
	 * @param {string} name The table's.
	 */
	expose(resources, name) {
		const table = findTable(name);
		const current = resources.get(name)?.Resource;
		// A table that was made anew is another one; whatever an application exports under the name stays.
		if (!table || current === table || (current && current !== this.#exposed.get(name))) return;
		resources.set(name, table);
		this.#exposed.set(name, table);
	}
}
