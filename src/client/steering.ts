import type { Client } from '@temporalio/client';

import { inferenceWorkflowId, UPDATE } from '../contracts/names.js';
import type { SteerRequest } from '../contracts/workflows.js';
import { getRun } from './runs.js';

/**
 * Has a run wait, go on, or end after the batches in flight.
 *
 * @returns false when it had ended already
 * @throws ClientError `NotFound`; the refusal `InvalidRequest` of a run that is about to end, see `describeFailure`
 */
export async function steerRun(
  client: Client,
  runId: string,
  request: SteerRequest,
): Promise<boolean> {
  const { status } = await getRun(client, runId);
  if (status.name !== 'RUNNING') return false;
  const handle = client.workflow.getHandle(inferenceWorkflowId(runId));
  await handle.executeUpdate<void, [SteerRequest]>(UPDATE.steerRun, { args: [request] });
  return true;
}
