/** Checks the sources' columns for changes, on one node at a time. The core decides which node and when. */

import { HostFailure } from '../../bigquery.js';
import { Changes } from '../changes.js';
import { findTable, readRecord, withoutValues } from '../database.js';
import { KeptRecords } from '../kept-records.js';
import { regularly } from '../pulse.js';
import { replace } from '../stamps.js';
import { adoptVersion, newestVersion } from './versions.js';

/** How often a node asks whether it is its turn. */
const LOOK_MS = 1_000;

export class SchemaWatch {
	#stopped = new AbortController();
	#stopLooking = () => {};
	#isLooking = false;
	#changes = new Changes();
	#storedLocks = new KeptRecords('SchemaLock');
	/** The locks as they were read last, by the tables' ids. @type {Map<string, any>} */
	#locks = new Map();
	/** The tables whose last check failed. This is logged once. @type {Set<string>} */
	#failing = new Set();

	/**
	 * @param {object} options
	 * @param {any} options.configuration
	 * @param {import('../../bigquery.js').BigQueryConnection} options.connection
	 * @param {{id: string, targetTable: string}[]} options.tables
	 * @param {string} options.node
	 * @param {string} options.name The worker's name.
	 * @param {() => {node: string, alive: boolean}[]} options.nodes
	 * @param {{dead: boolean}} options.instance The instance of the core that the configuration belongs to.
	 */
	constructor({ configuration, connection, tables, node, name, nodes, instance }) {
		this.configuration = configuration;
		this.connection = connection;
		this.tables = tables;
		this.node = node;
		this.name = name;
		this.nodes = nodes;
		this.instance = instance;
	}

	start() {
		this.#stopLooking = regularly(() => this.#lookAtAll(), LOOK_MS);
	}

	stop() {
		this.#stopLooking();
		this.#stopped.abort();
	}

	/**
	 * Compares a table's source with what is stored, and tells what will be done.
	 * @param {string} id
	 * @throws {HostFailure}
	 */
	async report(id) {
		const { targetTable } = this.tables.find((table) => table.id === id) ?? { targetTable: '' };
		const [body, version] = await Promise.all([this.#describe(id), newestVersion(id)]);
		const attributes = findTable(targetTable)?.attributes;
		const declared = attributes?.map(({ name, indexed }) => ({ name, indexed: Boolean(indexed) }));
		const lock = await readRecord('SchemaLock', id);
		return { ...this.configuration.schemaReport(id, body, version, declared ?? null), lock };
	}

	/** @param {string} id @returns {Promise<Uint8Array>} */
	async #describe(id) {
		const answer = await this.connection.send(this.configuration.describeRequest(id), this.#stopped.signal);
		if (answer.status !== 200) {
			throw new HostFailure('unavailable', `BigQuery did not describe the table: status ${answer.status}`);
		}
		return answer.body;
	}

	async #lookAtAll() {
		if (this.#isLooking) return;
		this.#isLooking = true;
		const ids = this.tables.map(({ id }) => id);
		await this.#attempt(ids, () => this.#changes.look(() => this.#readLocks()));
		const names = this.#isOver() ? [] : this.#aliveNodes();
		for (const id of ids) {
			if (this.#isOver()) break;
			await this.#attempt([id], () => this.#look(id, names));
		}
		this.#isLooking = false;
	}

	/** Logs the first of several failures in a row. @param {string[]} ids The tables. @param {() => Promise<void>} action */
	async #attempt(ids, action) {
		try {
			await action();
			for (const id of ids) this.#failing.delete(id);
		} catch (error) {
			for (const id of ids) {
				if (!this.#failing.has(id) && !this.#stopped.signal.aborted) {
					logger.warn?.(
						`bigquery-sync: ${id}: its columns were not looked at: ${withoutValues(error.message ?? error)}`
					);
				}
				this.#failing.add(id);
			}
		}
	}

	#isOver() {
		return this.#stopped.signal.aborted || this.instance.dead;
	}

	#aliveNodes() {
		const alive = this.nodes().filter((one) => one.alive);
		return [this.node, ...alive.map(({ node }) => node)];
	}

	async #readLocks() {
		this.#locks = new Map((await this.#storedLocks.read()).map((lock) => [lock.id, lock]));
	}

	/** @param {string} id @param {string[]} names Of the nodes that are alive. */
	async #look(id, names) {
		const turnOf = (known) => this.configuration.schemaTurn(id, this.node, known, names);
		if (turnOf(this.#locks.get(id) ?? null).turn === 'rest') return;
		// Before it does anything, it reads the lock as it is now.
		const lock = await readRecord('SchemaLock', id);
		if (this.#isOver()) return;
		const { turn, lock: claim } = turnOf(lock);
		if (turn === 'claim') await replace('SchemaLock', claim);
		if (turn !== 'check') return;
		let fingerprint;
		try {
			fingerprint = await this.#check(id);
		} finally {
			await replace('SchemaLock', this.configuration.schemaChecked(id, lock, fingerprint));
		}
	}

	/** Stores a version if the columns have changed, and returns the newest version's fingerprint. @param {string} id */
	async #check(id) {
		const [body, version] = await Promise.all([this.#describe(id), newestVersion(id)]);
		const adoption = this.configuration.schemaAdoption(id, body, version, this.name);
		if (adoption === null) return version?.fingerprint;
		await adoptVersion(adoption.version, adoption.notes, this.node);
		return adoption.version.fingerprint;
	}
}
