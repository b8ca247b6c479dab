/** Connections of which one knows which worker thread of Harper answers them. */

import assert from 'node:assert/strict';
import http from 'node:http';

import { until } from '../../support/index.mjs';
import { PATIENCE_MS } from './component.mjs';

/** What an application must have for connectToEach() and hold(): its `jsResource` and the file that goes with it. */
export const WHERE = {
	section: { jsResource: { files: 'where.js' } },
	files: {
		'where.js': `
			export class Where extends Resource {
				static loadAsInstance = false;
				get() { return { worker: server.workerIndex }; }
			}
			export class Hold extends Resource {
				static loadAsInstance = false;
				async post(target, data) {
					const { forMs } = await data;
					Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, forMs);
					return { forMs };
				}
			}`,
	},
};

export class WorkerConnection {
	#agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

	/** @param {import('../../support/harper.mjs').HarperNode} harper */
	constructor(harper) {
		this.harper = harper;
	}

	/**
	 * @param {string} method
	 * @param {string} path
	 * @param {unknown} [body]
	 * @returns {Promise<{status: number | undefined, body: any}>}
	 */
	send(method, path, body) {
		const { username, password } = this.harper.credentials;
		const headers = { 'content-type': 'application/json' };
		const options = { method, headers, agent: this.#agent, auth: `${username}:${password}` };
		return new Promise((resolve, reject) => {
			const request = http.request(`${this.harper.httpUrl}${path}`, options, async (response) => {
				let text = '';
				for await (const part of response.setEncoding('utf8')) text += part;
				const isJson = response.headers['content-type']?.includes('json');
				resolve({ status: response.statusCode, body: isJson ? JSON.parse(text) : text });
			});
			request.once('error', reject);
			request.end(body === undefined ? undefined : JSON.stringify(body));
		});
	}

	/** Keeps the worker from doing anything for a while, at the end of which this settles. @param {number} forMs */
	async hold(forMs) {
		const { status, body } = await this.send('POST', '/Hold/', { forMs });
		assert.equal(status, 200, JSON.stringify(body));
	}

	close() {
		this.#agent.destroy();
	}
}

/**
 * Opens one connection to each worker.
 * @param {import('../../support/harper.mjs').HarperNode} harper
 * @param {number} workers
 * @returns {Promise<WorkerConnection[]>} In the order of the workers' indices.
 */
export async function connectToEach(harper, workers) {
	/** @type {WorkerConnection[]} */
	const found = [];
	const complete = async () => {
		const connection = new WorkerConnection(harper);
		const { worker } = (await connection.send('GET', '/Where/')).body;
		if (found[worker]) connection.close();
		else found[worker] = connection;
		return Object.keys(found).length === workers;
	};
	await until(complete, { deadlineMs: PATIENCE_MS, what: `a connection to each of ${workers} workers` });
	return found;
}
