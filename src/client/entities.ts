import { setTimeout } from 'node:timers/promises';

import {
  type Client,
  type WorkflowExecutionDescription,
  WorkflowNotFoundError,
  isGrpcDeadlineError,
} from '@temporalio/client';

import { ASK_AGAIN, QUERY } from '../contracts/names.js';
import { QUERY_MS } from '../temporal/sticky.js';
import { refuseUnreadable } from './encryption.js';

/** A workflow task that is due is over by then. */
const PAUSE_MS = 500;
/** With so many tries a query is answered though a worker was killed: then another one is asked at last. */
const TRIES = 5;

/**
 * Asks a workflow. Undefined when there is no such workflow; a workflow that was closed answers what it knew last.
 *
 * @param tries of 4 s each
 * @throws ClientError `KeyMismatch` when its worker cannot read it
 * @throws ServiceError when nobody answers
 */
export async function queryWorkflow<T>(
  client: Client,
  workflowId: string,
  query: string = QUERY.status,
  tries = TRIES,
): Promise<T | undefined> {
  const handle = client.workflow.getHandle(workflowId);
  const ask = async () => handle.query<T>(query);
  try {
    return await client.withDeadline(Date.now() + QUERY_MS, ask);
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return undefined;
    const tooEarly = error instanceof Error && error.message.includes(ASK_AGAIN);
    if (!tooEarly) await refuseUnreadable(client, workflowId);
    if (tries <= 1 || !(tooEarly || isGrpcDeadlineError(error))) throw error;
    if (tooEarly) await setTimeout(PAUSE_MS);
    return queryWorkflow(client, workflowId, query, tries - 1);
  }
}

/** The newest execution of a workflow; undefined when Temporal knows none (any more). */
export async function describeWorkflow(
  client: Client,
  workflowId: string,
): Promise<WorkflowExecutionDescription | undefined> {
  try {
    return await client.workflow.getHandle(workflowId).describe();
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return undefined;
    throw error;
  }
}

/** Whether a workflow runs now. */
export async function isRunning(client: Client, workflowId: string): Promise<boolean> {
  const description = await describeWorkflow(client, workflowId);
  return description?.status.name === 'RUNNING';
}

/** Names of the workflows of a type that run now; `prefix` is cut off their ids. */
export async function runningNames(
  client: Client,
  type: string,
  prefix: string,
): Promise<string[]> {
  const query = `WorkflowType = '${type}' AND ExecutionStatus = 'Running'`;
  const names: string[] = [];
  for await (const { workflowId } of client.workflow.list({ query })) {
    names.push(workflowId.slice(prefix.length));
  }
  return names.toSorted();
}
