import assert from 'node:assert/strict';
import { cpSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import {
	VESSEL_SCHEMA,
	plainApplication,
	run,
	size,
	startHarper,
	temporaryFolder,
	until,
	vesselPositions,
} from '../support/index.mjs';
import { HARPER_COMMAND, harperEnvironment } from '../support/harper-template.mjs';
import { COMPONENT, PATIENCE_MS, problemsIn, readControl, untilEqual } from './support/component.mjs';
import { rationPages, rowsIn } from './support/endings.mjs';
import { DATASET, recent, startSource } from './support/source.mjs';

const ROWS = 5_000;
const BACKLOG_ROWS = size(16_000, 100_000);
/** Over a sync that is under way. */
const DEPLOYS = size(1, 10);
/** A deployment comes when so many rows more are there. */
const ROWS_BETWEEN = 2_000;
const PROJECT = 'bigquery-sync';
const PACKAGE_BYTES_MAX = 2_500_000;
/** Everything that belongs into the package, and nothing else does. */
const SHIPPED = [
	/^(?:config\.yaml|schema\.graphql|package\.json|README\.md|LICENSE|CHANGELOG\.md)$/,
	/^(?:component|extension)\/(?:config\.yaml|package\.json|[\w-]+\.js)$/,
	/^js\/[\w/-]+\.js$/,
	/^pkg\/[\w.]+\.(?:js|wasm|d\.ts)$/,
	/^docs\/[\w/.-]+\.(?:md|svg|png)$/,
];

/** @type {{path: string, remove: () => void}} */
let work;
/** @type {string} */
let folder;
/** @type {string} */
let shippedConfig;

before(async () => {
	const packaged = await run('npm', ['run', 'package', '--silent'], { cwd: COMPONENT, env: process.env });
	assert.equal(packaged.code, 0, packaged.output);
	work = temporaryFolder('deploy');
	folder = path.join(work.path, PROJECT);
	cpSync(path.join(COMPONENT, 'dist', PROJECT), folder, { recursive: true });
	shippedConfig = readFileSync(path.join(folder, 'config.yaml'), 'utf8');
});

after(() => work?.remove());

/** @returns {string[]} Relative paths of all files of the package. */
function shippedFiles() {
	return readdirSync(folder, { recursive: true, withFileTypes: true })
		.filter((entry) => !entry.isDirectory())
		.map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)));
}

test('the_package_holds_nothing_secret_and_nothing_needless', () => {
	const files = shippedFiles();
	const strange = files.filter((file) => !SHIPPED.some((pattern) => pattern.test(file)));
	assert.deepEqual(strange, []);
	for (const file of ['config.yaml', 'schema.graphql', 'js/harper/index.js', 'component/config.yaml', 'README.md']) {
		assert.ok(files.includes(file), file);
	}
	let bytes = 0;
	for (const file of files) {
		const content = readFileSync(path.join(folder, file));
		bytes += content.length;
		assert.doesNotMatch(content.toString('latin1'), /PRIVATE KEY-----|"private_key"\s*:|"refresh_token"\s*:/, file);
	}
	assert.ok(bytes < PACKAGE_BYTES_MAX, `${bytes} bytes`);
	const manifest = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8'));
	assert.equal(manifest.devDependencies, undefined);
	assert.equal(manifest.scripts, undefined);
});

test('the_package_does_not_tell_where_it_was_built', () => {
	const telling = shippedFiles().filter((file) => {
		const content = readFileSync(path.join(folder, file));
		return content.includes(homedir() + path.sep) || content.includes(COMPONENT);
	});
	assert.deepEqual(telling, []);
});

/** @param {import('../support/index.mjs').HarperNode} harper */
function deployTo(harper) {
	const { username, password } = harper.credentials;
	const target = [`target=${harper.operationsUrl}`, `username=${username}`, `password=${password}`];
	return run(HARPER_COMMAND, ['deploy', `project=${PROJECT}`, ...target, 'restart=true'], {
		cwd: folder,
		env: harperEnvironment(work.path),
	});
}

describe('the package deployed with harperdb deploy', () => {
	/** @type {import('./support/source.mjs').Source} */
	let source;
	/** @type {import('../support/index.mjs').HarperNode} */
	let harper;
	const application = plainApplication({ schema: 'type Widget @table @export { id: ID @primaryKey }' });
	const vessels = { table: 'vessels', target: 'BigQueryData' };

	before(async () => {
		source = await startSource();
		await source.fill('vessels', VESSEL_SCHEMA, vesselPositions({ rows: ROWS }));
		// The server installs the dependencies with npm, here from the user's cache where it has them.
		const env = { npm_config_cache: path.join(homedir(), '.npm'), npm_config_prefer_offline: 'true' };
		harper = await startHarper({ application: application.path, threads: 2, env });
		configurePackage({});
	});

	/** @param {Record<string, unknown>} changed Further keys of `bigquery`. */
	function configurePackage(changed) {
		const bigquery = { ...source.connection(), table: 'vessels', timestampColumn: 'timestamp', ...changed };
		const sections = Object.entries({ bigquery, sync: { pollInterval: 500 } });
		// JSON is YAML.
		const text = sections.map(([key, value]) => `${key}: ${JSON.stringify(value)}\n`).join('');
		writeFileSync(path.join(folder, 'config.yaml'), `${shippedConfig}${text}`);
	}

	after(async () => {
		await harper?.remove();
		application.remove();
		await source?.stop();
	});

	test('brings_the_rows_into_a_running_harper', async () => {
		const deployed = await deployTo(harper);
		assert.equal(deployed.code, 0, deployed.output);
		assert.match(deployed.output, /Successfully deployed/, deployed.output);
		assert.equal((await untilEqual({ source, harper }, vessels)).targetRows, ROWS);
		const { configurationErrors } = await untilInForce('vessels');
		assert.deepEqual(configurationErrors, [], problemsIn(harper));
	});

	/**
	 * Waits until the workers answer that have the new configuration; in a rolling restart the old ones still do.
	 * @param {string} id The only table of the new configuration.
	 */
	function untilInForce(id) {
		const inForce = async () => {
			const report = await readControl(harper);
			return report.tables.map((/** @type {{id: string}} */ one) => one.id).join() === id && report;
		};
		return until(inForce, { deadlineMs: PATIENCE_MS, what: `the configuration with the table ${id} alone` });
	}

	test('leaves_the_application_that_ran_before_alone', async () => {
		assert.equal((await harper.request('/Widget/')).status, 200);
	});

	test('has_its_dependencies_installed_by_the_server', () => {
		const modules = path.join(harper.root, 'components', PROJECT, 'node_modules');
		const { dependencies } = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8'));
		const installed = readdirSync(modules);
		for (const name of Object.keys(dependencies)) assert.ok(installed.includes(name.split('/')[0]), name);
	});

	test('goes_on_after_a_kill_and_a_restart_of_harper', async () => {
		await harper.kill('SIGKILL');
		await harper.start();
		const rows = recent(vesselPositions({ rows: 100, seed: 2 }), { agoMs: 60_000 });
		await source.bigquery.loadRows(DATASET, 'vessels', rows);
		assert.equal((await untilEqual({ source, harper }, vessels)).targetRows, ROWS + 100);
	});

	test('can_be_deployed_again_with_another_configuration', async () => {
		configurePackage({ id: 'again', targetTable: 'Redeployed' });
		const deployed = await deployTo(harper);
		assert.equal(deployed.code, 0, deployed.output);
		const redeployed = { table: 'vessels', target: 'Redeployed' };
		assert.equal((await untilEqual({ source, harper }, redeployed)).targetRows, ROWS + 100);
		await untilInForce('again');
	});

	test('loses_no_row_when_it_is_deployed_in_mid_backfill', async (context) => {
		await source.fill('backlog', VESSEL_SCHEMA, vesselPositions({ rows: BACKLOG_ROWS, seed: 3 }));
		const ration = rationPages(source);
		let rows = 0;
		try {
			for (let number = 0; number <= DEPLOYS; number++) {
				const table = { table: 'backlog', id: 'backlog', targetTable: 'Backlog' };
				configurePackage({ ...table, batchSize: 500 + number });
				const deployed = await deployTo(harper);
				assert.equal(deployed.code, 0, deployed.output);
				await untilInForce('backlog');
				ration.renew();
				const wanted = rows + ROWS_BETWEEN;
				const arrived = async () => ((await rowsIn(harper, 'backlog')) ?? 0) >= wanted;
				await until(arrived, { deadlineMs: PATIENCE_MS, everyMs: 50, what: `${wanted} rows` });
				rows = (await rowsIn(harper, 'backlog')) ?? wanted;
				assert.ok(rows < BACKLOG_ROWS, 'there is still something to read');
				context.diagnostic(`deployed; ${rows} rows`);
			}
		} finally {
			ration.remove();
		}
		const backlog = { table: 'backlog', target: 'Backlog' };
		assert.equal((await untilEqual({ source, harper }, backlog)).targetRows, BACKLOG_ROWS);
	});
});
