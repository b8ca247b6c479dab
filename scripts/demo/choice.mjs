import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { DemoFailure } from './failure.mjs';

const SERVICE = 'https://bigquery.googleapis.com';

/**
 * @typedef {object} Choice Which BigQuery the demo talks to.
 * @property {'own' | 'running' | 'service'} kind An emulator of the demo's own, one that is running already, or Google's.
 * @property {string} project
 * @property {string} url Empty for an emulator that is yet to be started.
 * @property {string | undefined} keyFile
 * @property {string[]} notice What the user must know before anything is created.
 */

/**
 * Decides which BigQuery is used, from the environment, and creates nothing.
 *
 * @param {import('./options.mjs').DemoOptions} options
 * @returns {Promise<Choice>}
 */
export async function chooseSource({ emulator, endpoint, location }) {
	const { BIGQUERY_EMULATOR_HOST, GOOGLE_APPLICATION_CREDENTIALS, GCP_PROJECT_ID } = process.env;
	const project = GCP_PROJECT_ID || 'test-project';
	if (BIGQUERY_EMULATOR_HOST) {
		return { kind: 'running', project, url: emulatorAddress(BIGQUERY_EMULATOR_HOST), keyFile: undefined, notice: [] };
	}
	if (emulator || !GOOGLE_APPLICATION_CREDENTIALS) {
		return { kind: 'own', project: 'test-project', url: '', keyFile: undefined, notice: [] };
	}
	const keyFile = resolve(GOOGLE_APPLICATION_CREDENTIALS);
	const key = await readKey(keyFile);
	const billed = GCP_PROJECT_ID || key.project_id;
	if (!billed) {
		throw new DemoFailure(
			'NO_PROJECT',
			'The credentials name no project: set GCP_PROJECT_ID to your Google Cloud project.'
		);
	}
	const notice = [
		`This uses the real BigQuery, in your project ${billed}, because`,
		'GOOGLE_APPLICATION_CREDENTIALS is set. It creates a dataset of its own',
		`(location ${location}) and deletes it at the end. Queries, storage and streaming may`,
		'cost money: there is a query every 5 seconds, each bills 10 MB at least, which',
		'makes about 7 GB an hour. `npm run demo -- --emulator` needs no BigQuery.',
	];
	return { kind: 'service', project: billed, url: endpoint ?? SERVICE, keyFile, notice };
}

function emulatorAddress(host) {
	const address = /^https?:\/\//.test(host) ? host : `http://${host}`;
	if (URL.canParse(address)) return new URL(address).origin;
	throw new DemoFailure('EMULATOR_HOST', `BIGQUERY_EMULATOR_HOST is “${host}”; allowed is host:port.`);
}

/** Messages never quote the file. */
async function readKey(file) {
	const hint = 'GOOGLE_APPLICATION_CREDENTIALS must name a key file; to use an emulator instead, add `-- --emulator`.';
	let text;
	try {
		text = await readFile(file, 'utf8');
	} catch (error) {
		const { code } = /** @type {NodeJS.ErrnoException} */ (error);
		throw new DemoFailure('CREDENTIALS', `The credentials file ${file} cannot be read (${code}).\n${hint}`);
	}
	try {
		const key = JSON.parse(text);
		if (typeof key?.type === 'string') return key;
	} catch {
		// The parser's message would quote the file.
	}
	throw new DemoFailure('CREDENTIALS', `The credentials file ${file} is not a Google key file (JSON).\n${hint}`);
}
