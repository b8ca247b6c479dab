/** The whole test bench in one import. */

export * from './application.mjs';
export { BigQueryClient, BigQueryError, bigQueryClient } from './bigquery.mjs';
export * from './compare.mjs';
export * from './emulator.mjs';
export * from './fault-proxy.mjs';
export { FAULT } from './faults.mjs';
export * from './harper.mjs';
export { run, startProcess, temporaryFolder } from './processes.mjs';
export * from './ports.mjs';
export {
	ALL_TYPES_SCHEMA,
	VESSEL_SCHEMA,
	allTypes,
	duplicated,
	randomFrom,
	tiedPositions,
	vesselPositions,
} from './samples.mjs';
export * from './size.mjs';
export * from './values.mjs';
export * from './wait.mjs';
