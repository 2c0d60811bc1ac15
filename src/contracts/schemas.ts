/** All schemas that cross into Python; published as one JSON Schema file. */
export * from './cluster.js';
export * from './fleet.js';
export * from './inference.js';
export * from './model.js';
export * from './preemption.js';
export * from './run.js';
