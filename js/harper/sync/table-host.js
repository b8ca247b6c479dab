/** Executes the core's commands for one table. Failures are returned as values; no promise is rejected. */

import { HostFailure } from '../../bigquery.js';
import { readWorkers } from '../cluster/workers.js';
import { findTable, withoutValues } from '../database.js';
import { KeptById, KeptRecords, keptCheckpoints } from '../kept-records.js';
import { adoptVersion, hasNewerEra, newestVersion } from '../schema/versions.js';
import { ensureTarget, readIncarnation } from '../schema/target.js';
import { replace } from '../stamps.js';
import { commit } from './commit.js';
import { hasFormerLife, readHead, readLastCommit, readProof } from './witnesses.js';

const sharedCounts = new KeptById('SyncCounts');
const states = new KeptById('SyncControlState');
const leaves = new KeptById('SyncLeaves');
const contents = new KeptById('SyncContents');

/** The same each time, so that what is loaded is the same. @type {never[]} */
const NONE = [];

/** Sorts before all ids of rows without a key. */
const FIRST_ID = '-';

export class TableHost {
	#stopping = new AbortController();
	/** @type {any} */
	#table;
	/** @type {any} */
	#layout;
	/** @type {import('../kept-records.js').KeptRecords} */
	#checkpoints;
	/** The newest version of the schema that the core knows. @type {any} */
	#schema = null;
	/** What was loaded last. @type {Record<string, any> | undefined} */
	#loaded;
	#checks = new KeptRecords('SyncCheck');
	/** The checks that were read last, and what was found in them. @type {any[]} */
	#checked = [];
	/** @type {{node: string, since: string}[]} */
	#extras = NONE;
	/** What was loaded for the validation. @type {Record<string, any> | undefined} */
	#validation;

	/**
	 * @param {object} options
	 * @param {{id: string, targetTable: string, pollIntervalMs: number, isValidated: boolean,
	 *   isMirrored: boolean}} options.table
	 * @param {{node: string, index: number}} options.worker
	 * @param {import('../../bigquery.js').BigQueryConnection} options.connection
	 * @param {import('./descriptions.js').Descriptions} options.descriptions
	 * @param {(name: string) => void} options.onTarget Called when the target table is there, or another one in its place.
	 * @param {(name: string) => void} options.onIndexes Called when the target need not wait for its indexes.
	 * @param {{dead: boolean}} options.instance The instance of the core, which several tables share.
	 * @param {() => void} options.onStep Called whenever the core has decided something.
	 * @param {(error: unknown) => void} options.onDeath Called when this table's step killed it.
	 */
	constructor({ table, worker, connection, descriptions, onTarget, onIndexes, instance, onStep, onDeath }) {
		this.table = table;
		this.#checkpoints = keptCheckpoints(table.id);
		this.writer = { tableId: table.id, owner: `${worker.node}-${worker.index}`, node: worker.node };
		this.connection = connection;
		this.descriptions = descriptions;
		this.onTarget = onTarget;
		this.onIndexes = onIndexes;
		this.instance = instance;
		this.onStep = onStep;
		this.onDeath = onDeath;
	}

	/**
	 * Runs a table's sync. Ends when the sync is stopped or cannot continue, or when its instance of the core is dead.
	 * @param {any} sync
	 */
	run(sync) {
		this.sync = sync;
		return sync.run(this);
	}

	/** A panic of the core arrives here as an exception, which would otherwise end the worker. */
	guard() {
		this.onStep();
		return this.#enter(() => this.sync.step());
	}

	/** @param {() => void} entry */
	#enter(entry) {
		if (this.instance.dead || this.sync === undefined) return false;
		try {
			entry();
			return true;
		} catch (error) {
			this.instance.dead = true;
			this.onDeath(error);
			return false;
		}
	}

	/**
	 * Asks the core for an answer, and fails when it is dead.
	 * @template T
	 * @param {() => T} question
	 * @returns {T}
	 */
	#ask(question) {
		/** @type {T | undefined} */
		let answer;
		const isAlive = this.#enter(() => {
			answer = question();
		});
		if (!isAlive) throw new Error('the core has failed');
		return /** @type {T} */ (answer);
	}

	/** Releases the core, because others may keep this host for longer. */
	leave() {
		this.sync = undefined;
	}

	/** Aborts all requests to BigQuery. */
	cancel() {
		this.#stopping.abort();
	}

	/** Returns the same object again while the records are the same: the driver then need not convert them. */
	load() {
		return asValue('harper_read', async () => {
			this.#schema = await newestVersion(this.table.id, this.#schema);
			const [progress, commits] = await Promise.all([this.#readProgress(), this.#readCommits()]);
			const loaded = { ...progress, ...commits, schema: this.#schema };
			if (!isSame(loaded, this.#loaded)) this.#loaded = loaded;
			return this.#loaded;
		});
	}

	/** Reads what is known of the table's progress. */
	async #readProgress() {
		const { id, targetTable } = this.table;
		const [checkpoints, counts, incarnation, wish] = await Promise.all([
			this.#checkpoints.read(),
			sharedCounts.read(id),
			readIncarnation(targetTable),
			states.read(id),
		]);
		const validation = await this.#readValidation(wish);
		return {
			checkpoints,
			counts,
			incarnation,
			forgivenRows: wish?.forgivenRows ?? 0,
			validation,
			resync: wish?.resync ?? null,
		};
	}

	/** @param {import('../commands.js').Wish | null} wish */
	async #readValidation(wish) {
		const { tableId, owner } = this.writer;
		const own = await leaves.read(`${tableId}:${owner}`);
		const compared = await contents.read(`${tableId}:${owner}`);
		const { billedDay = 0, billedOnDay = 0, asked: followed = 0, countedAt = null, bytesBilled = 0 } = own ?? {};
		const asked = wish?.validations ?? 0;
		const isWanted = this.table.isValidated || asked > followed;
		const firstId = isWanted ? this.#firstId() : null;
		const extras = this.table.isMirrored ? await this.#readExtras() : NONE;
		const comparison = { contentsAsked: wish?.contents ?? 0, contents: compared ?? null };
		const counted = { billedDay, billedOnDay, countedAt, bytesBilled };
		const validation = { asked, followed, ...counted, firstId, extras, ...comparison };
		if (!isSame(validation, this.#validation)) this.#validation = validation;
		return this.#validation;
	}

	/** Which nodes have rows that the source no longer has, as they found when they compared with this worker's list. */
	async #readExtras() {
		const { tableId, owner } = this.writer;
		const checks = await this.#checks.read();
		if (checks === this.#checked) return this.#extras;
		const own = checks.filter((check) => check.tableId === tableId && check.owner === owner && check.extraSince);
		this.#checked = checks;
		this.#extras = own.map(({ node, extraSince: since }) => ({ node, since }));
		return this.#extras;
	}

	/** The first text among the target's ids, which begins with the earliest cursor if rows have no key. */
	#firstId() {
		const store = findTable(this.table.targetTable)?.primaryStore;
		const [first] = store ? [...store.getKeys({ start: FIRST_ID, limit: 1 })] : [];
		return typeof first === 'string' ? first : null;
	}

	/** Reads this worker's last commit, the proofs for other nodes' workers, the heads of all workers, and who is gone. */
	async #readCommits() {
		const { tableId, owner, node } = this.writer;
		const workers = await readWorkers();
		const others = workers.filter((worker) => worker.node !== node);
		const proofs = await Promise.all(others.map(({ name }) => readProof(tableId, name, node)));
		const heads = await Promise.all(workers.map(({ name }) => readHead(tableId, name)));
		return {
			lastCommit: await readLastCommit(tableId, owner),
			proofs: proofs.filter((proof) => proof !== null),
			hasFormerLife: await hasFormerLife(tableId, node),
			heads: heads.filter((head) => head !== null),
			removed: workers.filter(({ isRemoved }) => isRemoved).map(({ name }) => name),
		};
	}

	adoptSchema({ version, notes }) {
		return asValue('harper_write', async () => {
			await adoptVersion(version, notes, server.hostname ?? 'localhost');
			return {};
		});
	}

	ensureTarget(target, isFirst) {
		return asValue('harper_table', async () => {
			this.#layout = target;
			if (!target.doIndexesWait) this.onIndexes(this.table.targetTable);
			const { table, incarnation } = await ensureTarget(this.table.targetTable, target, isFirst, (found) =>
				this.#ask(() => this.sync.refusal(found))
			);
			if (table !== this.#table) this.onTarget(this.table.targetTable);
			this.#table = table;
			return { incarnation };
		});
	}

	shareCounts(counts) {
		return asValue('harper_write', async () => {
			await replace('SyncCounts', counts);
			return {};
		});
	}

	shareLeaves(counted) {
		return asValue('harper_write', async () => {
			await replace('SyncLeaves', counted);
			return {};
		});
	}

	shareContents(compared) {
		return asValue('harper_write', async () => {
			await replace('SyncContents', compared);
			return {};
		});
	}

	send(request) {
		const send = () => this.connection.send(request, this.#stopping.signal);
		if (request.purpose !== 'describeTable') return asValue('unreachable', send);
		const { pollIntervalMs } = this.table;
		const onChange = () => this.#enter(() => this.sync.wake());
		return asValue('unreachable', () => this.descriptions.describe(request, { pollIntervalMs, onChange, send }));
	}

	write(order) {
		const prepare = () => this.#enter(() => this.sync.prepare());
		return asValue('harper_write', async () => {
			if (order.rows > 0 && this.#layout.newerBy === null && (await hasNewerEra(this.#schema))) {
				throw new HostFailure('harper_write', 'the columns of the source have changed: the rows are read anew');
			}
			// Harper may give the place of a dropped table to another one.
			if (order.rows > 0 && findTable(this.table.targetTable) !== this.#table) {
				throw new HostFailure('harper_write', 'the target table was dropped: it is made again');
			}
			const core = {
				seekFormer: () => this.#ask(() => this.sync.seekFormer()),
				addStored: (rows) => this.#ask(() => this.sync.addStored(rows)),
				settle: (records) => this.#ask(() => this.sync.settle(records)),
			};
			const target = { table: this.#table, layout: this.#layout, writer: this.writer };
			return commit(target, order, { core, onWait: prepare });
		});
	}

	/**
	 * @param {any} _status
	 * @param {{level: 'info' | 'warn' | 'error', text: string}[]} news
	 */
	report(_status, news) {
		for (const { level, text } of news) logger[level]?.(`bigquery-sync: ${text}`);
	}
}

/**
 * Whether all members are the same values and the same objects, or lists of these.
 * @param {Record<string, any>} one
 * @param {Record<string, any> | undefined} other
 */
function isSame(one, other) {
	return Object.entries(one).every(([key, value]) => {
		const known = other?.[key];
		if (!Array.isArray(value) || value.length !== known?.length) return value === known;
		return value.every((element, index) => element === known[index]);
	});
}

/** Turns a failure into `{failure: {code, message}}`. */
async function asValue(fallbackCode, action) {
	try {
		return await action();
	} catch (error) {
		if (error instanceof HostFailure) return { failure: { code: error.code, message: error.message } };
		return { failure: { code: fallbackCode, message: withoutValues(error?.message ?? error) } };
	}
}
