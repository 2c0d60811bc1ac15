import type { Client } from '@temporalio/client';

import { fleetWorkflowId, UPDATE, WORKFLOW } from '../contracts/names.js';
import type { FleetStatus, StopRequest, StopResult } from '../contracts/workflows.js';
import { isRunning, queryWorkflow, runningNames } from './entities.js';

/** What a fleet and its engines are like; undefined when there was none of this name. */
export const fleetStatus = (client: Client, name: string): Promise<FleetStatus | undefined> =>
  queryWorkflow<FleetStatus>(client, fleetWorkflowId(name));

/** Names of the fleets that are up or coming up. */
export const listFleets = (client: Client): Promise<string[]> =>
  runningNames(client, WORKFLOW.fleet, fleetWorkflowId(''));

/**
 * Stops a fleet, whoever uses it. Runs wait until it is up again.
 *
 * @returns false when it was not up
 */
export async function stopFleet(client: Client, name: string): Promise<boolean> {
  const workflowId = fleetWorkflowId(name);
  if (!(await isRunning(client, workflowId))) return false;
  const handle = client.workflow.getHandle(workflowId);
  const result = await handle.executeUpdate<StopResult, [StopRequest]>(UPDATE.stopFleet, {
    args: [{}],
  });
  return result.stopped;
}
