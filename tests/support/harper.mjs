/**
 * Real Harper processes, one or a cluster, each with an address, a home and a data folder of its own.
 */

import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';

import { Gate } from './gate.mjs';
import { CREDENTIALS, HARPER_COMMAND, harperEnvironment, installHarper } from './harper-template.mjs';
import { claimAddresses } from './ports.mjs';
import { adoptProcess, startProcess, temporaryFolder } from './processes.mjs';
import { parseExact } from './values.mjs';
import { until, untilWhileMoving } from './wait.mjs';

/** All nodes of a cluster share these numbers, each on its own address. */
const HTTP_PORT = 19_926;
const OPERATIONS_PORT = 19_925;
const REPLICATION_PORT = 9_933;
/** Where the gate of a node listens that can be cut off from the others. */
const GATE_PORT = 9_935;
const PORTS = [HTTP_PORT, OPERATIONS_PORT, REPLICATION_PORT, GATE_PORT];
const START_DEADLINE_MS = 120_000;
const CLUSTER_DEADLINE_MS = 600_000;
/** What has not moved for so long in nodes that join does not move any more. */
const STANDSTILL_MS = 45_000;
const JOIN_ATTEMPTS = 4;
/** The component looks every two seconds. */
const TABLE_DEADLINE_MS = 60_000;
const REQUEST_TIMEOUT_MS = 120_000;
/** Linux reports CPU time in these ticks everywhere that Node runs. */
const TICKS_PER_SECOND = 100;
const LOG_CHARACTERS_SHOWN = 3000;
/** With these signals the system ends a process whose native code failed; no test sends them. */
const CRASHES = new Set(['SIGSEGV', 'SIGBUS', 'SIGABRT', 'SIGILL', 'SIGFPE']);

/** Harper refused an operation. */
export class HarperError extends Error {
	/**
	 * @param {number} status
	 * @param {any} body
	 */
	constructor(status, body) {
		super(`${status}: ${typeof body === 'string' ? body : (body?.error ?? JSON.stringify(body))}`);
		this.name = 'HarperError';
		this.status = status;
		this.body = body;
	}
}

/**
 * @typedef {object} HarperOptions
 * @property {string} application The application's folder, see application.mjs.
 * @property {string} [address] A loopback address; a free one is chosen when not given.
 * @property {number} [threads] Worker threads, default 1.
 * @property {boolean} [authorizeLocal] Requests without credentials are super_user (default true).
 * @property {Record<string, string>} [env] Added to the process's environment.
 * @property {string} [clusterName] Harper's node name where it must differ from the address.
 * @property {boolean} [replication] Listens for other nodes (default false).
 * @property {boolean} [severable] Other nodes reach it through a gate, see sever() (default false).
 * @property {(line: string) => void} [log] Gets what Harper prints.
 */

/**
 * @typedef {object} RequestOptions
 * @property {boolean | {username: string, password: string}} [auth] True (default): the admin; false: nobody.
 * @property {string} [method]
 * @property {unknown} [body] Sent as JSON unless it is a string.
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 */

/** One Harper installation, started and ended as often as a test likes. */
export class HarperNode {
	/** @type {import('./processes.mjs').RunningProcess | undefined} */
	#process;
	/** @type {HarperOptions} */
	#options;
	/** @type {{path: string, remove: () => void}} */
	#folder;
	/** @type {() => Promise<void>} */
	#release;
	/** @type {Gate | undefined} */
	#gate;
	/** The process that was told to end: should it crash at that, it is not started again. @type {object | undefined} */
	#ending;
	/** Settles when a Harper that crashed is there again. @type {Promise<void> | undefined} */
	#revival;

	/**
	 * @param {HarperOptions} options
	 * @param {{address: string, release: () => Promise<void>}} claim
	 */
	constructor(options, claim) {
		this.#options = options;
		this.#release = claim.release;
		this.#folder = temporaryFolder('harper');
		this.address = claim.address;
		this.name = options.clusterName ?? claim.address;
		this.httpUrl = `http://${claim.address}:${HTTP_PORT}`;
		this.operationsUrl = `http://${claim.address}:${OPERATIONS_PORT}`;
		this.credentials = CREDENTIALS;
		this.root = path.join(this.#folder.path, 'root');
		this.replicationUrl = `wss://${claim.address}:${options.severable ? GATE_PORT : REPLICATION_PORT}`;
	}

	/** The process's id; an error when it does not run. */
	get pid() {
		if (!this.#process?.isAlive()) throw new Error(`Harper ${this.name} is not running`);
		return this.#process.pid;
	}

	isAlive() {
		return this.#process?.isAlive() ?? false;
	}

	/** Starts, or starts again on the same data, and waits until Harper says that it is ready. */
	async start() {
		if (this.isAlive()) throw new Error(`Harper ${this.name} is running already`);
		if (!existsSync(this.root)) {
			mkdirSync(this.#folder.path, { recursive: true });
			await installHarper(this.#folder.path, { authorizeLocal: this.#options.authorizeLocal ?? true });
		}
		if (this.#options.severable && !this.#gate) {
			this.#gate = new Gate(this.address, { port: GATE_PORT, target: REPLICATION_PORT });
			await this.#gate.listen();
		}
		const running = await startProcess(HARPER_COMMAND, ['run', this.#options.application], {
			cwd: this.#folder.path,
			env: this.#environment(),
			log: this.#options.log,
		});
		this.#process = running;
		const ended = () => !running.isAlive() && new Error(`Harper ${this.name} ended at its start.\n${this.#story()}`);
		const ready = () => running.output().includes('successfully started');
		try {
			await until(ready, { deadlineMs: START_DEADLINE_MS, what: `Harper ${this.name}`, giveUp: ended });
		} catch (error) {
			await running.kill('SIGKILL');
			throw error;
		}
		void running.exited.then(({ signal }) => this.#reviveAfter(running, signal));
	}

	/**
	 * Starts Harper again after a crash, as a service manager does: the native code of Harper 4.7's database now and then
	 * fails on a busy machine. The sync has to live with that as with any other end.
	 * @param {import('./processes.mjs').RunningProcess} ended
	 * @param {NodeJS.Signals | null} signal
	 */
	#reviveAfter(ended, signal) {
		const isWanted = this.#process === ended && this.#ending !== ended;
		if (!isWanted || signal === null || !CRASHES.has(signal)) return;
		console.log(`Harper ${this.name} crashed (${signal}) and is started again`);
		this.#revival = this.start().finally(() => (this.#revival = undefined));
		this.#revival.catch(() => {});
	}

	#environment() {
		return {
			...harperEnvironment(this.#folder.path),
			THREADS_COUNT: `${this.#options.threads ?? 1}`,
			HTTP_PORT: `${this.address}:${HTTP_PORT}`,
			OPERATIONSAPI_NETWORK_PORT: `${this.address}:${OPERATIONS_PORT}`,
			REPLICATION_HOSTNAME: this.name,
			REPLICATION_SECUREPORT: this.#options.replication ? `${this.address}:${REPLICATION_PORT}` : 'null',
			...(this.#options.severable && { REPLICATION_URL: this.replicationUrl }),
			...this.#options.env,
		};
	}

	#story() {
		// Harper greets with a page of coloured blocks that would bury the reason.
		const said = (this.#process?.output() ?? '').split('\n').filter((line) => !line.includes('\u001b['));
		return `${said.join('\n').slice(-LOG_CHARACTERS_SHOWN)}\n${this.log().slice(-LOG_CHARACTERS_SHOWN)}`;
	}

	/** Everything that Harper has logged, over all its starts. */
	log() {
		const file = path.join(this.root, 'log', 'hdb.log');
		return existsSync(file) ? readFileSync(file, 'utf8') : '';
	}

	/**
	 * @param {NodeJS.Signals} signal
	 * @returns {Promise<void>} Settles when the process has been reaped, so that start() may follow at once.
	 */
	async kill(signal = 'SIGKILL') {
		await this.#revival;
		this.#ending = this.#process;
		await this.#process?.kill(signal);
		// A process that took another's place may stay a zombie for a while, which Harper would take for running.
		rmSync(this.#pidFile, { force: true });
	}

	get #pidFile() {
		return path.join(this.root, 'hdb.pid');
	}

	/** Has Harper restart itself, by its own operation: another process takes the place of the one that there was. */
	async restart() {
		const before = this.#process;
		await this.operation({ operation: 'restart' });
		const successor = () => existsSync(this.#pidFile) && Number(readFileSync(this.#pidFile, 'utf8'));
		const wait = { deadlineMs: START_DEADLINE_MS, everyMs: 100 };
		const pid = await until(() => successor() !== before?.pid && successor(), {
			...wait,
			what: `${this.name} to put another process in its place`,
		}).catch((error) => {
			throw new Error(`${error.message}\n${this.#story()}`);
		});
		const running = adoptProcess(Number(pid));
		this.#process = running;
		await before?.stop();
		const answers = async () => (await this.request('/').catch(() => undefined)) !== undefined;
		const outcome = async () => (running.isAlive() ? await answers() : /** @type {const} */ ('gone'));
		const what = `${this.name}, which restarted itself, to answer`;
		if ((await until(outcome, { ...wait, what })) !== 'gone') return;
		console.log(`Harper ${this.name} ended while it restarted itself and is started again`);
		rmSync(this.#pidFile, { force: true });
		await this.start();
	}

	/** Cuts the connections that other nodes have made to this one, until heal(); those that it has made remain. */
	sever() {
		this.#gate?.shut();
	}

	heal() {
		this.#gate?.open();
	}

	/** Ends the process in an orderly way and keeps its data. */
	async stop() {
		await this.#revival?.catch(() => {});
		this.#ending = this.#process;
		await this.#process?.stop();
	}

	/** Ends the process, deletes its data and gives the address back. */
	async remove() {
		await this.stop();
		await this.#gate?.remove();
		this.#folder.remove();
		await this.#release();
	}

	/**
	 * Sends a request to the application's HTTP port.
	 * @param {string} requestPath Begins with a slash.
	 * @param {RequestOptions} [options]
	 * @returns {Promise<Response>}
	 */
	async request(requestPath, options) {
		await this.#revival;
		return send(`${this.httpUrl}${requestPath}`, options);
	}

	/**
	 * Runs an operation of Harper's operations API and returns its answer, 64-bit integers exact.
	 * @param {Record<string, unknown>} body
	 * @param {RequestOptions} [options]
	 * @returns {Promise<any>}
	 */
	async operation(body, options) {
		await this.#revival;
		const response = await send(this.operationsUrl, { ...options, method: 'POST', body });
		const text = await response.text();
		const isJson = response.headers.get('content-type')?.includes('json');
		const answer = isJson ? parseExact(text) : text;
		if (!response.ok) throw new HarperError(response.status, answer);
		return answer;
	}

	/**
	 * Runs an operation on a table that was made while Harper runs: it takes some seconds until all workers know it.
	 * @param {Record<string, unknown>} body
	 * @returns {Promise<any>}
	 */
	async tableOperation(body) {
		const deadline = performance.now() + TABLE_DEADLINE_MS;
		for (;;) {
			try {
				return await this.operation(body);
			} catch (/** @type {any} */ error) {
				const isUnknown = /^Table \S+ (does not exist|not found)/.test(error.body?.error ?? '');
				if (!isUnknown || performance.now() > deadline) throw error;
			}
			await new Promise((resolve) => setTimeout(resolve, 100));
		}
	}

	/**
	 * What the process has used, all its threads together (Linux only). Of the resident memory, the anonymous part is its
	 * own; the rest are mapped files, the database above all, which the system takes back when it needs the memory.
	 * @returns {{rssBytes: number, anonymousBytes: number, peakRssBytes: number, cpuMs: number}}
	 */
	usage() {
		const status = readFileSync(`/proc/${this.pid}/status`, 'utf8');
		const bytes = (/** @type {string} */ key) =>
			Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * 1024;
		// The command's name may hold spaces and brackets; the fields after it are 3 and up.
		const fields = readFileSync(`/proc/${this.pid}/stat`, 'utf8')
			.replace(/^.*\) /s, '')
			.split(' ');
		const cpuMs = ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND;
		return { rssBytes: bytes('VmRSS'), anonymousBytes: bytes('RssAnon'), peakRssBytes: bytes('VmHWM'), cpuMs };
	}
}

/**
 * Each request has a connection of its own: Harper may close one that is kept at the moment at which it is used again.
 * @param {string} url
 * @param {RequestOptions} [options]
 */
function send(url, { auth = true, method = 'GET', body, headers = {}, signal } = {}) {
	const who = auth === true ? CREDENTIALS : auth;
	const basic = who && Buffer.from(`${who.username}:${who.password}`).toString('base64');
	return fetch(url, {
		method,
		headers: {
			...(basic && { authorization: `Basic ${basic}` }),
			...(body !== undefined && { 'content-type': 'application/json' }),
			connection: 'close',
			...headers,
		},
		body: body === undefined || typeof body === 'string' ? body : JSON.stringify(body),
		signal: signal ?? AbortSignal.timeout(REQUEST_TIMEOUT_MS),
	});
}

/**
 * Starts one Harper.
 * @param {HarperOptions} options
 * @returns {Promise<HarperNode>}
 */
export async function startHarper(options) {
	const [claim] = await claimAddresses(1, PORTS, options.address ? [options.address] : undefined);
	const node = new HarperNode(options, claim);
	await startOrRemove([node]);
	return node;
}

/** @param {HarperNode[]} nodes */
async function startOrRemove(nodes) {
	const results = await Promise.allSettled(nodes.map((node) => node.start()));
	const failed = results.find((result) => result.status === 'rejected');
	if (!failed) return;
	await Promise.allSettled(nodes.map((node) => node.remove()));
	throw failed.reason;
}

/**
 * @typedef {object} Cluster
 * @property {HarperNode[]} nodes In the order of their names.
 * @property {(node: HarperNode) => Promise<void>} join Joins one more node (started with `replication: true`).
 * @property {() => void} sever Cuts the nodes off from one another, each from all.
 * @property {() => void} heal Undoes that.
 * @property {() => Promise<void>} settled Waits until all running nodes see each other and a written row arrives.
 * @property {() => Promise<void>} remove
 */

/**
 * Starts nodes, joins them and waits until rows travel between all of them.
 *
 * The proof of that is a table `ClusterProbe` in the database `data`, which stays there.
 *
 * @param {object} options
 * @param {number} [options.nodes] Default 3.
 * @param {string | ((index: number) => string)} options.application One folder for all, or one per node.
 * @param {number[]} [options.threads] Per node, default 1 each.
 * @param {boolean} [options.authorizeLocal]
 * @param {boolean} [options.severable] Needed by sever().
 * @param {Record<string, string>} [options.env]
 * @param {(line: string) => void} [options.log]
 * @returns {Promise<Cluster>}
 */
export async function startCluster({ nodes: count = 3, application, threads = [], ...rest }) {
	const claims = await claimAddresses(count, PORTS);
	claims.sort((a, b) => (a.address < b.address ? -1 : 1));
	const nodes = claims.map((claim, index) => {
		const folder = typeof application === 'function' ? application(index) : application;
		return new HarperNode({ ...rest, application: folder, threads: threads[index] ?? 1, replication: true }, claim);
	});
	await startOrRemove(nodes);
	const cluster = {
		nodes,
		/** @param {HarperNode} node */
		async join(node) {
			await addNode(node, nodes[0]);
			await welcome(node, [...nodes, node]);
			nodes.push(node);
		},
		sever: () => nodes.forEach((node) => node.sever()),
		heal: () => nodes.forEach((node) => node.heal()),
		settled: () => settled(nodes),
		async remove() {
			await Promise.all(nodes.map((node) => node.remove()));
		},
	};
	try {
		// One by one: Harper may lose a connection of two nodes that join at the same time.
		for (const [index, node] of nodes.entries()) {
			if (index > 0) await addNode(node, nodes[0]);
			await welcome(node, nodes.slice(0, index + 1));
		}
	} catch (error) {
		await cluster.remove();
		throw error;
	}
	return cluster;
}

/**
 * @param {HarperNode} node
 * @param {HarperNode} member
 */
async function addNode(node, member) {
	const url = member.replicationUrl;
	await node.operation({ operation: 'add_node', url, verify_tls: false, authorization: CREDENTIALS });
}

let probes = 0;

/**
 * Waits until a node that has joined is one of the cluster.
 *
 * In Harper 4.7 it may not become one on a busy machine: it connects to a peer before it has read its own new
 * certificate, throws, and does not try again; or nodes that write much at that moment do not connect all of their
 * databases; or the copy of the leader's data stands still. So it is started anew, as docs/cluster.md advises.
 * @param {HarperNode} newcomer
 * @param {HarperNode[]} nodes
 */
async function welcome(newcomer, nodes) {
	for (let attempt = 1; ; attempt++) {
		try {
			return await settled(nodes);
		} catch (error) {
			if (attempt === JOIN_ATTEMPTS) throw error;
		}
		// If that does not help, the node that does not hear it is.
		const missing = attempt === 1 ? [] : await missingConnections(nodes);
		const deaf = nodes.filter(({ name }) => missing.some((one) => one.includes(` -> ${name}: `)));
		for (const node of deaf.length > 0 ? deaf : [newcomer]) {
			await node.stop();
			await node.start();
		}
	}
}

/**
 * The connections over which nodes hear of each other's databases.
 * @param {HarperNode} node
 * @returns {Promise<{peer: string, database: string, connected: boolean, received: string}[]>}
 */
async function connectionsOf(node) {
	const { connections } = await node.operation({ operation: 'cluster_status' });
	return connections.flatMap((/** @type {any} */ { name, url, database_sockets: sockets }) =>
		sockets.map((/** @type {any} */ { database, connected, lastReceivedRemoteTime, lastReceivedLocalTime }) => {
			const received = `${lastReceivedLocalTime} ${lastReceivedRemoteTime}`;
			return { peer: name ?? new URL(url).hostname, database, connected, received };
		})
	);
}

/**
 * Which databases of which running nodes do not reach which others, each as `a -> b: data`. Only those are asked for
 * that at least two nodes are connected for.
 * @param {HarperNode[]} nodes
 * @returns {Promise<string[]>}
 */
export async function missingConnections(nodes) {
	const running = nodes.filter((node) => node.isAlive());
	const found = await Promise.all(running.map(connectionsOf));
	const databases = new Set(['system', ...found.flat().map(({ database }) => database)]);
	return running.flatMap((node, index) =>
		running
			.filter((peer) => peer !== node)
			.flatMap((peer) => [...databases].map((database) => ({ peer: peer.name, database })))
			.filter(({ peer, database }) => {
				return !found[index].some((one) => one.connected && one.peer === peer && one.database === database);
			})
			.map(({ peer, database }) => `${peer} -> ${node.name}: ${database}`)
	);
}

/** @param {HarperNode[]} nodes */
async function settled(nodes) {
	const running = nodes.filter((node) => node.isAlive());
	const wait = { deadlineMs: CLUSTER_DEADLINE_MS, standstillMs: STANDSTILL_MS };
	const missing = async () => (await missingConnections(running)).join(', ');
	const connected = async () => (await missing()) === '';
	await untilWhileMoving(connected, { ...wait, progress: missing, what: 'connected nodes' });
	const probe = { database: 'data', table: 'ClusterProbe' };
	await running[0].operation({ operation: 'create_table', ...probe, primary_key: 'id' }).catch((error) => {
		if (!(error instanceof HarperError)) throw error;
	});
	for (const node of running) {
		const id = `${node.name}-${process.pid}-${++probes}`;
		const insert = () => node.operation({ operation: 'upsert', ...probe, records: [{ id }] }).catch(() => false);
		const heard = async () => JSON.stringify(await connectionsOf(node));
		await untilWhileMoving(insert, { ...wait, progress: heard, what: `the probe table on ${node.name}` });
		for (const peer of running) {
			const arrived = async () => {
				const search = { operation: 'search_by_id', ...probe, ids: [id], get_attributes: ['id'] };
				return (await peer.operation(search).catch(() => [])).length === 1;
			};
			const received = async () => {
				const all = await connectionsOf(peer);
				return JSON.stringify(all.filter((one) => one.peer === node.name && one.database === probe.database));
			};
			await untilWhileMoving(arrived, { ...wait, progress: received, what: `a row of ${node.name} on ${peer.name}` });
		}
	}
}
