/** What Harper allows: a bare loop of transactions on each worker thread, all at the same time. */

/** Rows that a thread prepares before the clock runs, and one turn of all transaction sizes. */
const BLOCK_ROWS = 10_000;
const TRANSACTION_ROWS = [125, 250, 500, 1_000, 2_000];

/** @typedef {{rows: number, elapsedMs: number, cpuMs: number}} Spent */

/**
 * Lets all threads write block after block. Only the writing is measured: the clock runs while each thread has the
 * records of a block ready, and its next page has arrived, until the last one has written its block.
 * @param {import('./crew.js').Crew} crew
 * @param {number} rowsInAll
 * @param {(rows: number) => void} onRows Called with the rows of each block.
 * @returns {Promise<{sizes: Record<number, Spent>, warm: Spent}>} By the rows of a transaction, and of the second half of
 *   the rows, for new threads compile first what they run.
 */
export async function leadCeiling(crew, rowsInAll, onRows) {
	const warm = { rows: 0, elapsedMs: 0, cpuMs: 0 };
	let done = 0;
	const sizes = Object.fromEntries(TRANSACTION_ROWS.map((size) => [size, { rows: 0, elapsedMs: 0, cpuMs: 0 }]));
	let working = new Set(Array.from({ length: crew.count }, (_, index) => index));
	for (let turn = 0; ; turn++) {
		const heard = await crew.hearAll(working, ['ready', 'finished']);
		working = new Set(heard.filter(({ kind }) => kind === 'ready').map(({ from }) => from));
		if (working.size === 0) return { sizes, warm };
		const size = TRANSACTION_ROWS[turn % TRANSACTION_ROWS.length];
		const written = crew.hearAll(working, ['written']);
		const cpu = process.cpuUsage();
		const started_ms = performance.now();
		crew.tell({ kind: 'write', size });
		const rows = (await written).reduce((sum, message) => sum + message.rows, 0);
		const elapsedMs = performance.now() - started_ms;
		const { user, system } = process.cpuUsage(cpu);
		for (const spent of done * 2 >= rowsInAll ? [sizes[size], warm] : [sizes[size]]) {
			spent.elapsedMs += elapsedMs;
			spent.cpuMs += (user + system) / 1_000;
			spent.rows += rows;
		}
		done += rows;
		onRows(rows);
		// Who has written waits for this before it makes its next records.
		crew.tell({ kind: 'go on' });
	}
}

/**
 * Writes this thread's share of the rows that the component's core makes of the same pages, with the same ids.
 * @param {import('./crew.js').Crew} crew
 * @param {{url: string, configuration: any, table: string, component: string}} order
 */
export async function writeShare(crew, { url, configuration, table, component }) {
	const { loadCore } = await import(`${component}/js/core.js`);
	const { assembleRecords } = await import(`${component}/js/harper/sync/batch.js`);
	const { ensureTarget } = await import(`${component}/js/harper/schema/target.js`);
	const { id } = configuration.bigquery.tables[0];
	const writeBlock = async (target, records) => {
		const order = crew.hear(({ kind }) => kind === 'write');
		crew.tell({ kind: 'ready' });
		const { size } = await order;
		const end = crew.hear(({ kind }) => kind === 'go on');
		await bareLoop(target, records, size);
		crew.tell({ kind: 'written', rows: records.length });
		await end;
	};
	const host = new CeilingHost({ id, url, table, assembleRecords, ensure: ensureTarget, writeBlock });
	const core = await loadCore();
	const configured = new core.Configuration(configuration, { emulatorHost: null, sharedRoot: false });
	const node = server.hostname ?? 'localhost';
	const standing = { share: { position: crew.index, workers: crew.count }, isSettled: true, seenAt: null };
	const engine = configured.table(id, { node, index: crew.index }, standing);
	host.engine = engine;
	const ended = engine.run(host);
	await host.idle;
	engine.stop();
	await ended;
	crew.tell({ kind: 'finished' });
}

async function bareLoop(target, records, size) {
	for (let from = 0; from < records.length; from += size) {
		const slice = records.slice(from, from + size);
		const context = {};
		await transaction(context, () => {
			for (const record of slice) target.put(record, context);
		});
	}
}

/** Runs the core without the component: pages come from the endpoint, records go to the bare loop in blocks. */
class CeilingHost {
	/** @type {any} */
	engine;
	#waiting = [];
	#fetching = Promise.resolve();
	#became;

	constructor({ id, url, table, assembleRecords, ensure, writeBlock }) {
		this.id = id;
		this.url = url;
		this.table = table;
		this.assembleRecords = assembleRecords;
		this.ensure = ensure;
		this.writeBlock = writeBlock;
		this.schema = null;
		this.idle = new Promise((resolve, reject) => {
			this.#became = { resolve, reject };
		});
	}

	guard() {
		this.engine.step();
		return true;
	}

	async load() {
		// What the sync has counted, for all its workers; none where one worker reads everything.
		const counts = await tables.SyncCounts.get(this.id);
		const copy = counts ? JSON.parse(JSON.stringify(counts)) : null;
		return { checkpoints: [], counts: copy, incarnation: '', schema: this.schema };
	}

	async adoptSchema({ version }) {
		this.schema = version;
		return {};
	}

	async ensureTarget(layout, isFirst) {
		this.layout = layout;
		const refusalOf = (found) => this.engine.refusal(found);
		this.target = (await this.ensure(this.table, layout, isFirst, refusalOf)).table;
		return { incarnation: '' };
	}

	async shareCounts() {
		return {};
	}

	send({ method, path, body }) {
		const answer = (async () => {
			const headers = { 'content-type': 'application/json' };
			const response = await fetch(this.url + path, { method, body, headers });
			const bytes = new Uint8Array(await response.arrayBuffer());
			return { status: response.status, date: new Date().toUTCString(), retryAfter: null, body: bytes };
		})();
		this.#fetching = answer.then(() => {});
		return answer;
	}

	async write(order) {
		for (const record of this.assembleRecords(this.layout, order, new Date().toISOString())) this.#waiting.push(record);
		if (this.#waiting.length >= BLOCK_ROWS) await this.#flush();
		return { refused: 0, busyMs: 0 };
	}

	async #flush() {
		await this.#fetching;
		const records = this.#waiting;
		this.#waiting = [];
		if (records.length === 0) return;
		await this.writeBlock(this.target, records).catch(this.#became.reject);
	}

	async report({ state, lastError }) {
		if (lastError !== null) this.#became.reject(new Error(`${lastError.code}: ${lastError.message}`));
		if (state !== 'idle') return;
		await this.#flush();
		this.#became.resolve(undefined);
	}
}
