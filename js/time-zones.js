/**
 * The rules of time zones, from Node.js. The core has no rules of its own, because they change several times a year.
 */

/** Rules are known from here on. */
const FIRST_MS = Date.UTC(1970, 0, 1);
/** After this, the last rule holds. */
const LAST_MS = Date.UTC(2100, 0, 1);
/** No zone changes its clocks and back within this time. The shortest time was the Ramadan of some years. */
const STEP_MS = 14 * 86_400_000;

/** @type {Map<string, [number, number][] | null>} */
const known = new Map();

export const timeZones = {
	/** The names of all zones. */
	names: () => Intl.supportedValuesOf('timeZone'),

	/**
	 * Returns pairs: from when on (in ms since 1970) a zone's clocks are how far ahead of UTC (in ms). Null if the zone
	 * is not known.
	 * @param {string} name
	 */
	rules(name) {
		const found = known.get(name);
		if (found !== undefined) return found;
		const rules = findRules(name);
		known.set(name, rules);
		return rules;
	},
};

/**
 * @param {string} name
 * @returns {[number, number][] | null}
 */
function findRules(name) {
	const aheadAt = clockOf(name);
	if (aheadAt === null) return null;
	let ahead = aheadAt(FIRST_MS);
	/** @type {[number, number][]} */
	const rules = [[FIRST_MS, ahead]];
	for (let at = FIRST_MS; at < LAST_MS; at += STEP_MS) {
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
