import { interceptors as traced } from '@temporalio/interceptors-opentelemetry/lib/workflow-interceptors.js';
import { workflowInfo, type WorkflowInterceptors } from '@temporalio/workflow';

import { WORKFLOW } from '../contracts/names.js';

/**
 * They live for weeks, and look at something every few seconds: that is no trace. They must not be intercepted either,
 * as that changes the order in which their updates go on: traces could then not be turned on or off while they run.
 */
const ENTITIES: ReadonlySet<string> = new Set([WORKFLOW.fleet, WORKFLOW.cluster]);

/** Bundled with the workflows where traces are on. */
export const interceptors = (): WorkflowInterceptors =>
  ENTITIES.has(workflowInfo().workflowType) ? {} : traced();
