import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import {
  CancellationScope,
  ChildWorkflowCancellationType,
  ParentClosePolicy,
  TemporalFailure,
  defineQuery,
  executeChild,
  isCancellation,
  log,
  proxyActivities,
  setCurrentDetails,
  setHandler,
  startChild,
  workflowInfo,
} from '@temporalio/workflow';

import type { ControlActivities } from '../contracts/activities.js';
import { CONTROL_QUEUE, QUERY, inferenceWorkflowId, notifyWorkflowId } from '../contracts/names.js';
import type { Occurrence, ScheduledRun } from '../contracts/schedule.js';
import { runAttributes } from '../contracts/search-attributes.js';
import type {
  EndedRun,
  RunResult,
  ScheduledResult,
  ScheduledStatus,
} from '../contracts/workflows.js';
import { counted, shortName } from '../text.js';
import { Attributes } from './attributes.js';
import { problemRows, table } from './details.js';
import { problemOf, workflowFailure } from './failures.js';
import { inferenceWorkflow } from './inference.js';
import { notifyWorkflow } from './notify.js';
import { A_FEW_TRIES, UNTIL_DONE } from './options.js';

export const scheduledStatusQuery = defineQuery<ScheduledStatus>(QUERY.status);

const control = proxyActivities<Pick<ControlActivities, 'planOccurrence' | 'prepareScheduledRun'>>({
  taskQueue: CONTROL_QUEUE,
  // The input is hashed: minutes for a hundred gigabytes, more from a slow bucket.
  startToCloseTimeout: '2 hours',
  // They heartbeat every 5 s.
  heartbeatTimeout: '1 minute',
  retry: UNTIL_DONE,
});

const runs = proxyActivities<Pick<ControlActivities, 'awaitRun'>>({
  taskQueue: CONTROL_QUEUE,
  // It waits for a run that somebody else started: as long as runs take.
  startToCloseTimeout: '30 days',
  // It heartbeats every 5 s while it waits, so that a control worker that went away is noticed.
  heartbeatTimeout: '30 seconds',
  retry: UNTIL_DONE,
});

const results = proxyActivities<Pick<ControlActivities, 'publishResults'>>({
  taskQueue: CONTROL_QUEUE,
  // Results are copied to a folder or a bucket, or removed: minutes for millions of rows.
  startToCloseTimeout: '2 hours',
  heartbeatTimeout: '1 minute',
  // A store that is away comes back.
  retry: UNTIL_DONE,
});

const tidying = proxyActivities<Pick<ControlActivities, 'pruneScheduled'>>({
  taskQueue: CONTROL_QUEUE,
  startToCloseTimeout: '2 hours',
  heartbeatTimeout: '1 minute',
  // The next run removes what this one could not.
  retry: A_FEW_TRIES,
});

/** Between two looks for an input that is waited for: soon enough for a night, rare enough for a bucket. */
const LOOK_EVERY = '20 seconds';

/** One start of a schedule: its input, its run, and what is done with the results. */
export async function scheduledRunWorkflow(run: ScheduledRun): Promise<ScheduledResult> {
  const attributes = new Attributes();
  let status: ScheduledStatus = { schedule: run.schedule, phase: 'planning' };
  const enter = (change: Partial<ScheduledStatus>): void => {
    status = { ...status, ...change };
    setCurrentDetails(detailsOf(status));
  };
  setHandler(scheduledStatusQuery, () => status);
  enter({});

  const occurrence = await control.planOccurrence.executeWithOptions(
    { summary: 'Fill in the date' },
    [{ run, nominal: nominalTime().toISOString() }],
  );
  const { runId, date, nominal } = occurrence;
  enter({ phase: 'waiting for input', runId, date, nominal });
  let ended: ScheduledResult | undefined;
  let failure: TemporalFailure | undefined;
  try {
    if (await hasInput(run, occurrence)) {
      attributes.set({ state: 'in_progress' });
      enter({ phase: 'running' });
      const result = await generate(run, occurrence, attributes);
      enter({ phase: 'publishing', state: result.state });
      ended = await CancellationScope.nonCancellable(() => conclude(run, occurrence, result));
    } else {
      log.info('there is no input', { input: occurrence.input });
      ended = { runId, date, nominal, state: 'skipped' };
    }
  } catch (error) {
    if (!(error instanceof TemporalFailure)) throw error;
    failure = error;
  }
  const cancelled = isCancellation(failure);
  const problem = failure && !cancelled ? problemOf(failure) : undefined;
  const state = cancelled ? 'cancelled' : 'failed';
  const told: EndedRun = ended ?? { runId, date, nominal, state, ...(problem && { problem }) };
  attributes.set({ state: told.state });
  enter({ phase: 'done', state: told.state, ...(problem && { problem }) });
  await CancellationScope.nonCancellable(() => tell(run, told));
  if (ended !== undefined) return ended;
  // A start that was cancelled is no failure: it must not pause the schedule.
  if (failure !== undefined && cancelled) throw failure;
  throw workflowFailure(failure);
}

/** The time that this start is for, however late it is. */
function nominalTime(): Date {
  const { searchAttributes, startTime } = workflowInfo();
  const [nominal] = (searchAttributes['TemporalScheduledStartTime'] ?? []) as unknown[];
  return nominal instanceof Date ? nominal : startTime;
}

/** Waits for the input as long as it may take. Fails without it, unless the schedule is to skip then. */
async function hasInput(run: ScheduledRun, { input }: Occurrence): Promise<boolean> {
  const { waitForInputSeconds: wait, noInput } = run;
  const { findInput } = proxyActivities<Pick<ControlActivities, 'findInput'>>({
    taskQueue: CONTROL_QUEUE,
    // One look at a folder or a bucket.
    startToCloseTimeout: '2 minutes',
    // Looks go on as long as the input may take; without a wait, as long as a store may be away.
    scheduleToCloseTimeout: wait > 0 ? `${wait} seconds` : '10 minutes',
    retry: {
      initialInterval: LOOK_EVERY,
      backoffCoefficient: 1,
      nonRetryableErrorTypes: UNTIL_DONE.nonRetryableErrorTypes,
    },
  });
  const summary = wait === 0 ? 'Look for the input' : `Wait up to ${wait} s for the input`;
  try {
    const { found } = await findInput.executeWithOptions({ summary }, [
      { input, wait: wait > 0, fail: noInput === 'fail' },
    ]);
    return found;
  } catch (error) {
    if (noInput === 'skip' && problemOf(error).type === 'InputMissing') return false;
    throw error;
  }
}

/** Generates the run, or finds it generated or being generated: one run id is one run. */
async function generate(
  run: ScheduledRun,
  occurrence: Occurrence,
  attributes: Attributes,
): Promise<RunResult> {
  const { runId, date } = occurrence;
  const deadline =
    run.deadlineSeconds === undefined
      ? undefined
      : new Date(workflowInfo().startTime.getTime() + run.deadlineSeconds * 1000).toISOString();
  const prepared = await control.prepareScheduledRun.executeWithOptions(
    { summary: `Check the input of ${date} and look for run ${runId}` },
    [{ run, occurrence, ...(deadline !== undefined && { deadline }) }],
  );
  if (prepared.finished !== undefined) return prepared.finished;
  if (!prepared.running) {
    const { inference, memo, priority } = prepared;
    try {
      return await executeChild(inferenceWorkflow, {
        workflowId: inferenceWorkflowId(runId),
        args: [inference],
        memo: { run: memo },
        priority,
        // It may have failed before: it goes on from what it committed.
        workflowIdReusePolicy: 'ALLOW_DUPLICATE',
        // A run that is cancelled still assembles what is done.
        cancellationType: ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        parentClosePolicy: ParentClosePolicy.REQUEST_CANCEL,
        staticSummary: `${shortName(inference.run.model.model)}, ${run.schedule} of ${date}`,
        staticDetails: `Fleet \`${inference.fleet.name}\` on cluster \`${inference.cluster.name}\`, store \`${inference.run.store}\``,
        ...attributes.startingWith({ ...runAttributes(inference), schedule: run.schedule }),
      });
    } catch (error) {
      if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    }
  }
  return runs.awaitRun.executeWithOptions({ summary: `Wait for run ${runId}` }, [{ runId }]);
}

async function conclude(
  run: ScheduledRun,
  occurrence: Occurrence,
  { runId, state, output }: RunResult,
): Promise<ScheduledResult> {
  const { date, nominal } = occurrence;
  const { store } = run.inference.run;
  const base = { runId, date, nominal, state };
  if (output === undefined) return base;
  const published = await results.publishResults.executeWithOptions(
    { summary: occurrence.output ? `Copy the results to ${occurrence.output}` : 'Note the run' },
    [{ store, occurrence }],
  );
  const removed = run.retention === undefined ? [] : await prune(run, occurrence);
  return { ...base, output, ...published, ...(removed.length > 0 && { removed }) };
}

async function prune({ inference, retention = {} }: ScheduledRun, occurrence: Occurrence) {
  try {
    const { removed } = await tidying.pruneScheduled.executeWithOptions(
      { summary: 'Remove outputs that are too old' },
      [{ store: inference.run.store, occurrence, retention }],
    );
    return removed;
  } catch (error) {
    // The results are there all the same.
    log.error('old outputs could not be removed', { ...problemOf(error) });
    return [];
  }
}

/** Each in a workflow of its own: a receiver that is away for hours holds up neither this run nor the next. */
async function tell(run: ScheduledRun, result: EndedRun): Promise<void> {
  if (run.notify.length === 0) return;
  const { schedule, notify } = run;
  await startChild(notifyWorkflow, {
    workflowId: notifyWorkflowId(schedule, result.runId, workflowInfo().runId),
    args: [{ schedule, delivery: workflowInfo().runId, notify, result }],
    parentClosePolicy: ParentClosePolicy.ABANDON,
    staticSummary: `Tell how ${schedule} of ${result.date} ended: ${result.state}`,
    staticDetails: `Run \`${result.runId}\`; ${counted(notify.length, 'receiver')}`,
  });
}

/** Markdown for the Temporal UI. */
function detailsOf({ schedule, phase, runId, date, state, problem }: ScheduledStatus): string {
  return table(
    ['Schedule', schedule],
    [
      ['Phase', phase],
      ...(date === undefined ? [] : [['Date', date]]),
      ...(runId === undefined ? [] : [['Run', runId]]),
      ...(state === undefined ? [] : [['State', state]]),
      ...problemRows(problem),
    ],
  );
}
