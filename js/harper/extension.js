/** Harper hands the function that makes tables, with types and indexes, to components of its older kind alone. */

import { offerTableMaker } from './schema/target.js';

/** @param {{ensureTable: import('./schema/target.js').TableMaker}} offered */
export function start({ ensureTable }) {
	offerTableMaker(ensureTable);
}
