export { clusterWorkflow } from './cluster.js';
export { fleetWorkflow } from './fleet.js';
export { inferenceWorkflow } from './inference.js';
export { notifyWorkflow } from './notify.js';
export { jobWorkflow } from './job.js';
export { rankWorkflow } from './rank.js';
export { runWorkflow } from './run.js';
export { scheduledRunWorkflow } from './scheduled-run.js';
