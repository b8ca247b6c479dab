/** Imported before a test file, this has it declare the chosen tests alone. */

import { register } from 'node:module';

register('./hooks.mjs', import.meta.url, { data: { standIn: 'chooser.mjs' } });
