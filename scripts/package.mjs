import { cp, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, extname, join } from 'node:path';
import { ensureBuilt } from './build.mjs';
import { readRepositoryFile, repository, runOrFail } from './setup.mjs';
import { ExpectedFailure, formatBytes, print, runMain, step } from './terminal.mjs';

const DIST = join(repository, 'dist');
const REQUIRED = [
	'config.yaml',
	'extension/config.yaml',
	'js/harper/index.js',
	'package.json',
	'pkg/bigquery_sync_bg.wasm',
	'schema.graphql',
];
const NEEDED_BY_DEVELOPERS_ONLY = ['devDependencies', 'overrides', 'scripts'];

async function main() {
	await ensureBuilt();
	const { name, version } = JSON.parse(await readRepositoryFile('package.json'));
	const folder = join(DIST, name);
	const paths = await listFiles();
	await refuseSecrets(paths);
	await step('folder', async () => {
		await copyFiles(paths, folder);
		return `dist/${name}/`;
	});
	const tarball = join(DIST, `${name}-${version}.tgz`);
	await step('tarball', async () => {
		await pack(folder, tarball);
		return `dist/${basename(tarball)}, ${formatBytes((await stat(tarball)).size)}`;
	});
	await printFiles(paths, folder);
	printDeployment(name, version);
}

/** The files that package.json's `files` allows, as npm understands them. */
async function listFiles() {
	const args = ['pack', '--dry-run', '--json', '--ignore-scripts', '--loglevel=error'];
	const { stdout } = await runOrFail('npm could not list the files to package.', 'npm', args);
	const report = JSON.parse(stdout);
	// npm 12 reports an object by package name where earlier ones report a list.
	const [{ files }] = Object.values(report);
	const paths = files.map(({ path }) => path).sort();
	const missing = REQUIRED.filter((path) => !paths.includes(path));
	if (missing.length > 0) throw new ExpectedFailure(`The package would be incomplete. Missing: ${missing.join(', ')}.`);
	return paths;
}

async function refuseSecrets(paths) {
	const secrets = [];
	for (const path of paths) if (await looksSecret(path)) secrets.push(path);
	if (secrets.length === 0) return;
	const advice = 'Move them out of the folders that package.json lists under `files`, then package again.';
	throw new ExpectedFailure(
		`These files look like credentials and are not packaged:\n  ${secrets.join('\n  ')}\n${advice}`
	);
}

async function looksSecret(path) {
	if (/^\.env\b|\.(?:pem|key|p12)$|^service-account.*\.json$/.test(basename(path))) return true;
	const text = await readFile(join(repository, path), 'latin1');
	if (/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text)) return true;
	return extname(path) === '.json' && /"(?:private_key|client_secret|refresh_token)"\s*:/.test(text);
}

async function copyFiles(paths, folder) {
	await rm(folder, { recursive: true, force: true });
	for (const path of paths) {
		await mkdir(dirname(join(folder, path)), { recursive: true });
		await cp(join(repository, path), join(folder, path), { dereference: true });
	}
	const manifest = JSON.parse(await readRepositoryFile('package.json'));
	for (const key of NEEDED_BY_DEVELOPERS_ONLY) delete manifest[key];
	await writeFile(join(folder, 'package.json'), `${JSON.stringify(manifest, null, '\t')}\n`);
}

async function pack(folder, tarball) {
	const args = ['pack', '--json', '--ignore-scripts', '--loglevel=error', '--pack-destination', DIST];
	const { stdout } = await runOrFail('npm could not make the tarball.', 'npm', args, { cwd: folder });
	const [{ filename }] = Object.values(JSON.parse(stdout));
	await rename(join(DIST, filename), tarball);
}

async function printFiles(paths, folder) {
	print();
	let total = 0;
	for (const path of paths) {
		const { size } = await stat(join(folder, path));
		total += size;
		print(`  ${formatBytes(size).padStart(8)}  ${path}`);
	}
	print(`  ${formatBytes(total).padStart(8)}  in ${paths.length} files`);
}

function printDeployment(name, version) {
	print(`
To deploy it as an application of its own, with your settings in its config.yaml:

  cd dist/${name}
  harperdb deploy project=${name} target=https://HOST:9925 username=USER password=PASSWORD restart=true

To use it inside another application, install the tarball there:

  npm install PATH/${name}-${version}.tgz`);
}

await runMain(main);
