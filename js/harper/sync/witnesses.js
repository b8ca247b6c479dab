/**
 * What tells other nodes which transactions were made: records of the table SyncBatch.
 *
 * The first record of each transaction of rows tells of the worker's last commit. What is put first decides how all of a
 * transaction is applied, on each node, so it is a record of a table that all threads know from their start. Behind the
 * rows follows the commit's witness: who has it has the rows.
 */

import { findTable, readRecord } from '../database.js';

/** A worker's witnesses are replaced after so many commits of a table; the core counts on that. */
const WITNESSES = 256;

/**
 * @typedef {{tableId: string, owner: string, number: number} & Record<string, unknown>} Commit As the core tells it.
 * @typedef {{tableId: string, owner: string, node: string}} Writer
 */

/** @param {string} tableId @param {string} owner */
const headId = (tableId, owner) => `${tableId}:${owner}`;

/** @param {string} tableId @param {string} owner @param {number} number */
const witnessId = (tableId, owner, number) => `${headId(tableId, owner)}:${number % WITNESSES}`;

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
	const id = witnessId(witness.tableId, witness.owner, witness.number);
	findTable('SyncBatch').put({ ...witness, id }, context);
}

/**
 * Notes that of a worker's commits up to this one, none is missing on a node.
 * @param {Commit} proof
 * @param {string} node
 * @param {object} context
 */
export function putProof(proof, node, context) {
	const id = proofId(proof.tableId, proof.owner, node);
	return findTable('SyncBatch').put({ ...proof, id }, context);
}

/**
 * What a worker told of its last commit.
 * @param {string} tableId
 * @param {string} owner
 * @returns {Promise<any>}
 */
export function readHead(tableId, owner) {
	return readRecord('SyncBatch', headId(tableId, owner));
}

/**
 * The witness of a commit; null if it is not there.
 * @param {string} tableId
 * @param {string} owner
 * @param {number} number
 * @returns {Promise<any>}
 */
export async function readWitness(tableId, owner, number) {
	const witness = await readRecord('SyncBatch', witnessId(tableId, owner, number));
	return witness?.number === number ? witness : null;
}

/** @param {string} tableId @param {string} owner @param {string} node @returns {Promise<any>} */
export function readProof(tableId, owner, node) {
	return readRecord('SyncBatch', proofId(tableId, owner, node));
}

/**
 * A worker's own last commit that happened; a transaction that was cut short tells of it and has no witness.
 * @param {string} tableId
 * @param {string} owner
 */
export async function readLastCommit(tableId, owner) {
	const head = await readHead(tableId, owner);
	if (head === null) return null;
	return (await readWitness(tableId, owner, head.number)) ?? readWitness(tableId, owner, head.number - 1);
}
