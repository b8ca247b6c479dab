import { createHash } from 'node:crypto';
import { assembleRecords } from '../../js/harper/sync/batch.js';
import { loadCore } from '../../js/core.js';
import { VESSEL_SCHEMA, vesselPositions } from '../../tests/support/samples.mjs';
import { MemoryHost, wirePage } from '../../tests/support/wire.mjs';
import { microsOf } from './instant.mjs';
import { median } from './median.mjs';

export const PAGE_ROWS = 10_000;

/**
 * Measures all variants alternately, so that a busy machine slows them alike.
 * @param {{rows: number, rounds: number}} options
 * @returns {Promise<Record<string, number>>} µs per row, medians.
 */
export async function measureDecoding({ rows, rounds }) {
	const pages = [];
	let page = [];
	const finish = () => {
		pages.push(
			new TextEncoder().encode(JSON.stringify(wirePage({ fields: VESSEL_SCHEMA, rows: page, totalRows: rows })))
		);
		page = [];
	};
	for (const row of vesselPositions({ rows })) {
		page.push({ ...row, timestamp: microsOf(row.timestamp) });
		if (page.length === PAGE_ROWS) finish();
	}
	if (page.length > 0) finish();
	const key = ['mmsi', 'timestamp'];
	const variants = {
		wasm: () => throughCore(VESSEL_SCHEMA, pages, rows, []),
		js: () => throughJavaScript(VESSEL_SCHEMA, pages, []),
		wasmKeyed: () => throughCore(VESSEL_SCHEMA, pages, rows, key),
		jsKeyed: () => throughJavaScript(VESSEL_SCHEMA, pages, key),
	};
	/** @type {Record<string, number[]>} */
	const times = Object.fromEntries(Object.keys(variants).map((name) => [name, []]));
	for (let round = 0; round <= rounds; round++) {
		for (const [name, run] of Object.entries(variants)) {
			const started = process.hrtime.bigint();
			const count = await run();
			const elapsed_us = Number(process.hrtime.bigint() - started) / 1_000;
			if (count !== rows) throw new Error(`${name} decoded ${count} of ${rows} rows`);
			// The first round only warms up.
			if (round > 0) times[name].push(elapsed_us / rows);
		}
	}
	return Object.fromEntries(Object.entries(times).map(([name, values]) => [name, median(values)]));
}

/** The whole way of a row but Harper and the network: driver, decoding, ids, records. */
async function throughCore(fields, pages, rows, key) {
	const core = await loadCore();
	const host = new MemoryHost({ fields, page: (offset) => pages[offset / PAGE_ROWS] });
	let count = 0;
	host.write = async (order) => {
		count += assembleRecords(host.layout, order, 'now').length;
		return { refused: 0 };
	};
	const root = {
		bigquery: { projectId: 'p', dataset: 'd', table: 't', timestampColumn: 'timestamp', key },
	};
	const configuration = new core.Configuration(root, { emulatorHost: 'localhost:1', sharedRoot: false });
	const sync = configuration.table('t', { node: 'n', index: 0 });
	const ended = host.run(sync);
	await host.idle;
	sync.stop();
	await ended;
	return count;
}

/** The same records by JSON.parse and a converter per column, as a careful JavaScript program would make them. */
async function throughJavaScript(fields, pages, key) {
	const converters = fields.map(({ type }) => CONVERTERS[type]);
	const decoder = new TextDecoder();
	let count = 0;
	for (const bytes of pages) {
		const { rows } = JSON.parse(decoder.decode(bytes));
		for (const { f } of rows) {
			const record = { id: '' };
			for (let at = 0; at < fields.length; at++) {
				const { v } = f[at];
				record[fields[at].name] = v === null ? null : converters[at](v);
			}
			record.id = key.length > 0 ? key.map((name) => record[name]).join('|') : contentId(f, record.timestamp);
			record._syncedAt = 'now';
			count++;
		}
		await null;
	}
	return count;
}

const CONVERTERS = {
	STRING: (text) => text,
	FLOAT64: Number,
	INT64: (text) => {
		const number = Number(text);
		return Number.isSafeInteger(number) ? number : BigInt(text);
	},
	TIMESTAMP: (text) => {
		const micros = BigInt(text);
		const text_ms = new Date(Number(micros / 1_000n)).toISOString();
		return `${text_ms.slice(0, -1)}${String(micros % 1_000n).padStart(3, '0')}Z`;
	},
};

function contentId(cells, timestamp) {
	const content = cells.map(({ v }) => (v === null ? '-' : `${v.length}:${v}`)).join();
	return timestamp + createHash('sha256').update(content).digest('base64url').slice(0, 16);
}
