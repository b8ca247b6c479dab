const OURS = new URL('.', import.meta.url).href;
let module = '';

/** @param {{standIn: string}} data The module of this folder that test files get in place of node:test. */
export function initialize({ standIn }) {
	module = new URL(standIn, OURS).href;
}

export async function resolve(specifier, context, next) {
	const isOurs = context.parentURL?.startsWith(OURS);
	if (specifier === 'node:test' && !isOurs) return { url: module, shortCircuit: true };
	return next(specifier, context);
}
