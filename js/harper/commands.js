/** The operators' commands. They are stored in SyncControlState, and every worker of every node follows them. */

import { Changes } from './changes.js';
import { findTable, readAll, readRecord } from './database.js';
import { KeptRecords } from './kept-records.js';
import { regularly } from './pulse.js';
import { change, timeAfter } from './stamps.js';

/** How often a worker looks for commands that were given to other workers. */
const LOOK_MS = 500;

/**
 * @typedef {{id: string, desired?: 'started' | 'stopped', version?: number, validations?: number,
 *   repairs?: number, contents?: number, resync?: Resync | null}} Wish
 * @typedef {{number: number, given: string, from: string | null,
 *   goneBefore?: string | null}} Resync A command to read a table again.
 */

/**
 * Whether operators want a table to run.
 * @param {{autoStart: boolean}} table
 * @param {Wish | undefined} wish
 */
export function desired(table, wish) {
	return wish?.desired ?? (table.autoStart ? 'started' : 'stopped');
}

/**
 * Records a command for some tables.
 * @param {string[]} ids
 * @param {'started' | 'stopped'} wanted
 * @param {string | null} changedBy
 */
export async function recordWishes(ids, wanted, changedBy) {
	const states = findTable('SyncControlState');
	const before = await Promise.all(ids.map((id) => readRecord('SyncControlState', id)));
	const checkpoints = wanted === 'started' ? await readAll('SyncCheckpoint') : [];
	// A start forgives the rows that have been rejected so far; a stop forgives nothing.
	const forgiven = (id, state) =>
		wanted === 'started'
			? checkpoints.filter(({ tableId }) => tableId === id).reduce((sum, row) => sum + row.recordsRejected, 0)
			: (state?.forgivenRows ?? 0);
	const context = { timestamp: timeAfter(before) };
	const changedAt = new Date().toISOString();
	await transaction(context, () => {
		for (const [index, id] of ids.entries()) {
			const version = (before[index]?.version ?? 0) + 1;
			const forgivenRows = forgiven(id, before[index]);
			const state = { ...before[index], id, desired: wanted, version, forgivenRows, changedAt, changedBy };
			states.put({ ...state, stampMs: context.timestamp }, context);
		}
	});
}

/**
 * Records that operators want some tables to be validated.
 * @param {string[]} ids
 * @param {string | null} changedBy
 * @param {{atFirstSight?: boolean, withContents?: boolean}} [how] Whether a difference counts at first sight, and whether the
 *   values of all rows are compared as well.
 */
export async function recordValidations(ids, changedBy, { atFirstSight = false, withContents = false } = {}) {
	const before = await Promise.all(ids.map((id) => readRecord('SyncControlState', id)));
	const context = { timestamp: timeAfter(before) };
	const changedAt = new Date().toISOString();
	await transaction(context, () => {
		for (const [index, id] of ids.entries()) {
			const validations = (before[index]?.validations ?? 0) + 1;
			const repairs = atFirstSight ? validations : (before[index]?.repairs ?? 0);
			const contents = (before[index]?.contents ?? 0) + (withContents ? 1 : 0);
			const state = { ...before[index], id, validations, repairs, contents, changedAt, changedBy };
			findTable('SyncControlState').put({ ...state, stampMs: context.timestamp }, context);
		}
	});
}

/**
 * Records that operators want some tables to be read again. A table that gave up begins again with it.
 * @param {string[]} ids
 * @param {string | null} changedBy
 * @param {string | null} from Rows from this time on; null for all.
 */
export async function recordResyncs(ids, changedBy, from) {
	const before = await Promise.all(ids.map((id) => readRecord('SyncControlState', id)));
	const [checkpoints, sweeps] = await Promise.all([readAll('SyncCheckpoint'), readAll('SyncSweep')]);
	const context = { timestamp: timeAfter(before) };
	const given = new Date().toISOString();
	await transaction(context, () => {
		for (const [index, id] of ids.entries()) {
			const rows = checkpoints.filter(({ tableId }) => tableId === id);
			const commands = [before[index]?.resync, ...rows.map(({ reread }) => reread?.resync)].filter(Boolean);
			const last = commands.sort((one, other) => other.number - one.number)[0];
			const isOpen = last && !sweeps.some(({ tableId, number }) => tableId === id && number >= last.number);
			const numbers = sweeps.flatMap((sweep) => (sweep.tableId === id ? [sweep.number] : []));
			const number = Math.max(last?.number ?? 0, ...numbers) + 1;
			const resync = { number, given, from: isOpen ? earlier(last.from, from) : from };
			const version = (before[index]?.version ?? 0) + 1;
			const forgivenRows = rows.reduce((sum, row) => sum + row.recordsRejected, 0);
			const state = { ...before[index], id, version, resync, forgivenRows, changedAt: given, changedBy };
			findTable('SyncControlState').put({ ...state, stampMs: context.timestamp }, context);
		}
	});
}

/**
 * Records the command that has to follow upon another one, unless it is recorded already, or a later one.
 * @param {string} id
 * @param {Resync} resync
 */
export async function recordSequel(id, resync) {
	const before = await readRecord('SyncControlState', id);
	if ((before?.resync?.number ?? 0) >= resync.number) return;
	await change('SyncControlState', id, { resync });
}

/** One that is still being followed is not given up for a shorter one. @param {string | null} one @param {string | null} other */
function earlier(one, other) {
	if (one === null || other === null) return null;
	return Date.parse(one) < Date.parse(other) ? one : other;
}

/**
 * Notices commands by polling. With a subscription, Harper would decode each row again that is written into this
 * database.
 */
export class Commands {
	#known = '';
	#failing = false;
	#changes = new Changes();
	#states = new KeptRecords('SyncControlState');
	#stop = () => {};

	/** @param {() => void} onChange */
	constructor(onChange) {
		this.onChange = onChange;
	}

	/** Returns the recorded commands, by the tables' ids. @returns {Promise<Map<string, Wish>>} */
	async read() {
		const wishes = await this.#states.read();
		return new Map(wishes.map((wish) => [wish.id, wish]));
	}

	/** Looks for changes from now on. */
	watch() {
		this.#stop();
		this.#stop = regularly(() => this.#look(), LOOK_MS);
	}

	stop() {
		this.#stop();
	}

	async #look() {
		try {
			await this.#changes.look(() => this.#read());
			this.#failing = false;
		} catch (error) {
			if (!this.#failing) logger.error?.(`bigquery-sync: commands given on other workers are not noticed: ${error}`);
			this.#failing = true;
		}
	}

	async #read() {
		const wishes = JSON.stringify(await this.#states.read());
		if (wishes === this.#known) return;
		this.#known = wishes;
		this.onChange();
	}
}
