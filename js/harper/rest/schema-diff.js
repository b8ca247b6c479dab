/** GET /SchemaDiff?table=id: compares a source's columns with what is stored, and tells what will be done. */

import { HostFailure } from '../../bigquery.js';
import { component } from '../component.js';
import { mayControl } from './control.js';

/** Creates the resource class. Harper's global Resource does not exist before Harper loads the component. */
export function schemaDiff() {
	return class SchemaDiff extends Resource {
		allowRead(user) {
			return mayControl(user);
		}

		allowCreate() {
			return false;
		}

		allowUpdate() {
			return false;
		}

		allowDelete() {
			return false;
		}

		async get(target) {
			const own = component();
			const id = target?.get?.('table') ?? undefined;
			const allowed = own.tables.map((table) => table.id);
			if (!allowed.includes(id)) {
				const found = id === undefined ? 'missing' : `"${String(id).slice(0, 60)}"`;
				return answer(400, { error: `table is ${found}, allowed is ${allowed.join(', ')}`, allowed });
			}
			try {
				return await own.schemaDiff(id);
			} catch (error) {
				if (error instanceof HostFailure) return answer(502, { error: error.message, code: error.code });
				throw error;
			}
		}
	};
}

function answer(status, body) {
	return { status, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
}
