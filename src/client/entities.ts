import { type Client, WorkflowNotFoundError } from '@temporalio/client';

import { QUERY } from '../contracts/names.js';

/**
 * Asks a workflow. Undefined when there is no such workflow; a workflow that was closed answers what it knew last.
 */
export async function queryWorkflow<T>(
  client: Client,
  workflowId: string,
  query: string = QUERY.status,
): Promise<T | undefined> {
  try {
    return (await client.workflow.getHandle(workflowId).query(query)) as T;
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return undefined;
    throw error;
  }
}

/** Whether a workflow runs now. */
export async function isRunning(client: Client, workflowId: string): Promise<boolean> {
  try {
    const { status } = await client.workflow.getHandle(workflowId).describe();
    return status.name === 'RUNNING';
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return false;
    throw error;
  }
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
