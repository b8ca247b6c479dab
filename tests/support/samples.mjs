/**
 * Seeded sample rows for source tables: the same arguments give the same rows on every machine.
 */

/** @typedef {import('./values.mjs').Field} Field */

const DAY_MICROS = 86_400_000_000n;

/**
 * A small, fast generator of random numbers (mulberry32) with a seed.
 * @param {number} seed
 * @returns {() => number} Numbers in [0, 1).
 */
export function randomFrom(seed) {
	let state = seed >>> 0;
	return () => {
		state = (state + 0x6d2b79f5) >>> 0;
		let mixed = Math.imul(state ^ (state >>> 15), state | 1);
		mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
	};
}

/**
 * @param {bigint} micros Since 1970.
 * @param {number} digits Of the fraction.
 */
function isoText(micros, digits = 6) {
	const milliseconds = new Date(Number(micros / 1000n)).toISOString();
	const rest = (micros % 1_000_000n).toString().padStart(6, '0').slice(0, digits);
	return `${milliseconds.slice(0, 19)}${digits ? `.${rest}` : ''}Z`;
}

/** @param {string} text */
function microsOf(text) {
	return BigInt(Date.parse(text)) * 1000n;
}

/** @type {Field[]} */
export const VESSEL_SCHEMA = [
	{ name: 'mmsi', type: 'STRING', mode: 'REQUIRED' },
	{ name: 'vessel_name', type: 'STRING' },
	{ name: 'vessel_type', type: 'STRING' },
	{ name: 'latitude', type: 'FLOAT64' },
	{ name: 'longitude', type: 'FLOAT64' },
	{ name: 'speed', type: 'FLOAT64' },
	{ name: 'course', type: 'FLOAT64' },
	{ name: 'heading', type: 'INT64' },
	{ name: 'status', type: 'STRING' },
	{ name: 'timestamp', type: 'TIMESTAMP' },
];

const VESSEL_TYPES = ['CONTAINER', 'BULK_CARRIER', 'TANKER', 'CARGO', 'PASSENGER', 'FISHING'];
const STATUSES = ['UNDERWAY', 'ANCHORED', 'MOORED'];

/**
 * Positions of vessels, evenly over a span of days, with microseconds; in the order of time.
 *
 * @param {object} options
 * @param {number} options.rows
 * @param {number} [options.days] Default 10.
 * @param {string} [options.start] Default 2024-01-01T00:00:00Z.
 * @param {number} [options.vessels] Default 500.
 * @param {number} [options.seed]
 * @returns {Generator<Record<string, any>>}
 */
export function* vesselPositions({ rows, days = 10, start = '2024-01-01T00:00:00Z', vessels = 500, seed = 1 }) {
	const random = randomFrom(seed);
	const first = microsOf(start);
	const step = (BigInt(days) * DAY_MICROS) / BigInt(rows);
	for (let i = 0; i < rows; i++) {
		const vessel = Math.floor(random() * vessels);
		const jitter = BigInt(Math.floor(random() * Number(step)));
		yield {
			mmsi: `${200_000_000 + vessel}`,
			vessel_name: `MV Vessel ${vessel}`,
			vessel_type: VESSEL_TYPES[vessel % VESSEL_TYPES.length],
			latitude: Math.round((random() * 140 - 70) * 1e6) / 1e6,
			longitude: Math.round((random() * 360 - 180) * 1e6) / 1e6,
			speed: Math.round(random() * 250) / 10,
			course: Math.round(random() * 3599) / 10,
			heading: Math.floor(random() * 360),
			status: STATUSES[Math.floor(random() * STATUSES.length)],
			timestamp: isoText(first + step * BigInt(i) + jitter),
		};
	}
}

/**
 * Positions of which always `perSecond` share one whole second: the rows that LIMIT and cursors lose.
 * @param {{rows: number, perSecond: number, start?: string, seed?: number}} options
 * @returns {Generator<Record<string, any>>}
 */
export function* tiedPositions({ rows, perSecond, start = '2024-01-01T00:00:00Z', seed = 2 }) {
	const first = microsOf(start);
	let i = 0;
	for (const row of vesselPositions({ rows, start, seed })) {
		const second = first + BigInt(Math.floor(i++ / perSecond)) * 1_000_000n;
		yield { ...row, timestamp: isoText(second, 0) };
	}
}

/**
 * Every row `copies` times, equal in all columns; the copies follow one another.
 * @param {Iterable<Record<string, any>>} rows
 * @param {number} [copies]
 * @returns {Generator<Record<string, any>>}
 */
export function* duplicated(rows, copies = 2) {
	for (const row of rows) for (let copy = 0; copy < copies; copy++) yield { ...row };
}

/**
 * Every BigQuery type that the emulator stores exactly. GEOGRAPHY and INTERVAL are written in forms of its own, and
 * BIGNUMERIC has 18 digits of fraction there.
 * @type {Field[]}
 */
export const ALL_TYPES_SCHEMA = [
	{ name: 'row_id', type: 'INT64', mode: 'REQUIRED' },
	{ name: 'ts', type: 'TIMESTAMP' },
	{ name: 'int64_value', type: 'INT64' },
	{ name: 'float64_value', type: 'FLOAT64' },
	{ name: 'numeric_value', type: 'NUMERIC' },
	{ name: 'bignumeric_value', type: 'BIGNUMERIC' },
	{ name: 'bool_value', type: 'BOOL' },
	{ name: 'string_value', type: 'STRING' },
	{ name: 'bytes_value', type: 'BYTES' },
	{ name: 'date_value', type: 'DATE' },
	{ name: 'time_value', type: 'TIME' },
	{ name: 'datetime_value', type: 'DATETIME' },
	{ name: 'json_value', type: 'JSON' },
	{ name: 'tags', type: 'STRING', mode: 'REPEATED' },
	{ name: 'numbers', type: 'INT64', mode: 'REPEATED' },
	{
		name: 'position',
		type: 'RECORD',
		fields: [
			{ name: 'latitude', type: 'FLOAT64' },
			{ name: 'longitude', type: 'FLOAT64' },
			{ name: 'seen', type: 'TIMESTAMP' },
		],
	},
	{
		name: 'stops',
		type: 'RECORD',
		mode: 'REPEATED',
		fields: [
			{ name: 'port', type: 'STRING' },
			{ name: 'calls', type: 'INT64' },
		],
	},
];

/** One list of edge values per column; row i takes the i-th, in circles. */
const EDGE_VALUES = {
	int64_value: [0, -1, '9007199254740991', '9007199254740993', '9223372036854775807', '-9223372036854775808', null],
	float64_value: [0, 0.1, -1.5, 1e300, 5e-324, 123456789.12345679, 1e21, null],
	numeric_value: [
		'0',
		'1.5',
		'0.1',
		'-12345678901234567890.123456789',
		'99999999999999999999999999999.999999999',
		null,
	],
	bignumeric_value: ['0', '1.5', '0.000000000000000001', '-12345678901234567890.123456789012345678', null],
	bool_value: [true, false, null],
	string_value: ['', 'plain', 'Zürich 東京 🚢', 'quote " back \\ slash', 'line\nbreak\ttab', 'null', '\u2028', null],
	bytes_value: ['', 'AA==', '/////w==', 'aGVsbG8=', null],
	date_value: ['2024-02-29', '1969-12-31', '9999-12-31', '0001-01-01', null],
	time_value: ['00:00:00', '23:59:59.999999', '12:34:56.5', null],
	datetime_value: ['2024-01-01T00:00:00', '1969-12-31T23:59:59.999999', '9999-12-31T23:59:59.999999', null],
	json_value: [{ a: 1, b: [1, 'two', null, { c: true }] }, [], 'text', 12.5, { 'nested key': { deep: [[]] } }, null],
	tags: [[], ['one'], ['b', 'a', 'b'], ['']],
	numbers: [[], [1, 2, 3], ['9223372036854775807']],
};

/**
 * Rows of all types with edge values in every column; `ts` moves on by 37 s and one microsecond, `row_id` counts.
 * @param {{rows: number, start?: string}} options
 * @returns {Generator<Record<string, any>>}
 */
export function* allTypes({ rows, start = '2024-01-01T00:00:00Z' }) {
	const first = microsOf(start);
	for (let i = 0; i < rows; i++) {
		const ts = isoText(first + BigInt(i) * 37_000_001n);
		/** @type {Record<string, any>} */
		const row = { row_id: i, ts };
		for (const [name, values] of Object.entries(EDGE_VALUES)) row[name] = values[i % values.length];
		row.position = i % 3 === 0 ? null : { latitude: i / 8, longitude: -i / 4, seen: i % 2 ? ts : null };
		row.stops = Array.from({ length: i % 3 }, (_, k) => ({ port: `P${k}`, calls: i + k }));
		yield row;
	}
}
