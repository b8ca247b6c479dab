/** Turns a batch's buffers into records. */

/**
 * @typedef {'number' | 'date' | 'text' | 'bigint' | 'bytes'} Carrier
 * @typedef {{idType: 'text' | 'integer', columns: {name: string, carrier: Carrier, since: number}[],
 *   newerBy: string | null, retired: string[], era: number}} Layout
 * @typedef {{column: number, row: number, path: (string | number)[], value: {bigint?: string, float?: string}}} Patch
 * @typedef {{rows: number, text: string, numbers: Float64Array, nulls: Uint32Array, patches: Patch[]}} Batch
 */

/** Converts the values of carriers that need it. Other carriers hold the values themselves. */
const CONVERSIONS = {
	date: (milliseconds) => new Date(milliseconds),
	bigint: (digits) => (typeof digits === 'string' ? BigInt(digits) : digits),
	bytes: (base64) => (base64 === null ? null : Buffer.from(base64, 'base64')),
};

/**
 * Builds the records of a batch.
 * @param {Layout} layout
 * @param {Batch} batch
 * @param {string} syncedAt
 * @returns {Record<string, any>[]}
 */
export function assembleRecords(layout, batch, syncedAt) {
	if (batch.rows === 0) return [];
	const [ids, ...texts] = JSON.parse(batch.text);
	const records = copies(layout, syncedAt, ids);
	let nextNumber = 0;
	let nextText = 0;
	for (const { name, carrier } of layout.columns) {
		const isNumeric = carrier === 'number' || carrier === 'date';
		const values = isNumeric ? batch.numbers.subarray(nextNumber, (nextNumber += batch.rows)) : texts[nextText++];
		const convert = CONVERSIONS[carrier];
		setColumn(records, name, convert === undefined ? values : Array.from(values, convert));
	}
	for (let at = 0; at < batch.nulls.length; at += 2) {
		records[batch.nulls[at + 1]][layout.columns[batch.nulls[at]].name] = null;
	}
	for (const patch of batch.patches) applyPatch(records[patch.row], layout.columns[patch.column].name, patch);
	return records;
}

/** Makes a record for each id. Copies of one record with all attributes are faster than records that grow. */
function copies({ columns }, syncedAt, ids) {
	/** @type {Record<string, any>} */
	const template = { id: null };
	for (const { name } of columns) template[name] = null;
	template._syncedAt = syncedAt;
	return ids.map((/** @type {string | number} */ id) => {
		const record = { ...template };
		record.id = id;
		return record;
	});
}

/** Column after column is faster than record after record. */
function setColumn(records, name, values) {
	for (let row = 0; row < records.length; row++) records[row][name] = values[row];
}

function applyPatch(record, column, { path, value }) {
	const steps = [column, ...path];
	const last = steps.pop();
	let place = record;
	for (const step of steps) place = place[step];
	place[last] = value.bigint === undefined ? Number(value.float) : BigInt(value.bigint);
}
