import { readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { repository, runOrFail } from '../process.mjs';
import { ExpectedFailure } from '../terminal.mjs';
import { checkRooms } from './rooms.mjs';

const LINES_MAX = 800;
const CODE = new Set(['.css', '.html', '.js', '.mjs', '.py', '.rs', '.ts']);
const BINARY = new Set(['.avro', '.gz', '.ico', '.parquet', '.png', '.tgz', '.wasm', '.woff2']);
const CRATES_IO = 'registry+https://github.com/rust-lang/crates.io-index';

/** What no file may hold, and why. */
const FORBIDDEN = [
	{
		pattern: /registry\.npmjs\.|registry\.yarnpkg\.|(?:index|static)\.crates\.io|pythonhosted\.org|pypi\.org\/simple/,
		reason: 'names the host of a package registry; which one is used is the affair of each machine',
	},
	{
		pattern: /(?:^|[\s"'`(=:])(?:\/home\/[a-z][\w.-]*|\/Users\/[A-Za-z][\w.-]*|\/root)\//,
		reason: 'holds an absolute path of one machine',
	},
	{
		pattern: /-----BEGIN (?:RSA |EC )?PRIVATE KEY-----/,
		reason: 'holds a private key; generate one where it is needed',
	},
];

/** Checks all files that are, or would be, in version control. */
export async function checkRepository() {
	const list = await runOrFail('git could not list the files.', 'git', [
		'ls-files',
		'-z',
		'--cached',
		'--others',
		'--exclude-standard',
	]);
	const paths = list.stdout.split('\0').filter((path) => path && !BINARY.has(extname(path)));
	const problems = [];
	for (const path of paths) {
		const text = await readFile(join(repository, path), 'utf8').catch(() => undefined);
		if (text !== undefined) problems.push(...checkText(path, text));
	}
	if (problems.length > 0) throw new ExpectedFailure('Some files have to be repaired.', problems.join('\n'));
	return `${paths.length} files`;
}

function checkText(path, text) {
	const lines = text.split('\n');
	const problems = lines.flatMap((line, index) => checkLine(line).map((reason) => `${path}:${index + 1} ${reason}`));
	const count = text.endsWith('\n') ? lines.length - 1 : lines.length;
	if (CODE.has(extname(path)) && count > LINES_MAX) {
		problems.push(`${path} has ${count} lines; ${LINES_MAX} is the limit`);
	}
	if (path.endsWith('package-lock.json') && /"resolved": "https?:/.test(text)) {
		problems.push(`${path} names registry hosts; \`npm install --omit-lockfile-registry-resolved\` leaves them out`);
	}
	problems.push(...checkRooms(path, text));
	if (path.endsWith('Cargo.lock')) problems.push(...checkSources(path, text));
	return problems;
}

function checkLine(line) {
	return FORBIDDEN.filter(({ pattern }) => pattern.test(line)).map(({ reason }) => reason);
}

function checkSources(path, text) {
	const sources = [...text.matchAll(/^source = "(.+)"$/gm)].map((match) => match[1]);
	const others = new Set(sources.filter((source) => source !== CRATES_IO));
	return [...others].map((source) => `${path} takes a crate from ${source} instead of crates.io`);
}
