/** GET and POST /SyncControl: what the sync is doing, and what operators want of it. */

import { desired, recordWishes } from '../commands.js';
import { component } from '../component.js';
import { readAll } from '../database.js';

/** What a POST may ask for, and the wish that is recorded. @type {Record<string, 'started' | 'stopped'>} */
const ACTIONS = { start: 'started', stop: 'stopped' };

/** Stands for a body that could not be parsed. */
const UNREADABLE = Symbol('unreadable');

/**
 * Whether a user may look at and control the sync: super_user, or a role that the configuration names.
 * @param {HarperUser | undefined | null} user
 */
export function mayControl(user) {
	const role = user?.role;
	if (role?.permission?.super_user === true) return true;
	return role?.role !== undefined && component().controlRoles.includes(role.role);
}

/** A worker that told nothing of itself for so long is gone; three times as long as it may be silent. */
const SILENT_MS = 90_000;

/** Makes the resource class; Harper's Resource is a global that is there only once Harper loads the component. */
export function syncControl() {
	return class SyncControl extends Resource {
		allowRead(user) {
			return mayControl(user);
		}

		allowCreate(user) {
			return mayControl(user);
		}

		allowUpdate() {
			return false;
		}

		allowDelete() {
			return false;
		}

		get() {
			return report();
		}

		/** Harper hands over a body that it cannot parse as a rejected promise, and would answer 500. */
		static post(target, data, request) {
			const given = typeof data?.then === 'function' ? data.then(undefined, () => UNREADABLE) : data;
			return super.post(target, given, request);
		}

		async post(data) {
			return command(await data, this.getContext?.()?.user?.username);
		}
	};
}

/** The whole picture: every worker of every node, as far as their rows have come. */
async function report() {
	const own = component();
	const [workers, wishes, checkpoints] = await Promise.all([
		readAll('SyncWorker'),
		readAll('SyncControlState'),
		readAll('SyncCheckpoint'),
	]);
	const nodes = own.nodes();
	const wished = new Map(wishes.map((wish) => [wish.id, wish]));
	const current = workers.filter(({ id }) => id !== own.name);
	current.push({ ...own.snapshot(), updatedAt: new Date().toISOString() });
	current.sort((one, other) => (one.id < other.id ? -1 : 1));
	const running = current
		.filter((worker) => isAlive(worker, nodes))
		.flatMap((worker) => worker.tables.map((table) => ({ ...table, worker: worker.id })))
		.filter(({ state }) => state !== 'standby');
	return {
		version: own.version,
		node: own.node,
		configurationErrors: own.problems,
		nodes,
		tables: own.tables.map((table) => ({
			id: table.id,
			target: table.targetTable,
			desired: desired(table, wished.get(table.id)),
			...together(
				running.filter(({ id }) => id === table.id),
				checkpoints.filter(({ tableId }) => tableId === table.id)
			),
		})),
		workers: current.map((worker) => {
			const { id, node, index, version, updatedAt, problems } = worker;
			return { id, node, index, version, alive: isAlive(worker, nodes), updatedAt, problems };
		}),
	};
}

/** A table as a whole: as far as the worker that is furthest behind, with the rows of all. */
function together(all, checkpoints) {
	// Who owns nothing of a table has something to say of it only if it cannot find out, or if nobody else has.
	const concerned = all.filter(({ partitions, lastError }) => partitions.length > 0 || lastError !== null);
	const workers = concerned.length > 0 ? concerned : all;
	const watermarks = workers.map(({ watermark }) => watermark);
	const sum = (name) => workers.reduce((total, worker) => total + worker[name], 0);
	const most = (name) => workers.reduce((found, worker) => Math.max(found, worker[name] ?? 0), 0);
	return {
		watermark: watermarks.includes(null) ? null : (watermarks.sort()[0] ?? null),
		lagSeconds: workers.some(({ lagSeconds }) => lagSeconds === null) ? null : most('lagSeconds'),
		rows: checkpoints.reduce((total, { recordsIngested }) => total + recordsIngested, 0),
		rowsPerSecond: sum('rowsPerSecond'),
		workers,
	};
}

/**
 * Whether a worker runs, as far as is known: its node gives signs of life, and it told of itself lately. A node that now
 * runs fewer threads, or has left the cluster, leaves rows of its workers behind.
 */
function isAlive({ node, index, updatedAt }, nodes) {
	const known = nodes.find((one) => one.node === node);
	const isThere = known === undefined ? node === component().node : known.alive && index < known.workers;
	return isThere && Date.now() - Date.parse(updatedAt) < SILENT_MS;
}

async function command(data, user) {
	if (data === UNREADABLE) return answer(400, { error: 'the body cannot be parsed', allowed: Object.keys(ACTIONS) });
	const { action, table } = data ?? {};
	if (typeof action !== 'string' || !Object.hasOwn(ACTIONS, action)) {
		return refusal('action', action, Object.keys(ACTIONS));
	}
	const own = component();
	if (own.problems.length > 0) {
		return answer(409, { error: 'the configuration has errors: correct it first', configurationErrors: own.problems });
	}
	const ids = own.tables.map(({ id }) => id);
	if (table !== undefined && !ids.includes(table)) return refusal('table', table, ids);
	const wanted = table === undefined ? ids : [table];
	await recordWishes(wanted, ACTIONS[action], user ?? null);
	await own.follow();
	return { action, tables: wanted };
}

function refusal(what, found, allowed) {
	const shown =
		typeof found === 'string' ? `"${found.slice(0, 60)}"` : found === undefined ? 'missing' : `a ${typeof found}`;
	return answer(400, { error: `${what} is ${shown}, allowed is ${allowed.join(', ')}`, allowed });
}

function answer(status, body) {
	return { status, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
}
