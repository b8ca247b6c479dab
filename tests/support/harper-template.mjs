/**
 * An installed, never started Harper root that each node copies, because installing takes longer than starting.
 */

import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { run, temporaryFolder } from './processes.mjs';

const MODULES = fileURLToPath(new URL('../../node_modules/', import.meta.url));

/** The command of the Harper that this repository pins. */
export const HARPER_COMMAND = path.join(MODULES, '.bin', 'harperdb');
/** The super user of every instance of the bench. */
export const CREDENTIALS = Object.freeze({ username: 'admin', password: 'password' });

/**
 * The environment of a Harper process; nothing of the test's own gets in, above all not its HOME, where Harper would
 * repoint the user's real installation.
 * @param {string} folder Holds `home` and `root`.
 */
export function harperEnvironment(folder) {
	return {
		PATH: process.env.PATH,
		HOME: path.join(folder, 'home'),
		ROOTPATH: path.join(folder, 'root'),
		TC_AGREEMENT: 'yes',
		HDB_ADMIN_USERNAME: CREDENTIALS.username,
		HDB_ADMIN_PASSWORD: CREDENTIALS.password,
		DEFAULTS_MODE: 'dev',
		REPLICATION_HOSTNAME: '127.0.0.1',
		REPLICATION_SECUREPORT: 'null',
		THREADS_DEBUG: 'false',
		LOGGING_STDSTREAMS: 'false',
		MQTT_NETWORK_PORT: 'null',
		MQTT_NETWORK_SECUREPORT: 'null',
		LOCALSTUDIO_ENABLED: 'false',
	};
}

/** @returns {Promise<string>} The template's folder, made at the first use and then kept in the user's cache. */
export async function ensureHarperTemplate() {
	const { version } = JSON.parse(readFileSync(path.join(MODULES, 'harperdb', 'package.json'), 'utf8'));
	const cache = process.env.XDG_CACHE_HOME || path.join(homedir(), '.cache');
	const folder = path.join(cache, 'bigquery-sync', `harperdb-${version}`);
	if (existsSync(folder)) return folder;
	mkdirSync(path.dirname(folder), { recursive: true });
	// Not in the cache itself: Harper checks its path with a pattern that takes minutes over one with dots in it.
	const fresh = temporaryFolder('template');
	mkdirSync(path.join(fresh.path, 'home'));
	const installed = await run(HARPER_COMMAND, ['install'], { cwd: fresh.path, env: harperEnvironment(fresh.path) });
	if (!existsSync(path.join(fresh.path, 'root', 'harperdb-config.yaml'))) {
		throw new Error(`Harper could not be installed:\n${installed.output.slice(-2000)}`);
	}
	const building = mkdtempSync(`${folder}-building-`);
	cpSync(fresh.path, building, { recursive: true });
	fresh.remove();
	try {
		renameSync(building, folder);
	} catch (error) {
		// Another process was faster; its template is as good as this one.
		rmSync(building, { recursive: true, force: true });
		if (!existsSync(folder)) throw error;
	}
	return folder;
}

/**
 * Lays out a fresh Harper installation.
 * @param {string} folder An empty folder; gets `home` and `root`.
 * @param {{authorizeLocal: boolean}} options Whether requests without credentials are super_user.
 */
export async function installHarper(folder, { authorizeLocal }) {
	cpSync(await ensureHarperTemplate(), folder, { recursive: true });
	const configFile = path.join(folder, 'root', 'harperdb-config.yaml');
	const config = readFileSync(configFile, 'utf8');
	const oldRoot = /^rootPath: (.+)$/m.exec(config)?.[1];
	if (!oldRoot) throw new Error(`${configFile} has no rootPath`);
	const moved = config.replaceAll(oldRoot, path.join(folder, 'root'));
	// There is an environment variable for this, and Harper 4.7 ignores it.
	writeFileSync(configFile, moved.replace(/authorizeLocal: \w+/, `authorizeLocal: ${authorizeLocal}`));
	const bootFile = path.join(folder, 'home', '.harperdb', 'hdb_boot_properties.file');
	const boot = readFileSync(bootFile, 'utf8');
	writeFileSync(bootFile, boot.replaceAll(oldRoot, path.join(folder, 'root')));
}
