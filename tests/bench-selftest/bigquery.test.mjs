/** The client that prepares sources lives with servers that close connections while nothing is sent. */

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { bigQueryClient } from '../support/index.mjs';

const ROWS = 3;

/** @type {import('node:http').Server} */
let server;
/** @type {string} */
let url;

/** Answers one request on each connection, and closes it when a second one comes, as if it had been idle for too long. */
before(async () => {
	const used = new WeakSet();
	server = createServer(async (request, response) => {
		if (used.has(request.socket)) return request.socket.destroy();
		used.add(request.socket);
		for await (const part of request) void part;
		const isUpload = request.method === 'POST' && request.url?.startsWith('/upload');
		if (isUpload) response.setHeader('location', `${url}/session`);
		const job = { status: { state: 'DONE' }, statistics: { load: { outputRows: `${ROWS}` } } };
		response.end(JSON.stringify({ jobReference: { jobId: 'j' }, ...job }));
	});
	await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
	url = `http://127.0.0.1:${port}`;
});

after(() => {
	server.closeAllConnections();
	server.close();
});

/** Between the beginning of the load and its rows, the connection is idle. */
async function* slowRows() {
	for (let number = 0; number < ROWS; number++) {
		await sleep(20);
		yield { number };
	}
}

test('a_load_sends_each_request_on_a_connection_of_its_own', async () => {
	assert.equal(await bigQueryClient({ url }).loadRows('d', 't', slowRows()), ROWS);
});

test('requests_one_after_the_other_are_answered', async () => {
	const client = bigQueryClient({ url });
	for (let request = 0; request < 3; request++) {
		assert.equal((await client.request('GET', '/jobs/j')).status.state, 'DONE');
	}
});
