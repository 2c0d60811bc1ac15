/**
 * The workflows as a versioned worker serves them. An unversioned one must not say any of this: the server refuses its
 * steps then.
 */
import { setWorkflowOptions } from '@temporalio/workflow';

import { clusterWorkflow } from './cluster.js';
import { fleetWorkflow } from './fleet.js';

// They outlive builds of the worker: see `Builds`. All others end with the build that began them.
setWorkflowOptions({ versioningBehavior: 'AUTO_UPGRADE' }, clusterWorkflow);
setWorkflowOptions({ versioningBehavior: 'AUTO_UPGRADE' }, fleetWorkflow);

export * from './index.js';
