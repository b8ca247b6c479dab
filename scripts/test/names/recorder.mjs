/** In place of node:test: notes which tests are declared, and runs none. */

import { TestPath } from './path.mjs';

/** @type {string[]} */
let names = [];
const path = new TestPath();

/** The full names of the tests that were declared since the last call. */
export function takeNames() {
	const taken = names;
	names = [];
	return taken;
}

function declareTest(name) {
	names.push(path.of(name));
}

function declareSuite(name, ...rest) {
	const body = rest.find((one) => typeof one === 'function');
	path.within(name, () => body?.({}));
}

const variants = (declare) => Object.assign(declare, { skip: declare, todo: declare, only: declare });
const nothing = () => {};

export const test = variants(declareTest);
export const it = test;
export const describe = variants(declareSuite);
export const suite = describe;
export const before = nothing;
export const after = nothing;
export const beforeEach = nothing;
export const afterEach = nothing;
export { mock } from 'node:test';
