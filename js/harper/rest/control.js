/** GET and POST /SyncControl: the status of the sync, and the operators' commands. */

import { unconnectedDatabases } from '../cluster/connections.js';
import { desired, recordResyncs, recordValidations, recordWishes } from '../commands.js';
import { component } from '../component.js';
import { readAll } from '../database.js';
import { contentsOf } from './contents.js';
import { copiesOf } from './neighbours.js';
import { resyncOf } from './resync.js';
import { validationOf } from './validation.js';

/**
 * The actions that a POST may request, and what they record.
 * @type {Record<string, (ids: string[], user: string | null, options: {from: string | null,
 *   withContents: boolean}) => Promise<void>>}
 */
const ACTIONS = {
	start: (ids, user) => recordWishes(ids, 'started', user),
	stop: (ids, user) => recordWishes(ids, 'stopped', user),
	validate: (ids, user, { withContents }) => recordValidations(ids, user, { withContents }),
	repair: (ids, user, { withContents }) => recordValidations(ids, user, { withContents, atFirstSight: true }),
	resync: (ids, user, { from }) => recordResyncs(ids, user, from),
};

/** The actions that may be about contents. */
const VALIDATIONS = ['validate', 'repair'];

/** Stands for all tables, where a table must be named. */
const ALL = '*';

/** A time as RFC 3339 has it. */
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

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

/** Creates the resource class. Harper's global Resource does not exist before Harper loads the component. */
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

		/** Harper passes a body that it cannot parse as a rejected promise, and would answer 500. */
		static post(target, data, request) {
			const given = typeof data?.then === 'function' ? data.then(undefined, () => UNREADABLE) : data;
			return super.post(target, given, request);
		}

		async post(data) {
			return command(await data, this.getContext?.()?.user?.username);
		}
	};
}

/** The status of the cluster: every table, and every worker of every node that answers. */
async function report() {
	const own = component();
	const [workers, wishes, checkpoints, checks, contents, sweeps, copies] = await Promise.all([
		own.workers(),
		readAll('SyncControlState'),
		readAll('SyncCheckpoint'),
		readAll('SyncCheck'),
		readAll('SyncContents'),
		readAll('SyncSweep'),
		readAll('SyncCopy'),
	]);
	const nodes = own.nodes();
	const isBroken = nodes.some(({ alive, unheardBy }) => !alive || unheardBy.length > 0);
	const unconnected = isBroken ? await unconnectedDatabases() : new Map();
	const wished = new Map(wishes.map((wish) => [wish.id, wish]));
	workers.sort((one, other) => (one.id < other.id ? -1 : 1));
	const all = workers
		.filter((worker) => isAlive(worker, nodes))
		.flatMap((worker) => worker.tables.map((table) => ({ ...table, worker: worker.id })));
	const running = all.filter(({ state }) => state !== 'standby');
	const resyncs = new Map(
		own.tables.map(({ id }) => {
			const ofTable = (rows) => rows.filter(({ tableId }) => tableId === id);
			const readers = all.filter((table) => table.id === id);
			return [id, resyncOf(wished.get(id)?.resync, ofTable(checkpoints), ofTable(sweeps), readers)];
		})
	);
	return {
		version: own.version,
		node: own.node,
		configurationErrors: own.problems,
		alarms: [...own.alarms(), ...refusals(resyncs)],
		nodes: nodes.map((node) => ({ ...node, unconnectedDatabases: unconnected.get(node.node) ?? [] })),
		tables: own.tables.map((table) => {
			const wanted = desired(table, wished.get(table.id));
			return {
				id: table.id,
				target: table.targetTable,
				desired: wanted,
				unread: wanted === 'started' ? own.unread(table.id) : null,
				indexes: indexesOf(all.filter(({ id }) => id === table.id)),
				validation: validationOf(
					checks.filter(({ tableId }) => tableId === table.id),
					running.filter(({ id }) => id === table.id),
					wished.get(table.id)?.validations ?? 0
				),
				contents: contentsOf(
					contents.filter(({ tableId }) => tableId === table.id),
					running.filter(({ id }) => id === table.id),
					wished.get(table.id)?.contents ?? 0
				),
				resync: resyncs.get(table.id),
				copies: copiesOf(
					copies.filter(({ tableId }) => tableId === table.id),
					[own.node, ...nodes.map(({ node }) => node)]
				),
				...together(
					running.filter(({ id }) => id === table.id),
					checkpoints.filter(({ tableId }) => tableId === table.id)
				),
			};
		}),
		workers: workers.map((worker) => {
			const { id, node, index, version, updatedAt, problems } = worker;
			return { id, node, index, version, alive: isAlive(worker, nodes), updatedAt, problems };
		}),
	};
}

/** What operators have to look at, because nothing was removed. @param {Map<string, any>} resyncs */
function refusals(resyncs) {
	const refused = [...resyncs].filter(([, resync]) => resync?.state === 'refused');
	return refused.map(([id, { text, endedAt }]) => ({ message: `${id}: ${text}`, since: endedAt }));
}

/** How the indexes of a target are: on each node, those of the node that is furthest behind. */
function indexesOf(workers) {
	const states = workers.map(({ indexes }) => indexes);
	return ['building', 'after_backfill', 'ready'].find((state) => states.includes(state)) ?? null;
}

/** The status of a whole table: the watermark of the worker that is furthest behind, and the rows of all workers. */
function together(all, checkpoints) {
	// A worker that owns nothing of a table counts only if it has an error, or if no worker owns anything.
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
 * Whether a worker runs, as far as is known. A node that runs fewer threads than before, or has left the cluster,
 * leaves statuses of former workers behind.
 */
function isAlive({ node, index }, nodes) {
	const known = nodes.find((one) => one.node === node);
	return known === undefined ? node === component().node : known.alive && index < known.workers;
}

async function command(data, user) {
	if (data === UNREADABLE) return answer(400, { error: 'the body cannot be parsed', allowed: Object.keys(ACTIONS) });
	const { action, table, from, contents } = data ?? {};
	if (typeof action !== 'string' || !Object.hasOwn(ACTIONS, action)) {
		return refusal('action', action, Object.keys(ACTIONS));
	}
	const own = component();
	if (own.problems.length > 0) {
		return answer(409, { error: 'the configuration has errors: correct it first', configurationErrors: own.problems });
	}
	const ids = own.tables.map(({ id }) => id);
	const mustName = action === 'resync';
	const isAll = mustName ? table === ALL : table === undefined;
	if (!isAll && !ids.includes(table)) return refusal('table', table, mustName ? [...ids, ALL] : ids);
	const wanted = isAll ? ids : [table];
	const time = timeOf(from);
	if (from !== undefined && (time === null || action !== 'resync')) {
		const error = 'from is for the action resync alone, and is a time like 2026-01-31T00:00:00Z that has passed';
		return answer(400, { error, allowed: ['2026-01-31T00:00:00Z'] });
	}
	if (contents !== undefined && (typeof contents !== 'boolean' || !VALIDATIONS.includes(action))) {
		const error = `contents is for the actions ${VALIDATIONS.join(' and ')} alone, and is true or false`;
		return answer(400, { error, allowed: [true, false] });
	}
	await ACTIONS[action](wanted, user ?? null, { from: time, withContents: contents === true });
	await own.follow();
	return { action, tables: wanted };
}

/** Returns a time of the past in UTC; null if it is none. @param {unknown} from */
function timeOf(from) {
	const at = typeof from === 'string' && TIME.test(from) ? Date.parse(from) : NaN;
	return at <= Date.now() ? new Date(at).toISOString() : null;
}

function refusal(what, found, allowed) {
	const shown =
		typeof found === 'string' ? `"${found.slice(0, 60)}"` : found === undefined ? 'missing' : `a ${typeof found}`;
	return answer(400, { error: `${what} is ${shown}, allowed is ${allowed.join(', ')}`, allowed });
}

function answer(status, body) {
	return { status, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
}
