/**
 * Workflows whose code does not fit their history any more: Temporal tries their next step for ever, and they are stuck.
 * They are reset to the first step that their code does not do again. What they had heard since is given to them again.
 */
import { setTimeout as pause } from 'node:timers/promises';

import type { Client, WorkflowExecutionDescription } from '@temporalio/client';
import proto from '@temporalio/proto';
import { Worker, type Logger, type ReplayWorkerOptions } from '@temporalio/worker';
import { DeterminismViolationError } from '@temporalio/workflow';

import { WORKFLOW } from '../contracts/names.js';
import type { Build } from './build.js';
import { readDeployment } from './deployment.js';

type Event = proto.temporal.api.history.v1.IHistoryEvent;

const {
  EventType,
  VersioningBehavior,
  WorkflowTaskFailedCause: Cause,
} = proto.temporal.api.enums.v1;

/** Ranks and runs are begun again by what has started them (`begun-again.ts`), as they keep nothing but in the store. */
const TYPES = Object.values(WORKFLOW).filter(
  (type) => type !== WORKFLOW.rank && type !== WORKFLOW.run,
);
const RUNNING = `ExecutionStatus = 'Running' AND WorkflowType IN (${TYPES.map((type) => `'${type}'`).join(', ')})`;
const LOOK_MS = 15_000;
/** A first attempt at a step is not known to have failed. */
const FAILED_ATTEMPTS = 2;
/** Of one history: more often it is no accident, and somebody has to look. */
const MOST_RESETS = 5;

/** What is needed to find a workflow's misfit. */
export interface Replaying {
  readonly client: Client;
  /** Where this worker's workflow code is. */
  readonly code: Pick<ReplayWorkerOptions, 'workflowBundle' | 'workflowsPath' | 'dataConverter'>;
  /** Absent: this worker takes all workflows. */
  readonly build?: Build | undefined;
  readonly logger: Logger;
}

/** Looks for misfits until `signal` says so. */
export async function mendMisfits(replaying: Replaying, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await resetMisfits(replaying);
    } catch (error) {
      // A server that is away is told of elsewhere, and looked for again.
      replaying.logger.debug('could not look for workflows that are stuck', {
        error: String(error),
      });
    }
    await pause(LOOK_MS, undefined, { signal, ref: false }).catch(() => {});
  }
}

/**
 * Resets every workflow of this worker that is stuck as its code does not fit its history.
 *
 * @returns their ids
 * @throws ServiceError when the server does not answer
 */
export async function resetMisfits(replaying: Replaying): Promise<string[]> {
  const { client } = replaying;
  const reset: string[] = [];
  for await (const { workflowId, runId } of client.workflow.list({ query: RUNNING })) {
    const described = await client.workflow.getHandle(workflowId, runId).describe();
    const attempt = described.raw.pendingWorkflowTask?.attempt ?? 0;
    if (attempt < FAILED_ATTEMPTS || !(await isOwn(described, replaying))) continue;
    try {
      if (await resetMisfit(workflowId, runId, replaying)) reset.push(workflowId);
    } catch (error) {
      // It hides no other one that is stuck.
      replaying.logger.warn(`${workflowId} could not be looked at`, { error: String(error) });
    }
  }
  return reset;
}

/** Whether this worker's code is the code that is to go on with it. */
async function isOwn(
  { raw }: WorkflowExecutionDescription,
  { client, build }: Replaying,
): Promise<boolean> {
  if (build === undefined) return true;
  const info = raw.workflowExecutionInfo?.versioningInfo;
  return info?.behavior === VersioningBehavior.VERSIONING_BEHAVIOR_PINNED
    ? info.deploymentVersion?.buildId === build.id
    : (await readDeployment(client))?.current === build.id;
}

async function resetMisfit(
  workflowId: string,
  runId: string,
  replaying: Replaying,
): Promise<boolean> {
  const { client, logger } = replaying;
  const history = await client.workflow.getHandle(workflowId, runId).fetchHistory();
  const events = history.events ?? [];
  if (
    !events.some((event) =>
      failedFor(event, Cause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR),
    )
  ) {
    return false;
  }
  const step = await firstMisfit(workflowId, events, replaying);
  if (step?.eventId === undefined || step.eventId === null) return false;
  const fields = { workflowId, runId, eventId: Number(step.eventId) };
  const resets = events.filter((event) =>
    failedFor(event, Cause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW),
  );
  if (resets.length >= MOST_RESETS) {
    logger.error(
      `${workflowId} is stuck: its history does not fit its code, again and again`,
      fields,
    );
    return false;
  }
  await client.workflowService.resetWorkflowExecution({
    namespace: client.options.namespace,
    workflowExecution: { workflowId, runId },
    reason: 'its history does not fit its code',
    workflowTaskFinishEventId: step.eventId,
    // Of several workers that see it the first resets it.
    requestId: `misfit-${runId}-${Number(step.eventId)}`,
  });
  logger.error(`${workflowId} is reset: its history did not fit its code`, fields);
  return true;
}

const failedFor = (event: Event, cause: proto.temporal.api.enums.v1.WorkflowTaskFailedCause) =>
  event.workflowTaskFailedEventAttributes?.cause === cause;

/** The first completed step that the code does not do again; undefined when it does them all. */
async function firstMisfit(
  workflowId: string,
  events: readonly Event[],
  { code }: Replaying,
): Promise<Event | undefined> {
  const steps = events.flatMap((event, at) =>
    event.eventType === EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED ? [{ event, at }] : [],
  );
  // What a step has done is looked at as the next one starts.
  const fits = async (step: number): Promise<boolean> => {
    const started = events.findIndex(
      ({ eventType }, at) =>
        at > (steps[step]?.at ?? 0) && eventType === EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED,
    );
    const until = { events: events.slice(0, started < 0 ? events.length : started + 1) };
    return Worker.runReplayHistory(code, until, workflowId).then(
      () => true,
      (error: unknown) => {
        if (error instanceof DeterminismViolationError) return false;
        throw error;
      },
    );
  };
  let [fitting, misfit] = [-1, steps.length];
  while (misfit - fitting > 1) {
    const middle = Math.floor((fitting + misfit) / 2);
    if (await fits(middle)) fitting = middle;
    else misfit = middle;
  }
  return steps[misfit]?.event;
}
