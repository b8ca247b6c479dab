/** Makes targets readable over REST on this worker. Harper does not do that for tables that are created at run time. */

import { findTable } from '../database.js';

export class Exposure {
	/** @type {Map<string, any>} The tables that this worker has made readable. */
	#exposed = new Map();

	/**
	 * @param {any} resources Harper's, by their paths.
	 * @param {string} name The table's.
	 */
	expose(resources, name) {
		const table = findTable(name);
		const current = resources.get(name)?.Resource;
		// A table that was created again is another one. What an application exports under the name stays.
		if (!table || current === table || (current && current !== this.#exposed.get(name))) return;
		resources.set(name, table);
		this.#exposed.set(name, table);
	}
}
