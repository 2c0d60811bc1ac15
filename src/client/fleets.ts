import type { Client } from '@temporalio/client';
import proto from '@temporalio/proto';

import { fleetWorkflowId, QUERY, UPDATE, WORKFLOW } from '../contracts/names.js';
import type {
  DrainRequest,
  FleetStatus,
  ScaledFleet,
  ScaleRequest,
  StopRequest,
  StopResult,
} from '../contracts/workflows.js';
import { ClientError } from './errors.js';
import { isRunning, queryWorkflow, runningNames } from './entities.js';

/** What a fleet and its engines are like; undefined when there was none of this name. */
export const fleetStatus = (
  client: Client,
  name: string,
  tries?: number,
): Promise<FleetStatus | undefined> =>
  queryWorkflow<FleetStatus>(client, fleetWorkflowId(name), QUERY.status, tries);

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

/**
 * Gives a fleet another number of engines, or lets it scale by itself. Engines that go finish what they have.
 *
 * @throws ClientError `NotFound`; the refusal of the fleet, `InvalidRequest` or `ImpossibleResources`
 */
export async function scaleFleet(
  client: Client,
  name: string,
  request: ScaleRequest,
): Promise<ScaledFleet> {
  const handle = client.workflow.getHandle(await runningFleet(client, name));
  return handle.executeUpdate<ScaledFleet, [ScaleRequest]>(UPDATE.scaleFleet, { args: [request] });
}

/**
 * Lets all engines of a fleet finish what they have and ends it. Returns when it is gone.
 *
 * @param graceSeconds after which what is not finished is given back
 * @throws ClientError `NotFound`
 */
export async function drainFleet(
  client: Client,
  name: string,
  graceSeconds?: number,
): Promise<void> {
  const handle = client.workflow.getHandle(await runningFleet(client, name));
  const request: DrainRequest = graceSeconds === undefined ? {} : { graceSeconds };
  await handle.executeUpdate<StopResult, [DrainRequest]>(UPDATE.drainFleet, { args: [request] });
}

/**
 * Batches that wait in the queue of a fleet, by Temporal's own count, which is approximate. Undefined when the server
 * does not say.
 */
export async function waitingBatches(
  client: Client,
  taskQueue: string,
): Promise<number | undefined> {
  try {
    const { stats } = await client.workflowService.describeTaskQueue({
      namespace: client.options.namespace,
      taskQueue: { name: taskQueue },
      taskQueueType: proto.temporal.api.enums.v1.TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
      reportStats: true,
    });
    return stats ? Number(stats.approximateBacklogCount ?? 0) : undefined;
  } catch {
    // The next look asks again.
    return undefined;
  }
}

async function runningFleet(client: Client, name: string): Promise<string> {
  const workflowId = fleetWorkflowId(name);
  if (await isRunning(client, workflowId)) return workflowId;
  throw new ClientError('NotFound', `There is no fleet ${name} up.`, {
    wayOut: 'See `rankflow fleet status` for those that are.',
  });
}
