import {
  type Client,
  type WorkflowExecutionDescription,
  type WorkflowExecutionInfo,
  WorkflowExecutionAlreadyStartedError,
} from '@temporalio/client';

import type { Priority } from '@temporalio/common';

import type { InferenceInput } from '../contracts/inference.js';
import { CONTROL_QUEUE, inferenceWorkflowId, WORKFLOW } from '../contracts/names.js';
import { runAttributes } from '../contracts/search-attributes.js';
import type { RunState } from '../contracts/run.js';
import type { RunResult } from '../contracts/workflows.js';
import { startAttributes } from './attributes.js';
import { stateOfStatus } from './assemble.js';
import { describeWorkflow } from './entities.js';
import { ClientError } from './errors.js';
import { counted, shortName } from '../text.js';
import { reconcile, type RunMemo, runParameters } from './identity.js';
import type { PreparedRun } from './inference.js';
import {
  listStored,
  plannedParameters,
  storedResult,
  type StoredListing,
  type StoredResult,
} from './stored.js';

/** Results asked for at once: each is a call of its own. */
const RESULTS_AT_ONCE = 16;

/** What became of a start. */
export interface StartedRun {
  readonly runId: string;
  /**
   * `started`: a new run; `continued`: one that had failed goes on from what it committed; `attached`: it is
   * running; `finished`: its results are there and nothing is generated.
   */
  readonly outcome: 'started' | 'continued' | 'attached' | 'finished';
  /** Lines for people, e.g. about parameters that were taken over from the plan. */
  readonly notes: readonly string[];
}

/** A run as a list shows it. */
export interface RunListing {
  readonly runId: string;
  /** `in_progress` for all that goes on: a list does not look into each. */
  readonly state: RunState;
  /** Temporal does not know it (any more): the state is how far its files are, and nobody works at it. */
  readonly onlyStored?: true;
  readonly startedAt?: Date;
  readonly closedAt?: Date;
  readonly store?: string;
  readonly memo?: RunMemo;
}

/** Accepts a run id in any of the forms that Rankflow shows: `id`, `inference/id`, `run/id`. */
export function runIdOf(text: string): string {
  return text.replace(/^(?:inference|run)\//u, '').split('/')[0] ?? text;
}

/**
 * The newest execution of a run, or undefined when Temporal knows none (any more).
 */
export async function findRun(
  client: Client,
  runId: string,
): Promise<WorkflowExecutionDescription | undefined> {
  return describeWorkflow(client, inferenceWorkflowId(runId));
}

/** Like {@link findRun}, for commands about a run that must be there. */
export async function getRun(client: Client, runId: string): Promise<WorkflowExecutionDescription> {
  const description = await findRun(client, runId);
  if (description !== undefined) return description;
  throw new ClientError('NotFound', `There is no run ${runId}.`, {
    wayOut: 'See `rankflow list` for the runs that there are.',
  });
}

/** What a run was started with; undefined when another program started it. */
export const memoOf = ({ memo }: Pick<WorkflowExecutionInfo, 'memo'>): RunMemo | undefined =>
  memo?.['run'] as RunMemo | undefined;

/**
 * The results of a run that is finished, by what its store says: needs no server.
 *
 * @throws ClientError `RunMismatch` when the id belongs to a run with other parameters, `StoreUnavailable`
 */
export async function finishedRun(
  run: PreparedRun,
): Promise<{ readonly stored: StoredResult; readonly notes: readonly string[] } | undefined> {
  const { store, runId } = run.inference.run;
  const before = await plannedParameters(run);
  const notes = before === undefined ? [] : reconcile(run, before);
  const stored = await storedResult(store, runId);
  return stored && { stored, notes };
}

/**
 * Starts a run, or finds the one that it is: attaches to a running one, leaves a finished one alone, continues
 * one that failed.
 *
 * @throws ClientError `RunMismatch` when the id belongs to a run with other parameters
 */
export async function startRun(client: Client, run: PreparedRun): Promise<StartedRun> {
  const { runId, store } = run.inference.run;
  const earlier = await findRun(client, runId);
  const known = earlier && memoOf(earlier)?.parameters;
  const before = known ?? (await plannedParameters(run));
  const notes = before === undefined ? [] : reconcile(run, before);
  const status = earlier?.status.name;
  if (status === 'RUNNING') return { runId, outcome: 'attached', notes };
  if (status === 'COMPLETED' && (await storedResult(store, runId)) !== undefined)
    return { runId, outcome: 'finished', notes };
  const memo: RunMemo = {
    parameters: runParameters(run.inference.run, run.inputSha256),
    store,
    fleet: run.inference.fleet.name,
    cluster: run.inference.cluster.name,
    ...(run.retryOf !== undefined && { retryOf: run.retryOf }),
  };
  try {
    await client.workflow.start(WORKFLOW.inference, {
      workflowId: inferenceWorkflowId(runId),
      taskQueue: CONTROL_QUEUE,
      args: [run.inference],
      memo: { run: memo },
      staticSummary: `${shortName(run.inference.run.model.model)}, ${counted(run.inference.run.ranks, 'rank')}`,
      staticDetails: `Fleet \`${memo.fleet}\` on cluster \`${memo.cluster}\`, store \`${store}\``,
      priority: priorityOf(run.inference),
      ...(await startAttributes(client, runAttributes(run.inference))),
      workflowIdReusePolicy: 'ALLOW_DUPLICATE',
      workflowIdConflictPolicy: 'FAIL',
    });
  } catch (error) {
    // Somebody else started the same run since we looked.
    if (error instanceof WorkflowExecutionAlreadyStartedError) {
      return { runId, outcome: 'attached', notes };
    }
    throw error;
  }
  // A plan without a workflow is that of a run whose Temporal database is gone: it goes on, too.
  const fresh = earlier === undefined && before === undefined;
  return { runId, outcome: fresh ? 'started' : 'continued', notes };
}

/** Temporal's limit for a fairness key, in bytes; run ids are ASCII. Ids of one family differ at their ends. */
const FAIRNESS_KEY_BYTES = 64;

/**
 * Which of the runs that share queues goes first. Ranks and batches inherit it. Runs of one priority share engines
 * by their weights, whatever their number of batches, where the server has fairness turned on.
 */
export function priorityOf({ run, priority }: InferenceInput): Priority {
  return {
    fairnessKey: run.runId.slice(-FAIRNESS_KEY_BYTES),
    ...(priority && { priorityKey: priority.key, fairnessWeight: priority.weight }),
  };
}

/**
 * Waits for a run to end.
 *
 * @throws the failure of the workflow; see `describeFailure`
 */
export async function runResult(client: Client, runId: string): Promise<RunResult> {
  return (await client.workflow.getHandle(inferenceWorkflowId(runId)).result()) as RunResult;
}

/**
 * Asks a run to stop. Rows in flight are given up, what is finished is kept, and rows that were never generated
 * become error lines.
 *
 * @returns false when it had ended already
 */
export async function cancelRun(client: Client, runId: string): Promise<boolean> {
  const { status } = await getRun(client, runId);
  if (status.name !== 'RUNNING') return false;
  await client.workflow.getHandle(inferenceWorkflowId(runId)).cancel();
  return true;
}

/** The newest runs, newest first; one entry for a run, however often it was continued. */
export async function listRuns(client: Client, limit: number): Promise<RunListing[]> {
  const executions = new Map<string, WorkflowExecutionInfo>();
  const query = `WorkflowType = '${WORKFLOW.inference}'`;
  for await (const execution of client.workflow.list({ query })) {
    const runId = runIdOf(execution.workflowId);
    if (!executions.has(runId)) executions.set(runId, execution);
    if (executions.size >= limit) break;
  }
  const runs: RunListing[] = [];
  const found = [...executions.entries()];
  for (let start = 0; start < found.length; start += RESULTS_AT_ONCE) {
    const some = found.slice(start, start + RESULTS_AT_ONCE);
    runs.push(...(await Promise.all(some.map(([id, one]) => listingOf(client, id, one)))));
  }
  // Temporal lists those that go on first.
  const started = (run: RunListing): number => run.startedAt?.getTime() ?? 0;
  return runs.toSorted((a, b) => started(b) - started(a));
}

async function listingOf(
  client: Client,
  runId: string,
  execution: WorkflowExecutionInfo,
): Promise<RunListing> {
  const { status, workflowId, startTime, closeTime } = execution;
  // To Temporal, a run that was cancelled in good order is completed as well: only its result tells.
  const handle = client.workflow.getHandle(workflowId, execution.runId);
  const result = status.name === 'COMPLETED' ? ((await handle.result()) as RunResult) : undefined;
  const memo = memoOf(execution);
  return {
    runId,
    state: result?.state ?? stateOfStatus(status.name),
    startedAt: startTime,
    ...(closeTime && { closedAt: closeTime }),
    ...(memo && { memo, store: memo.store }),
  };
}

/**
 * The runs that Temporal knows and then those that only a store has, as after the loss of Temporal's database.
 *
 * @param client undefined when Temporal does not answer
 */
export async function listAllRuns(
  client: Client | undefined,
  store: string,
  limit: number,
): Promise<RunListing[]> {
  const known = client === undefined ? [] : await listRuns(client, limit);
  const ids = new Set(known.map(({ runId }) => runId));
  const others = (await listStored(store)).filter(({ runId }) => !ids.has(runId));
  return [...known, ...others.map((run) => storedListingOf(run, store))].slice(0, limit);
}

const storedListingOf = (
  { runId, state, plannedAt }: StoredListing,
  store: string,
): RunListing => ({
  runId,
  state,
  onlyStored: true,
  store,
  ...(plannedAt && { startedAt: plannedAt }),
});
