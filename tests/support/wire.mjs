/** BigQuery's wire format, as answers of jobs.query and getQueryResults carry rows. */

/**
 * @param {any} value
 * @param {{type: string, mode?: string, fields?: any[]}} field
 * @returns {{v: any}}
 */
export function wireCell(value, field) {
	if (value === null || value === undefined) return { v: null };
	if (field.mode === 'REPEATED') return { v: value.map((element) => wireCell(element, { ...field, mode: undefined })) };
	if (field.fields) return { v: { f: field.fields.map((inner) => wireCell(value[inner.name], inner)) } };
	return { v: String(value) };
}

/**
 * One page of a result.
 *
 * @param {object} options
 * @param {any[]} options.fields
 * @param {Record<string, any>[]} options.rows
 * @param {number} [options.totalRows] Rows of the whole result.
 * @param {string} [options.jobId]
 */
export function wirePage({ fields, rows, totalRows = rows.length, jobId = 'job' }) {
	return {
		kind: 'bigquery#getQueryResultsResponse',
		schema: { fields },
		jobReference: { projectId: 'p', jobId, location: 'US' },
		totalRows: String(totalRows),
		rows: rows.map((row) => ({ f: fields.map((field) => wireCell(row[field.name], field)) })),
		totalBytesProcessed: '1000',
		jobComplete: true,
	};
}

/**
 * A host for the core that serves one result from memory and keeps what is written; `idle`
 * tells when the first window is in, or that none will be.
 */
export class MemoryHost {
	/** @type {any} */
	sync;
	/** @type {any[]} */
	orders = [];
	/** @type {any} */
	layout;
	/** @type {any} */
	schema = null;
	/** @type {any[]} */
	checkpoints = [];
	/** @type {any[]} */
	requests = [];
	/** @type {any[]} */
	reports = [];

	/**
	 * @param {object} options
	 * @param {any[]} options.fields
	 * @param {(offset: number, wanted: number) => Uint8Array} options.page The JSON text of a page.
	 */
	constructor({ fields, page }) {
		this.fields = fields;
		this.page = page;
		this.idle = new Promise((resolve) => {
			this.becameIdle = resolve;
		});
	}

	/** @param {any} sync */
	run(sync) {
		this.sync = sync;
		return sync.run(this);
	}

	guard() {
		this.sync.step();
		return true;
	}

	async load() {
		return { checkpoints: this.checkpoints, counts: null, incarnation: '', schema: this.schema };
	}

	async adoptSchema({ version }) {
		this.schema = version;
		return {};
	}

	async ensureTarget(layout) {
		this.layout = layout;
		return { incarnation: '' };
	}

	async send(request) {
		this.requests.push(request);
		return { status: 200, date: new Date().toUTCString(), retryAfter: null, body: this.#answer(request) };
	}

	#answer({ purpose, path, body }) {
		if (purpose === 'describeTable') {
			const size = { numRows: '1000', numBytes: '8000' };
			return new TextEncoder().encode(JSON.stringify({ schema: { fields: this.fields }, ...size }));
		}
		if (purpose === 'startQuery') return this.page(0, JSON.parse(body).maxResults);
		const query = new URL(path, 'http://localhost').searchParams;
		return this.page(Number(query.get('startIndex')), Number(query.get('maxResults')));
	}

	async write(order) {
		this.orders.push(order);
		this.checkpoints = order.checkpoints;
		return { refused: 0 };
	}

	report(status) {
		this.reports.push(status);
		if (['idle', 'blocked', 'failed'].includes(status.state)) this.becameIdle?.(undefined);
	}
}
