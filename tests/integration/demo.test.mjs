import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { startEmulator, startProcess, temporaryFolder, until } from '../support/index.mjs';

const DEMO = fileURLToPath(new URL('../../scripts/demo.mjs', import.meta.url));
const DEADLINE_MS = 600_000;
const NOTHING_WRONG = { missing: 0, duplicate: 0, phantom: 0, different: 0 };
const SUBJECT = 'who-the-demo-is';
const TOKEN = 'ya29.token-of-the-demo-test';

/** The demo with an environment that names no BigQuery, unless asked, and a temporary folder of its own. */
async function startDemo(args, { env = {} } = {}) {
	const folder = mkdtempSync(path.join(tmpdir(), 'demo-test-'));
	const inherited = { ...process.env };
	for (const name of ['BIGQUERY_EMULATOR_HOST', 'GOOGLE_APPLICATION_CREDENTIALS', 'GCP_PROJECT_ID']) {
		delete inherited[name];
	}
	const running = await startProcess(process.execPath, [DEMO, ...args], {
		env: { ...inherited, TMPDIR: folder, ...env },
	});
	return Object.assign(running, {
		leftBehind: () => readdirSync(folder),
		processes: () => processesNaming(folder),
		remove: () => rmSync(folder, { recursive: true, force: true }),
	});
}

/** The command lines of processes that name a folder; all servers of the demo do. Linux only, elsewhere none. */
function processesNaming(folder) {
	if (!existsSync('/proc/self/cmdline')) return [];
	return readdirSync('/proc')
		.filter((name) => /^\d+$/.test(name))
		.map((pid) => {
			try {
				return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
			} catch {
				return '';
			}
		})
		.filter((line) => line.includes(folder));
}

function lastLine(running) {
	return JSON.parse(running.output().trimEnd().split('\n').pop());
}

async function exitCode(running) {
	const ended = await Promise.race([
		running.exited,
		new Promise((resolve) => setTimeout(resolve, DEADLINE_MS).unref()),
	]);
	assert.ok(ended, `The demo does not end:\n${running.output()}`);
	return ended.code;
}

test('once_copies_the_rows_and_says_so_in_words_and_json', async () => {
	const demo = await startDemo(['--once', '--rows', '3000']);
	try {
		assert.equal(await exitCode(demo), 0, demo.output());
		const { seconds, ...counts } = lastLine(demo);
		assert.deepEqual(counts, { rows: 3000, ...NOTHING_WRONG });
		assert.ok(seconds > 0);
		assert.match(demo.output(), /own licence terms/);
		assert.match(demo.output(), /Both tables are equal/);
		assert.match(demo.output(), /BigQuery has 3,000 rows, Harper has 3,000/);
		assert.ok(!demo.output().includes('\u001b'), 'no colours without a terminal');
		assert.deepEqual(demo.leftBehind(), []);
	} finally {
		await demo.stop();
		demo.remove();
	}
});

for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM'])) {
	test(`${signal}_ends_the_demo_and_all_that_it_started`, async () => {
		const demo = await startDemo(['--rows', '500']);
		try {
			const said = () => /in sync .* steady/.test(demo.output());
			const giveUp = () => !demo.isAlive() && new Error(`The demo ended:\n${demo.output()}`);
			await until(said, { deadlineMs: DEADLINE_MS, what: 'the demo to be in sync', giveUp });
			const curl = /curl -u (\S+) '(\S+)'/.exec(demo.output());
			assert.ok(curl, demo.output());
			const authorization = `Basic ${Buffer.from(curl[1]).toString('base64')}`;
			assert.equal((await (await fetch(curl[2], { headers: { authorization } })).json()).length, 5);
			assert.ok(process.platform !== 'linux' || demo.processes().length >= 2);
			demo.kill(signal);
			assert.equal(await exitCode(demo), 0, demo.output());
			assert.deepEqual(demo.processes(), []);
			assert.deepEqual(demo.leftBehind(), []);
		} finally {
			await demo.stop();
			demo.remove();
		}
	});
}

test('a_wrong_command_line_is_told_and_ends_with_2', async () => {
	const cases = [
		[['--onec'], /no option --onec/],
		[['--rows', 'many'], /--rows is “many”/],
		[['--rows=0'], /from 1 to 10,000,000/],
		[['--rows'], /needs a value/],
		[['--once=yes'], /takes no value/],
		[['--threads', '1', '--threads', '2'], /given twice/],
		[['fast'], /“fast”/],
		[['--location', 'a b'], /location/],
		[['--endpoint', 'example.org'], /endpoint/],
	];
	for (const [args, reason] of cases) {
		const demo = await startDemo(args);
		assert.equal(await exitCode(demo), 2, args.join(' '));
		assert.match(demo.output(), reason);
		assert.match(demo.output(), /--help/);
		demo.remove();
	}
	const help = await startDemo(['--help']);
	assert.equal(await exitCode(help), 0);
	assert.match(help.output(), /--once/);
	help.remove();
});

test('an_emulator_that_does_not_answer_and_a_key_that_is_none_are_told', async () => {
	const cases = [
		[{ BIGQUERY_EMULATOR_HOST: '127.0.0.1:9' }, 'UNREACHABLE'],
		[{ BIGQUERY_EMULATOR_HOST: 'no host' }, 'EMULATOR_HOST'],
		[{ GOOGLE_APPLICATION_CREDENTIALS: '/nowhere/key.json' }, 'CREDENTIALS'],
		[{ GOOGLE_APPLICATION_CREDENTIALS: DEMO }, 'CREDENTIALS'],
	];
	for (const [env, code] of cases) {
		const demo = await startDemo(['--once'], { env });
		assert.equal(await exitCode(demo), 1, demo.output());
		const line = demo
			.output()
			.split('\n')
			.find((text) => text.startsWith('{'));
		assert.equal(JSON.parse(line).error, code, demo.output());
		assert.ok(!/\n\s+at /.test(demo.output()), demo.output());
		demo.remove();
	}
});

const granted = {
	access_token: TOKEN,
	expires_in: 3600,
	token_type: 'Bearer',
	issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
};

/** Gives the token, and lets only requests with the token through to the emulator. */
async function startGuard(emulatorUrl) {
	const seen = { tokens: 0, refused: /** @type {string[]} */ ([]), passed: /** @type {Record<string, number>} */ ({}) };
	const server = createServer((incoming, outgoing) => {
		if (incoming.url === '/token') {
			seen.tokens++;
			outgoing.setHeader('content-type', 'application/json');
			outgoing.end(JSON.stringify(granted));
			return;
		}
		if (incoming.headers.authorization !== `Bearer ${TOKEN}` || incoming.url?.includes(TOKEN)) {
			seen.refused.push(`${incoming.method} ${incoming.url}`);
			outgoing.writeHead(401).end('{"error":{"message":"no token","errors":[{"reason":"authError"}]}}');
			return;
		}
		const who = incoming.headers['user-agent'] ?? 'unknown';
		seen.passed[who] = (seen.passed[who] ?? 0) + 1;
		const headers = { ...incoming.headers };
		delete headers.authorization;
		delete headers.host;
		const passed = request(emulatorUrl + incoming.url, { method: incoming.method, headers }, (answer) => {
			outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
			answer.pipe(outgoing);
		});
		passed.on('error', () => outgoing.destroy());
		incoming.pipe(passed);
	});
	await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
	return { url: `http://127.0.0.1:${port}`, seen, close: () => server.close() };
}

test('with_credentials_each_request_carries_a_token_and_the_dataset_is_deleted', async () => {
	const emulator = await startEmulator();
	const guard = await startGuard(emulator.url);
	const folder = temporaryFolder('key');
	const subjectFile = path.join(folder.path, 'subject');
	writeFileSync(subjectFile, SUBJECT);
	// A service account's token always comes from Google; this kind of credentials names its own token service.
	const key = {
		type: 'external_account',
		audience: '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/demo/providers/demo',
		subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
		token_url: `${guard.url}/token`,
		credential_source: { file: subjectFile },
	};
	const keyFile = path.join(folder.path, 'key.json');
	writeFileSync(keyFile, JSON.stringify(key));
	const env = { GOOGLE_APPLICATION_CREDENTIALS: keyFile, GCP_PROJECT_ID: emulator.project };
	const demo = await startDemo(['--once', '--rows', '3000', '--endpoint', guard.url, '--location', 'EU'], { env });
	try {
		assert.equal(await exitCode(demo), 0, demo.output());
		assert.equal(lastLine(demo).rows, 3000);
		assert.deepEqual(guard.seen.refused, []);
		assert.ok(guard.seen.passed['bigquery-sync (gzip)'] > 0, JSON.stringify(guard.seen));
		assert.match(demo.output(), /uses the real BigQuery, in your project test-project/);
		assert.match(demo.output(), /cost money/);
		assert.ok(!demo.output().includes(TOKEN) && !demo.output().includes(SUBJECT));
		const { datasets = [] } = await (
			await fetch(`${emulator.url}/bigquery/v2/projects/${emulator.project}/datasets`)
		).json();
		const names = datasets.map((/** @type {any} */ dataset) => dataset.datasetReference.datasetId);
		assert.ok(!names.some((name) => name.startsWith('bigquery_sync_demo')), names.join());
	} finally {
		await demo.stop();
		demo.remove();
		guard.close();
		folder.remove();
		await emulator.stop();
	}
});
