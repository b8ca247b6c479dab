/** The rooms of the core in one order: each may import those before it, and none behind it. */
const ROOMS = [
	'time',
	'error',
	'log',
	'config',
	'cluster',
	'partition',
	'bigquery',
	'mapping',
	'schema',
	'validation',
	'engine',
	'operations',
	'wasm',
];

/** Finds what a file of the core imports against the order of the rooms. */
export function checkRooms(path, text) {
	const room = /^src\/(\w+?)(?:\.rs|\/.*\.rs)$/.exec(path)?.[1];
	if (room === undefined || room === 'lib') return [];
	if (!ROOMS.includes(room)) {
		return [`${path} is in a room that scripts/lint/rooms.mjs does not know: give it its place`];
	}
	const imported = [...text.matchAll(/\bcrate::(?:(\w+)|\{(.*?)\};)/gs)].flatMap(([, one, several]) =>
		one === undefined ? (several.match(/\b\w+(?=::|,|$)/g) ?? []) : [one]
	);
	const behind = new Set(imported.filter((other) => ROOMS.indexOf(other) > ROOMS.indexOf(room)));
	return [...behind].map((other) => `${path} imports ${other}, which is behind ${room} in scripts/lint/rooms.mjs`);
}
