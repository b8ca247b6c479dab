/**
 * Records of the table SyncBatch, by which other nodes know which commits there are.
 *
 * The first record of each transaction is the head, which names the worker's last commit. The first record's table
 * decides how Harper applies the whole transaction on each node, so it must be a table that all threads know from
 * their start. The commit's witness follows the rows: a node that has the witness has the rows.
 */

import { findTable, readRecord } from '../database.js';
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
const proofs = new KeptById('SyncBatch');

/** @param {string} tableId @param {string} owner */
const headId = (tableId, owner) => `${tableId}:${owner}`;

/** @param {string} tableId @param {string} owner @param {number} place */
const witnessId = (tableId, owner, place) => `${headId(tableId, owner)}:${place}`;

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

/** @param {Commit} witness @param {object} context */
export function putWitness(witness, context) {
	const id = witnessId(witness.tableId, witness.owner, witness.place);
	findTable('SyncBatch').put({ ...witness, id }, context);
}

/**
 * Notes that a node misses none of a worker's commits up to this one.
 * @param {Commit} proof
 * @param {string} node
 * @param {object} context
 */
export function putProof(proof, node, context) {
	const id = proofId(proof.tableId, proof.owner, node);
	return findTable('SyncBatch').put({ ...proof, id }, context);
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
 * Reads the witness of a commit; null if it does not exist.
 * @param {string} tableId
 * @param {string} owner
 * @param {number} number
 * @returns {Promise<any>}
 */
export async function readWitness(tableId, owner, number) {
	for (const place of places(number)) {
		const witness = await readRecord('SyncBatch', witnessId(tableId, owner, place));
		if (witness?.number === number) return witness;
	}
	return null;
}

/** @param {string} tableId @param {string} owner @param {string} node @returns {Promise<any>} */
export function readProof(tableId, owner, node) {
	return proofs.read(proofId(tableId, owner, node));
}

/**
 * Reads a worker's last commit that was completed. A transaction that was cut short has a head, but no witness.
 * @param {string} tableId
 * @param {string} owner
 */
export async function readLastCommit(tableId, owner) {
	const head = await readHead(tableId, owner);
	if (head === null) return null;
	return (await readWitness(tableId, owner, head.number)) ?? readWitness(tableId, owner, head.number - 1);
}
