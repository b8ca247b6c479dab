/**
 * Holds indexes back that are incomplete: a search in them answers 503.
 *
 * Only the thread that builds an index knows that it is incomplete. Harper would let all other threads search in it, and
 * all threads after a restart. So each thread does for itself what Harper does on that one thread.
 */

/**
 * Does something after which Harper may use other objects for the indexes of a table, and holds back what was held back.
 * @template T
 * @param {any} table None if it does not exist yet.
 * @param {() => T} action
 * @returns {T}
 */
export function keepHeld(table, action) {
	const held = Object.keys(table?.indices ?? {}).filter((name) => isHeld(table.indices[name]));
	const result = action();
	for (const name of held) hold(table.indices[name]);
	return result;
}

/**
 * Has an index held back from the moment at which this thread gets to know it, because another thread may just have
 * begun to build it.
 */
export function awaitIndex({ indices }, attribute) {
	if (Object.hasOwn(indices, attribute)) return;
	Object.defineProperty(indices, attribute, {
		configurable: true,
		enumerable: false,
		get: () => undefined,
		set(index) {
			hold(index);
			const property = { value: index, writable: true, enumerable: true, configurable: true };
			Object.defineProperty(indices, attribute, property);
		},
	});
}

/** Harper's builder says that it is done before that is known for sure. */
export function hold(index) {
	Object.defineProperty(index, 'isIndexing', { configurable: true, enumerable: true, get: () => true, set() {} });
}

const isHeld = (index) => Object.getOwnPropertyDescriptor(index, 'isIndexing')?.get !== undefined;

export function release(index) {
	if (!isHeld(index)) return;
	Object.defineProperty(index, 'isIndexing', { configurable: true, enumerable: true, writable: true, value: false });
}
