/** Loaded into a Harper before its own code: its clock is as many milliseconds ahead as a file says. */

import { readFileSync } from 'node:fs';

const ahead_ms = Number(readFileSync(process.env.TEST_CLOCK_FILE, 'utf8'));
const RealDate = Date;

globalThis.Date = class extends RealDate {
	constructor(...args) {
		if (args.length === 0) super(RealDate.now() + ahead_ms);
		else super(...args);
	}

	static now() {
		return RealDate.now() + ahead_ms;
	}
};
