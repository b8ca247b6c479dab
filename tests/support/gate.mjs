/** A door in the network: TCP connections pass through it while it is open. */

import { connect, createServer } from 'node:net';

export class Gate {
	#server = createServer((socket) => this.#pass(socket));
	/** @type {Set<import('node:net').Socket>} */
	#sockets = new Set();
	#open = true;

	/**
	 * @param {string} address Of both ports.
	 * @param {{port: number, target: number}} ports Where it listens, and where it leads.
	 */
	constructor(address, { port, target }) {
		this.address = address;
		this.port = port;
		this.target = target;
	}

	async listen() {
		await new Promise((resolve, reject) => {
			this.#server.once('error', reject);
			this.#server.listen({ port: this.port, host: this.address, exclusive: true }, () => resolve(undefined));
		});
		this.#server.unref();
	}

	/** Cuts all connections, and lets none through until open(). */
	shut() {
		this.#open = false;
		for (const socket of this.#sockets) socket.destroy();
	}

	open() {
		this.#open = true;
	}

	async remove() {
		this.shut();
		await new Promise((resolve) => this.#server.close(resolve));
	}

	/** @param {import('node:net').Socket} near */
	#pass(near) {
		if (!this.#open) {
			near.destroy();
			return;
		}
		const far = connect(this.target, this.address);
		for (const [socket, other] of [
			[near, far],
			[far, near],
		]) {
			this.#sockets.add(socket);
			socket.pipe(other);
			socket.on('error', () => other.destroy());
			socket.on('close', () => {
				this.#sockets.delete(socket);
				other.destroy();
			});
		}
	}
}
