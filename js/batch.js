/** Turns a batch's buffers into records. */

/**
 * @typedef {{columns: {name: string, carrier: 'number' | 'text'}[], newerBy: string | null}} Layout
 * @typedef {{column: number, row: number, path: (string | number)[], value: {bigint?: string, float?: string}}} Patch
 * @typedef {{rows: number, text: string, numbers: Float64Array, nulls: Uint32Array, patches: Patch[]}} Batch
 */

/**
 * Builds the records of a batch.
 * @param {Layout} layout
 * @param {Batch} batch
 * @param {string} syncedAt
 * @returns {Record<string, any>[]}
 */
export function assembleRecords(layout, batch, syncedAt) {
	const [ids, ...texts] = JSON.parse(batch.text);
	const records = ids.map((/** @type {string} */ id) => ({ id }));
	let nextNumber = 0;
	let nextText = 0;
	for (const { name, carrier } of layout.columns) {
		const values =
			carrier === 'number' ? batch.numbers.subarray(nextNumber, (nextNumber += batch.rows)) : texts[nextText++];
		setColumn(records, name, values);
	}
	for (let at = 0; at < batch.nulls.length; at += 2) {
		setOwn(records[batch.nulls[at + 1]], layout.columns[batch.nulls[at]].name, null);
	}
	for (const patch of batch.patches) applyPatch(records[patch.row], layout.columns[patch.column].name, patch);
	for (const record of records) record._syncedAt = syncedAt;
	return records;
}

/** Column after column is faster than record after record. */
function setColumn(records, name, values) {
	if (name === '__proto__') {
		records.forEach((record, row) => setOwn(record, name, values[row]));
		return;
	}
	for (let row = 0; row < records.length; row++) records[row][name] = values[row];
}

/** Sets a property of the record itself, even if its name is that of the prototype. */
function setOwn(object, name, value) {
	if (name !== '__proto__') object[name] = value;
	else Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
}

function applyPatch(record, column, { path, value }) {
	const steps = [column, ...path];
	const last = steps.pop();
	let place = record;
	for (const step of steps) place = Object.getOwnPropertyDescriptor(place, step)?.value;
	setOwn(place, last, value.bigint === undefined ? Number(value.float) : BigInt(value.bigint));
}
