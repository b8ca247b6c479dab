/**
 * In place of node:test: declares the chosen tests alone, whose full names come in CHOSEN_TESTS as JSON. With node's own
 * filter, a suite without any of them would still start its servers.
 */

import * as real from 'node:test';
import { isWithin, TestPath } from './path.mjs';

/** @type {string[]} */
const chosen = JSON.parse(process.env.CHOSEN_TESTS ?? '[]');
const path = new TestPath();

function chooseTest(declare) {
	return (name, ...rest) => {
		if (chosen.includes(path.of(name))) return declare(name, ...rest);
	};
}

function chooseSuite(declare) {
	return (name, ...rest) => {
		const suite = path.of(name);
		if (!chosen.some((test) => isWithin(test, suite))) return;
		const body = rest.find((one) => typeof one === 'function');
		const others = rest.filter((one) => one !== body);
		return declare(name, ...others, (context) => path.within(name, () => body(context)));
	};
}

const variants = (choose, { skip, todo, only }) => ({ skip: choose(skip), todo: choose(todo), only: choose(only) });

export const test = Object.assign(chooseTest(real.test), variants(chooseTest, real.test));
export const it = test;
export const describe = Object.assign(chooseSuite(real.describe), variants(chooseSuite, real.describe));
export const suite = describe;
export const { before, after, beforeEach, afterEach, mock } = real;
