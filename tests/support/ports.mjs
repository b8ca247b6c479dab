/**
 * Free ports and loopback addresses, so that test processes that run side by side never meet.
 */

import { createServer } from 'node:net';

/** Whoever listens here on a loopback address owns the address; the kernel gives it back when that process dies. */
const CLAIM_PORT = 19_900;
const ADDRESS_FIRST = 11;
const ADDRESS_LAST = 254;

/**
 * @param {number} port 0 lets the kernel choose.
 * @param {string} address
 * @returns {Promise<import('node:net').Server | undefined>} Undefined when the port is taken.
 */
function listen(port, address) {
	return new Promise((resolve, reject) => {
		const server = createServer((socket) => socket.destroy());
		server.once('error', (/** @type {NodeJS.ErrnoException} */ error) => {
			if (error.code === 'EADDRINUSE' || error.code === 'EADDRNOTAVAIL') resolve(undefined);
			else reject(error);
		});
		server.listen({ port, host: address, exclusive: true }, () => resolve(server));
	});
}

/** @param {import('node:net').Server} server */
function close(server) {
	return new Promise((resolve) => server.close(resolve));
}

/**
 * Tells whether a port can be listened on at this moment.
 * @param {number} port
 * @param {string} [address]
 */
export async function isPortFree(port, address = '127.0.0.1') {
	const server = await listen(port, address);
	if (server) await close(server);
	return server !== undefined;
}

/**
 * Finds a port that is free at this moment; another process may still be faster, so be ready to ask again.
 * @param {string} [address]
 * @returns {Promise<number>}
 */
export async function freePort(address = '127.0.0.1') {
	const server = await listen(0, address);
	if (!server) throw new Error(`${address} cannot be listened on`);
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
	await close(server);
	return port;
}

/**
 * Claims loopback addresses that no other test process uses and on which the given ports are free.
 * Harper nodes need an address each because all nodes of a cluster listen on the same port numbers.
 *
 * @param {number} count
 * @param {number[]} ports The ports that must be free.
 * @param {string[]} [wanted] Exactly these addresses instead of any.
 * @returns {Promise<{address: string, release: () => Promise<void>}[]>} In ascending order.
 */
export async function claimAddresses(count, ports, wanted) {
	const claims = [];
	const candidates = wanted ?? someAddresses();
	for (const address of candidates) {
		if (claims.length === count) break;
		const server = await listen(CLAIM_PORT, address);
		if (!server) continue;
		server.unref();
		const free = await Promise.all(ports.map((port) => isPortFree(port, address)));
		if (free.every(Boolean)) claims.push({ address, release: async () => void (await close(server)) });
		else await close(server);
	}
	if (claims.length < count) {
		await Promise.all(claims.map((claim) => claim.release()));
		throw Object.assign(new Error(`No ${count} free addresses among ${candidates.join(', ')}`), { code: 'PORT_TAKEN' });
	}
	return claims;
}

/** Starts at a place of this process's own, because neighbours that all begin at the first address collide often. */
function someAddresses() {
	const count = ADDRESS_LAST - ADDRESS_FIRST + 1;
	const start = (process.pid * 7) % count;
	return Array.from({ length: count }, (_, i) => `127.0.0.${ADDRESS_FIRST + ((start + i) % count)}`);
}
