/**
 * Records of the table SyncBatch, by which other nodes know which commits there are.
 *
 * The first record of each transaction is the head, which names the worker's last commit. The first record's table
 * decides how Harper applies the whole transaction on each node, so it must be a table that all threads know from
 * their start. Then comes the opening of the commit, and its witness follows the rows. A node may lose the first part of
 * a transaction, so it has the rows if it has both.
 */

import { findTable, localTimeOf, readRecord } from '../database.js';
import { KeptById } from '../kept-records.js';

/**
 * So many witnesses of a worker's commits of a table are kept for a short time, and so many for a long time. The core says
 * which place a witness gets, and relies on these numbers.
 */
const WITNESSES = 256;
const WITNESSES_KEPT_LONG = 16_384;

/**
 * @typedef {{tableId: string, owner: string, number: number, place: number} & Record<string, unknown>} Commit As the core describes it.
 * @typedef {{tableId: string, owner: string, node: string}} Writer
 */

const heads = new KeptById('SyncBatch');
const proofs = new KeptById('SyncProof');

/**
 * When this thread began. What arrived before may be there in parts: Harper that ends itself in the middle of a
 * transaction of another node keeps some of its records, in any order.
 */
const BEGAN_MS = Date.now();

/** The start of the process. Its threads do not reckon it alike, but closely. */
const PROCESS_BEGAN_MS = Math.round(Date.now() - process.uptime() * 1_000);
const SAME_PROCESS_MS = 1_000;

/** @param {string} tableId @param {string} owner */
const headId = (tableId, owner) => `${tableId}:${owner}`;

/** @param {string} tableId @param {string} owner @param {number} place */
const witnessId = (tableId, owner, place) => `${headId(tableId, owner)}:${place}`;

/** @param {string} tableId @param {string} owner @param {number} place */
const openingId = (tableId, owner, place) => `${witnessId(tableId, owner, place)}:opening`;

/** The places where the witness of a commit may be. @param {number} number */
const places = (number) => [number % WITNESSES, WITNESSES + (number % WITNESSES_KEPT_LONG)];

/** @param {string} tableId @param {string} owner @param {string} node The node that keeps it. */
const proofId = (tableId, owner, node) => `${headId(tableId, owner)}@${node}`;

/**
 * Begins a transaction.
 * @param {Writer} writer
 * @param {Commit | null} head The worker's last commit, this one included.
 * @param {object} context
 */
export function putHead({ tableId, owner }, head, context) {
	const id = head === null ? `${headId(tableId, owner)}:begun` : headId(tableId, owner);
	databases.data.SyncBatch.put({ ...head, id, tableId, owner }, context);
}

/**
 * Puts what comes before the rows of a commit.
 * @param {Commit} witness
 * @param {object} context
 */
export function putOpening({ tableId, owner, number, place, stamp }, context) {
	const id = openingId(tableId, owner, place);
	databases.data.SyncBatch.put({ id, tableId, owner, number, place, stamp }, context);
}

/** @param {Commit} witness @param {object} context */
export function putWitness(witness, context) {
	const id = witnessId(witness.tableId, witness.owner, witness.place);
	findTable('SyncBatch').put({ ...witness, id, opened: true }, context);
}

/**
 * Notes that a node misses none of a worker's commits up to this one.
 * @param {Commit} proof
 * @param {string} node
 * @param {object} context
 */
export function putProof(proof, node, context) {
	const id = proofId(proof.tableId, proof.owner, node);
	return findTable('SyncProof').put({ ...proof, id }, context);
}

/**
 * Reads the head of a worker: its last commit.
 * @param {string} tableId
 * @param {string} owner
 * @returns {Promise<any>}
 */
export function readHead(tableId, owner) {
	return heads.read(headId(tableId, owner));
}

/**
 * Reads what is known of a worker's last commit: its head or, where the first part of the last transactions got lost, its
 * last witness.
 * @param {string} tableId
 * @param {string} owner
 * @returns {Promise<any>}
 */
export async function readToldCommit(tableId, owner) {
	for (let told = await readHead(tableId, owner); ;) {
		const next = await readWitness(tableId, owner, (told?.number ?? 0) + 1);
		if (next === null) return told;
		told = next;
	}
}

/**
 * Reads the witness of a commit; null if it does not exist.
 * @param {string} tableId
 * @param {string} owner
 * @param {number} number
 * @returns {Promise<any>}
 */
async function readWitness(tableId, owner, number) {
	for (const place of places(number)) {
		const witness = await readRecord('SyncBatch', witnessId(tableId, owner, place));
		if (witness?.number === number) return witness;
	}
	return null;
}

/**
 * Reads the witness of a commit of another node; null if the commit has not arrived as a whole. Tells whether it had
 * arrived before this thread began.
 * @param {string} tableId
 * @param {string} owner
 * @param {number} number
 * @returns {Promise<any>}
 */
export async function readArrived(tableId, owner, number) {
	const witness = await readWitness(tableId, owner, number);
	if (witness === null) return null;
	if (witness.opened) {
		const opening = await readRecord('SyncBatch', openingId(tableId, owner, witness.place));
		if (opening?.number !== number || opening.stamp !== witness.stamp) return null;
	}
	const arrivedAt = localTimeOf('SyncBatch', witnessId(tableId, owner, witness.place));
	return { ...witness, isFormer: arrivedAt !== undefined && arrivedAt < BEGAN_MS };
}

/** @param {string} tableId @param {string} owner @param {string} node @returns {Promise<any>} */
export function readProof(tableId, owner, node) {
	return proofs.read(proofId(tableId, owner, node));
}

/**
 * Whether a node had run a table before Harper started. Notes that it has.
 * @param {string} tableId
 * @param {string} node
 */
export async function hasFormerLife(tableId, node) {
	const id = `${tableId}@${node}`;
	const known = await proofs.read(id);
	if (known === null) await findTable('SyncProof').put({ id, tableId, began: PROCESS_BEGAN_MS });
	return known !== null && Math.abs(known.began - PROCESS_BEGAN_MS) > SAME_PROCESS_MS;
}

/** The last commits that were read, with their heads. @type {Map<string, {head: any, witness: any}>} */
const lastCommits = new Map();

/**
 * Reads a worker's last commit. A transaction that was cut short has a head, but no witness. It counts nevertheless: the
 * worker may find its rows stored and not write them again, so other nodes have to miss it.
 * @param {string} tableId
 * @param {string} owner
 */
export async function readLastCommit(tableId, owner) {
	const head = await readHead(tableId, owner);
	if (!head?.number) return null;
	const id = headId(tableId, owner);
	const known = lastCommits.get(id);
	if (known && known.head === head) return known.witness;
	const witness = await readWitness(tableId, owner, head.number);
	if (witness === null) return head;
	lastCommits.set(id, { head, witness });
	return witness;
}
