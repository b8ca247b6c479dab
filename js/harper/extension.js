/**
 * Gets the function that creates tables with types and indexes. Harper passes it only to components of the older kind.
 */

import { offerTableMaker } from './schema/definition.js';

/** @param {{ensureTable: import('./schema/definition.js').TableMaker}} offered */
export function start({ ensureTable }) {
	offerTableMaker(ensureTable);
}
