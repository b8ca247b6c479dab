/**
 * The rules of time zones, from Node.js. The core has no rules of its own, because they change several times a year.
 */

import { Turn } from './sync/turn.js';

/** Rules are known from here on. */
const FIRST_MS = Date.UTC(1970, 0, 1);
/** After this, the last rule holds. */
const LAST_MS = Date.UTC(2100, 0, 1);
/** No zone changes its clocks and back within this time. The shortest time was the Ramadan of some years. */
const STEP_MS = 14 * 86_400_000;

/** @type {Map<string, [number, number][] | null>} */
const known = new Map();

/**
 * Returns the rules of some zones, and the names of all zones if one of these is not known.
 *
 * The rules of a zone are pairs: from when on (in ms since 1970) its clocks are how far ahead of UTC (in ms).
 * @param {string[]} wanted
 * @returns {Promise<{rules: Record<string, [number, number][]>, names: string[]}>}
 */
export async function timeZones(wanted) {
	const rules = {};
	for (const name of wanted) {
		if (!known.has(name)) known.set(name, await findRules(name));
		const found = known.get(name);
		if (found) rules[name] = found;
	}
	const isComplete = wanted.every((name) => name in rules);
	return { rules, names: isComplete ? [] : Intl.supportedValuesOf('timeZone') };
}

/**
 * Looks at a zone's clocks all along. That takes a tenth of a second, so others have their turns in between.
 * @param {string} name
 * @returns {Promise<[number, number][] | null>} Null if the zone is not known.
 */
async function findRules(name) {
	const aheadAt = clockOf(name);
	if (aheadAt === null) return null;
	const turn = new Turn();
	let ahead = aheadAt(FIRST_MS);
	/** @type {[number, number][]} */
	const rules = [[FIRST_MS, ahead]];
	for (let at = FIRST_MS; at < LAST_MS; at += STEP_MS) {
		if (turn.isOver()) await turn.end();
		const later = aheadAt(at + STEP_MS);
		if (later === ahead) continue;
		rules.push([firstChange(at, at + STEP_MS, (instant) => aheadAt(instant) !== ahead), later]);
		ahead = later;
	}
	return rules;
}

/**
 * Finds the first second after a change, which happens between `before` and `after`.
 * @param {number} before
 * @param {number} after
 * @param {(instant: number) => boolean} hasChanged
 */
function firstChange(before, after, hasChanged) {
	let [unchanged, changed] = [before, after];
	while (changed - unchanged > 1_000) {
		const middle = unchanged + Math.floor((changed - unchanged) / 2_000) * 1_000;
		if (hasChanged(middle)) changed = middle;
		else unchanged = middle;
	}
	return changed;
}

/**
 * Returns a function that tells how far a zone's clocks are ahead of UTC, in ms. Null if the zone is not known.
 * @param {string} timeZone
 * @returns {((instant: number) => number) | null}
 */
function clockOf(timeZone) {
	let format;
	try {
		format = new Intl.DateTimeFormat('en-US', {
			...{ timeZone, calendar: 'gregory', numberingSystem: 'latn', hourCycle: 'h23' },
			...{ year: 'numeric', month: 'numeric', day: 'numeric' },
			...{ hour: 'numeric', minute: 'numeric', second: 'numeric' },
		});
	} catch {
		return null;
	}
	return (instant) => {
		// 1/31/1970, 23:59:59
		const [month, day, year, hour, minute, second] = format.format(instant).match(/\d+/g)?.map(Number) ?? [];
		return Date.UTC(year, month - 1, day, hour, minute, second) - instant;
	};
}
