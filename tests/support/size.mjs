/**
 * How much a test does: as much as shows what it is about, or with `npm run test:soak` so much that rare trouble shows
 * as well.
 *
 * @template T
 * @param {T} usual
 * @param {T} soak
 * @returns {T}
 */
export function size(usual, soak) {
	return process.env.BIGQUERY_SYNC_SOAK ? soak : usual;
}
