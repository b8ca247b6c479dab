/**
 * How the proxy changes the emulator's answers into what the service would say.
 */

import { setTimeout as sleep } from 'node:timers/promises';

const SLOW_CHUNKS_PER_SECOND = 10;
const BLANKS_BYTES = 1 << 20;
/** The rows are the last member of an answer; everything that is rewritten stands before them. */
const ROWS = Buffer.from('"rows"');

/**
 * Puts bytes processed and billed into an answer, without parsing its rows.
 * @param {Buffer} body
 * @param {(jobId: string | undefined) => {processed: number, billed: number} | undefined} billOf
 */
export function emulatedBytes(body, billOf) {
	const rows = body.indexOf(ROWS);
	const cut = rows < 0 ? body.length : rows;
	const head = body.subarray(0, cut).toString();
	const jobId = /"jobReference"\s*:\s*\{[^}]*"jobId"\s*:\s*"([^"]+)"/.exec(head)?.[1];
	const bill = billOf(jobId);
	if (!bill) return body;
	const changed = head
		.replace(/("totalBytesProcessed"\s*:\s*)"\d+"/g, `$1"${bill.processed}"`)
		.replace(/("totalBytesBilled"\s*:\s*)"\d+"/g, `$1"${bill.billed}"`);
	return Buffer.concat([Buffer.from(changed), body.subarray(cut)]);
}

/**
 * Remembers when each table's contents changed, which the emulator does not.
 *
 * A change is noticed at the first tables.get after it (every row goes into the fingerprint, so none is missed, also
 * when it was made past the proxy); the time given is that of the noticing. Of two changes that undo each other
 * between two looks nothing is seen.
 */
export class Modifications {
	/** @type {Map<string, {fingerprint: string, modified: string}>} */
	#seen = new Map();

	/**
	 * @param {import('./billing.mjs').Billing} billing
	 * @param {() => number} now
	 */
	constructor(billing, now) {
		this.billing = billing;
		this.now = now;
	}

	/**
	 * @param {import('./billing.mjs').TableName} name
	 * @param {any} resource The table resource, changed in place.
	 */
	async apply(name, resource) {
		if (resource.type !== undefined && resource.type !== 'TABLE') return;
		const key = `${name.dataset}.${name.table}`;
		const { rows, fingerprint, columnBytes } = await this.billing.statistics(name);
		const structure = JSON.stringify([resource.schema, resource.etag]);
		const current = `${fingerprint}-${structure}`;
		const before = this.#seen.get(key);
		if (before?.fingerprint !== current) {
			const modified = before ? `${Math.max(this.now(), Number(before.modified) + 1)}` : resource.lastModifiedTime;
			this.#seen.set(key, { fingerprint: current, modified });
		}
		const { modified } = /** @type {{modified: string}} */ (this.#seen.get(key));
		const rowBytes = [...columnBytes.values()].reduce((sum, size) => sum + size, 0);
		const numBytes = `${Math.round(rows * rowBytes)}`;
		const etag = Buffer.from(`${modified}/${fingerprint}`).toString('base64');
		Object.assign(resource, { lastModifiedTime: modified, etag, numRows: `${rows}`, numBytes });
	}
}

/** @param {Buffer} bytes */
export function* endless(bytes) {
	yield bytes;
	const blanks = Buffer.alloc(BLANKS_BYTES, ' ');
	for (;;) yield blanks;
}

/**
 * @param {Buffer} bytes
 * @param {number} bytesPerSecond
 */
export async function* throttled(bytes, bytesPerSecond) {
	const size = Math.ceil(bytesPerSecond / SLOW_CHUNKS_PER_SECOND);
	for (let at = 0; at < bytes.length; at += size) {
		yield bytes.subarray(at, at + size);
		await sleep(1000 / SLOW_CHUNKS_PER_SECOND);
	}
}
