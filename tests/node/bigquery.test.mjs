/** Requests to BigQuery, against a server whose answers are odd. */

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';

import { BigQueryConnection } from '../../js/bigquery.js';

const MEBIBYTE = 1024 * 1024;
/** Nothing near BigQuery's pages of 20 MB, and nothing that fills a machine. */
const REFUSED_MIB = 128;
/** What may lie in the sockets' and streams' buffers when the client hangs up. */
const IN_FLIGHT_MIB = 32;

/** @type {http.Server} */
let server;
let url = '';
/** @type {(response: http.ServerResponse, request: http.IncomingMessage) => void} What the server does with the next request. */
let answer;

before(async () => {
	server = http.createServer((request, response) => answer(response, request));
	await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
	url = `http://127.0.0.1:${/** @type {import('node:net').AddressInfo} */ (server.address()).port}`;
});

after(() => {
	server.closeAllConnections();
	server.close();
});

function get() {
	const connection = { projectId: 'p', credentials: null, apiEndpoint: url, anonymous: true };
	const request = { method: 'GET', path: '/', body: null, timeoutMs: 60_000, renewToken: false };
	return new BigQueryConnection(connection, '.').send(request, new AbortController().signal);
}

/** Sends until the client hangs up, or to an end that no client should wait for. */
function flood(/** @type {http.ServerResponse} */ response) {
	const block = Buffer.alloc(MEBIBYTE, ' ');
	const sent = { mebibytes: 0, hungUp: new Promise((resolve) => response.once('close', resolve)) };
	const more = () => {
		while (!response.destroyed && sent.mebibytes < 8 * REFUSED_MIB) {
			sent.mebibytes++;
			if (!response.write(block)) return;
		}
		if (!response.destroyed) response.end();
	};
	response.on('drain', more);
	more();
	return sent;
}

test('a chunked body is refused while it comes, and the connection is given up', async () => {
	/** @type {ReturnType<typeof flood> | undefined} */
	let sent;
	answer = (response) => {
		sent = flood(response);
	};
	await assert.rejects(get(), { code: 'response_malformed', message: /more than \d+ bytes/ });
	await sent?.hungUp;
	assert.ok(
		sent && sent.mebibytes >= REFUSED_MIB && sent.mebibytes <= REFUSED_MIB + IN_FLIGHT_MIB,
		`${sent?.mebibytes}`
	);
});

test('answers may come compressed, as google’s services send them to those who ask in both headers', async () => {
	const text = JSON.stringify({ rows: Array.from({ length: 50_000 }, (_, n) => `row ${n}`) });
	answer = (response, { headers }) => {
		const isAsked = [headers['accept-encoding'], headers['user-agent']].every((header) =>
			/\bgzip\b/.test(header ?? '')
		);
		if (isAsked) response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(text));
		else response.writeHead(500).end();
	};
	const { status, body } = await get();
	assert.equal(status, 200);
	assert.equal(Buffer.from(body).toString(), text);
});

test('a small compressed body that grows beyond the limit is refused too', async () => {
	const bomb = gzipSync(Buffer.alloc((REFUSED_MIB + 1) * MEBIBYTE), { level: 1 });
	assert.ok(bomb.length < MEBIBYTE);
	answer = (response) =>
		response.writeHead(200, { 'content-encoding': 'gzip', 'content-length': bomb.length }).end(bomb);
	await assert.rejects(get(), { code: 'response_malformed' });
});

test('a body whose announced length is beyond the limit is refused before it comes', async () => {
	answer = (response) => response.writeHead(200, { 'content-length': (REFUSED_MIB + 1) * MEBIBYTE }).flushHeaders();
	await assert.rejects(get(), { code: 'response_malformed' });
});

test('a body arrives whole, whether in one part, in many, or empty', async () => {
	const text = JSON.stringify({ rows: Array.from({ length: 50_000 }, (_, n) => `row ${n}`) });
	for (const body of [text, '{}', '']) {
		answer = (response) => response.writeHead(200, { 'retry-after': '7' }).end(body);
		const { status, retryAfter, body: bytes } = await get();
		assert.deepEqual([status, retryAfter], [200, '7']);
		assert.ok(bytes instanceof Uint8Array);
		assert.equal(new TextDecoder().decode(bytes), body);
	}
});
