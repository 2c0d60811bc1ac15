export * from './activities.js';
export * from './errors.js';
export * from './hash.js';
export * from './job.js';
export * from './names.js';
export * from './schemas.js';
export * from './workflows.js';
