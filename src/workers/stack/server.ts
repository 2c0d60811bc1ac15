import { Connection } from '@temporalio/client';
import proto from '@temporalio/proto';

import { temporalSettings } from '../../temporal/settings.js';
import type { ProcessSpec } from './config.js';

const { TaskQueueType, WorkerVersioningMode } = proto.temporal.api.enums.v1;

/** One try to reach the server; the caller tries again. */
const CONNECT_MS = 3000;

/**
 * Connects to the Temporal server at `address` with the credentials of this environment.
 *
 * @throws Error when it does not answer, or does not know `namespace`, which happens while it starts
 */
export async function connectTo(address: string, namespace: string): Promise<Connection> {
  const { options } = temporalSettings();
  const connection = await Connection.connect({
    ...options,
    address,
    connectTimeout: CONNECT_MS,
  });
  try {
    await connection.withDeadline(Date.now() + CONNECT_MS, () =>
      connection.workflowService.describeNamespace({ namespace }),
    );
    return connection;
  } catch (error) {
    await connection.close();
    throw error;
  }
}

/**
 * Whether a worker (of the build, unless it is unversioned) polls the queue and started to after `since` (ms since the
 * epoch). The server lists pollers for five minutes after they are gone, so older ones prove nothing.
 */
export async function hasPoller(
  connection: Connection,
  namespace: string,
  queue: NonNullable<ProcessSpec['queue']>,
  since: number,
): Promise<boolean> {
  const { pollers } = await connection.withDeadline(Date.now() + CONNECT_MS, () =>
    connection.workflowService.describeTaskQueue({
      namespace,
      taskQueue: { name: queue.name },
      taskQueueType:
        queue.kind === 'workflow'
          ? TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
          : TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    }),
  );
  return (pollers ?? []).some(({ lastAccessTime, deploymentOptions: deployed }) => {
    const versioned =
      deployed?.workerVersioningMode === WorkerVersioningMode.WORKER_VERSIONING_MODE_VERSIONED;
    if (versioned && queue.build !== undefined && deployed.buildId !== queue.build) return false;
    return Number(lastAccessTime?.seconds ?? 0) * 1000 + 1000 > since;
  });
}
