import type { Client } from '@temporalio/client';
import {
  decodeFromPayloadsAtIndex,
  decodeOptionalFailureToOptionalError,
} from '@temporalio/common/lib/internal-non-workflow/index.js';
import proto from '@temporalio/proto';

import { CONTROL_QUEUE } from '../contracts/names.js';
import { ENCRYPTED } from '../encryption/codec.js';
import { ENCRYPTS } from '../encryption/identity.js';
import { ClientError } from './errors.js';

const { TaskQueueType } = proto.temporal.api.enums.v1;

type PendingActivity = proto.temporal.api.workflow.v1.IPendingActivityInfo;

/** One question to the server. */
const ANSWER_MS = 5_000;
/** A worker that waits for work asks again each minute; the server lists it for five after it has gone. */
const LIVES_MS = 75_000;

/**
 * Refuses to go on when the control workers encrypt and this process does not, or the other way round: the one would
 * put into histories what the other keeps out of them. What is not known refuses nothing.
 *
 * @throws ClientError `KeyMismatch`
 */
export async function requireSameEncryption(client: Client, on: boolean): Promise<void> {
  const states = await controlWorkers(client).catch((): boolean[] => []);
  if (states.length === 0 || states.includes(on)) return;
  throw new ClientError(
    'KeyMismatch',
    on
      ? 'This process encrypts what it gives to Temporal, and the control worker does not.'
      : 'The control worker encrypts what it gives to Temporal, and this process has no keys.',
  );
}

/** Whether each control worker that was there lately encrypts. */
async function controlWorkers(client: Client): Promise<boolean[]> {
  const { pollers } = await client.withDeadline(Date.now() + ANSWER_MS, async () =>
    client.workflowService.describeTaskQueue({
      namespace: client.options.namespace,
      taskQueue: { name: CONTROL_QUEUE },
      taskQueueType: TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    }),
  );
  const since = Date.now() - LIVES_MS;
  return (pollers ?? [])
    .filter(({ lastAccessTime }) => Number(lastAccessTime?.seconds ?? 0) * 1000 > since)
    .map(({ identity }) => identity?.endsWith(ENCRYPTS) ?? false);
}

/** Events at the end of a history that say why a workflow does not go on. */
const LAST_EVENTS = 5;

/**
 * Says so when a workflow cannot be asked because its worker does not have the key of its payloads.
 *
 * @throws ClientError `KeyMismatch`
 */
export async function refuseUnreadable(client: Client, workflowId: string): Promise<void> {
  // That it cannot be asked has been said already: why it cannot be looked at says no more.
  const events = await lastEvents(client, workflowId).catch((): [] => []);
  const unreadable = events.some(
    ({ workflowTaskFailedEventAttributes: failed }) =>
      failed?.failure?.applicationFailureInfo?.type === 'KeyMismatch' ||
      // A worker without keys, whose errors go as they are, without a type.
      failed?.failure?.message?.startsWith(ENCRYPTED) === true,
  );
  if (!unreadable) return;
  throw new ClientError(
    'KeyMismatch',
    `The control worker does not have the key with which ${workflowId} is encrypted; the workflow waits for it.`,
  );
}

async function lastEvents(
  client: Client,
  workflowId: string,
): Promise<proto.temporal.api.history.v1.IHistoryEvent[]> {
  const { history } = await client.withDeadline(Date.now() + ANSWER_MS, async () =>
    client.workflowService.getWorkflowExecutionHistoryReverse({
      namespace: client.options.namespace,
      execution: { workflowId },
      maximumPageSize: LAST_EVENTS,
    }),
  );
  return history?.events ?? [];
}

/** Details of the last heartbeat of an activity; undefined without one. */
export async function heartbeatOf(client: Client, activity: PendingActivity): Promise<unknown> {
  const payloads = activity.heartbeatDetails?.payloads ?? [];
  const { loadedDataConverter } = client.options;
  if (payloads.length === 0) return undefined;
  return decodeFromPayloadsAtIndex<unknown>(loadedDataConverter, 0, payloads);
}

/** Why an activity failed last; undefined when it did not. */
export async function lastFailureOf(
  client: Client,
  { lastFailure }: PendingActivity,
): Promise<{ readonly type: string; readonly message: string } | undefined> {
  const { loadedDataConverter } = client.options;
  const error = await decodeOptionalFailureToOptionalError(loadedDataConverter, lastFailure);
  if (!error?.message) return undefined;
  return { type: lastFailure?.applicationFailureInfo?.type ?? 'Unknown', message: error.message };
}
