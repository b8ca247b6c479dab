/**
 * Microseconds since 1970, as BigQuery's wire format carries a TIMESTAMP.
 * @param {string} text RFC 3339, UTC.
 */
export function microsOf(text) {
	const fraction = /\.(\d+)/.exec(text)?.[1] ?? '';
	const seconds = Date.parse(text.replace(/\.\d+/, '')) / 1_000;
	return `${seconds}${fraction.padEnd(6, '0').slice(0, 6)}`;
}
