import {
  type Client,
  type WorkflowExecutionDescription,
  type WorkflowExecutionInfo,
  WorkflowExecutionAlreadyStartedError,
} from '@temporalio/client';

import type {
  AttemptStatus,
  JobHeartbeat,
  JobResult,
  JobState,
  JobStatus,
} from '../contracts/job.js';
import { CONTROL_QUEUE, jobWorkflowId, SIGNAL, WORKFLOW } from '../contracts/names.js';
import { jobAttributes } from '../contracts/search-attributes.js';
import { jobSummary } from '../workflows/job-details.js';
import { startAttributes } from './attributes.js';
import { heartbeatOf, lastFailureOf } from './encryption.js';
import { describeWorkflow, queryWorkflow } from './entities.js';
import { ClientError, describeFailure, type Failure } from './errors.js';
import { endOfLog } from './job-logs.js';
import type { PreparedJob } from './job-spec.js';

/** What is kept beside a job's workflow. */
export interface JobMemo {
  readonly parameters: string;
  readonly store: string;
  readonly entrypoint: string;
  readonly cluster: string;
}

/** What became of a start. */
export interface StartedJob {
  readonly jobId: string;
  /**
   * `started`: a new job; `continued`: one that failed or was stopped goes on from its checkpoints; `attached`: it
   * is running; `finished`: it succeeded before and is not run again.
   */
  readonly outcome: 'started' | 'continued' | 'attached' | 'finished';
}

/** A job at one moment. */
export interface JobView {
  readonly jobId: string;
  readonly state: JobState;
  readonly entrypoint: string;
  readonly cluster: string;
  readonly store: string;
  readonly startedAt: Date;
  readonly closedAt?: Date;
  readonly attempts: readonly AttemptStatus[];
  /** Bytes of the running attempt's log. */
  readonly logBytes?: number;
  readonly metrics?: JobResult['metrics'];
  readonly checkpoint?: string;
  /** File of the result. */
  readonly path?: string;
  /** Why it failed, or the last trouble of one that goes on. */
  readonly failure?: Failure;
  /** Last line of the log of one that failed. */
  readonly logEnd?: string;
  readonly problem?: string;
}

/** A job as a list shows it. */
export interface JobListing {
  readonly jobId: string;
  /** `running` for all that goes on: a list does not look into each. */
  readonly state: JobState;
  readonly startedAt: Date;
  readonly closedAt?: Date;
  readonly entrypoint?: string;
  readonly cluster?: string;
}

const memoOf = ({ memo }: Pick<WorkflowExecutionInfo, 'memo'>): JobMemo | undefined =>
  memo?.['job'] as JobMemo | undefined;

async function findJob(
  client: Client,
  jobId: string,
): Promise<WorkflowExecutionDescription | undefined> {
  return describeWorkflow(client, jobWorkflowId(jobId));
}

async function getJob(client: Client, jobId: string): Promise<WorkflowExecutionDescription> {
  const description = await findJob(client, jobId);
  if (description !== undefined) return description;
  throw new ClientError('NotFound', `There is no job ${jobId}.`, {
    wayOut: 'See `rankflow job list` for the jobs that there are.',
  });
}

/**
 * Starts a job, or finds the one that it is: attaches to a running one, leaves one that succeeded alone, continues
 * one that failed or was stopped.
 *
 * @throws ClientError `Usage` when another job of this name runs or has succeeded
 */
export async function startJob(client: Client, job: PreparedJob): Promise<StartedJob> {
  const { spec, parameters } = job;
  const { jobId } = spec;
  const earlier = await findJob(client, jobId);
  if (earlier !== undefined) {
    const outcome = await outcomeFor(client, earlier, jobId);
    if (outcome !== 'continued') {
      if (memoOf(earlier)?.parameters === parameters) return { jobId, outcome };
      const word = outcome === 'attached' ? 'is running' : 'has succeeded';
      throw new ClientError('Usage', `A job ${jobId} with other parameters ${word}.`, {
        wayOut: `Use another --name${outcome === 'attached' ? `, or stop it: rankflow job stop ${jobId}` : ', or --new'}.`,
      });
    }
  }
  const memo: JobMemo = {
    parameters,
    store: spec.store,
    entrypoint: spec.entrypoint,
    cluster: spec.cluster.name,
  };
  try {
    await client.workflow.start(WORKFLOW.job, {
      workflowId: jobWorkflowId(jobId),
      taskQueue: CONTROL_QUEUE,
      args: [{ spec }],
      memo: { job: memo },
      staticSummary: jobSummary(spec),
      staticDetails: `Cluster \`${spec.cluster.name}\`, store \`${spec.store}\``,
      ...(await startAttributes(client, jobAttributes(spec))),
      workflowIdReusePolicy: 'ALLOW_DUPLICATE',
      workflowIdConflictPolicy: 'FAIL',
    });
  } catch (error) {
    // Somebody else started the same job since we looked.
    if (error instanceof WorkflowExecutionAlreadyStartedError)
      return { jobId, outcome: 'attached' };
    throw error;
  }
  return { jobId, outcome: earlier === undefined ? 'started' : 'continued' };
}

/** Whether a job runs or has succeeded, so that the same command starts nothing. */
export async function isKept(client: Client, jobId: string): Promise<boolean> {
  const earlier = await findJob(client, jobId);
  return earlier !== undefined && (await outcomeFor(client, earlier, jobId)) !== 'continued';
}

async function outcomeFor(
  client: Client,
  { status }: WorkflowExecutionDescription,
  jobId: string,
): Promise<'attached' | 'finished' | 'continued'> {
  if (status.name === 'RUNNING') return 'attached';
  if (status.name !== 'COMPLETED') return 'continued';
  // To Temporal, a job that was stopped in good order is completed as well: only its result tells.
  const { state } = await jobResult(client, jobId);
  return state === 'succeeded' ? 'finished' : 'continued';
}

/**
 * Waits for a job to end.
 *
 * @throws the failure of the workflow; see `describeFailure`
 */
export async function jobResult(client: Client, jobId: string): Promise<JobResult> {
  return (await client.workflow.getHandle(jobWorkflowId(jobId)).result()) as JobResult;
}

/** Whether nothing more is going to happen to a job. */
export const isJobOver = (state: JobState): boolean =>
  state === 'succeeded' || state === 'failed' || state === 'stopped' || state === 'timed_out';

/**
 * What a job is like now.
 *
 * @throws ClientError `NotFound`
 */
export async function jobView(client: Client, jobId: string): Promise<JobView> {
  const description = await getJob(client, jobId);
  const memo = memoOf(description);
  const base = {
    jobId,
    entrypoint: memo?.entrypoint ?? '',
    cluster: memo?.cluster ?? '',
    store: memo?.store ?? '',
    startedAt: description.startTime,
    ...(description.closeTime && { closedAt: description.closeTime }),
  };
  const runs = description.status.name === 'RUNNING';
  const status = await queryWorkflow<JobStatus>(client, jobWorkflowId(jobId)).catch(
    (error: unknown) => {
      if (runs) throw error;
      // The build that it was pinned to may be gone: then its result is what is left.
      return undefined;
    },
  );
  const attempts = status?.attempts ?? [];
  if (runs) {
    const { heartbeat, trouble } = await pendingOf(client, description);
    const problem = trouble ?? status?.problem?.message;
    return {
      ...base,
      // Giving the cluster back comes after the end.
      state: status?.state ?? 'preparing',
      attempts,
      ...(heartbeat && { logBytes: heartbeat.logBytes }),
      ...(problem !== undefined && { problem }),
    };
  }
  try {
    const { state, metrics, checkpoint, path } = await jobResult(client, jobId);
    return {
      ...base,
      state,
      attempts,
      ...(metrics && { metrics }),
      ...(checkpoint !== undefined && { checkpoint }),
      ...(path !== undefined && { path }),
    };
  } catch (error) {
    const failure = describeFailure(error);
    const state = failure.type === 'JobTimedOut' ? 'timed_out' : 'failed';
    const last = attempts.at(-1)?.attempt;
    const logEnd = last === undefined ? undefined : await endOfLog(base, last);
    return { ...base, state, attempts, failure, ...(logEnd !== undefined && { logEnd }) };
  }
}

/** What the activities of a job say that are under way. */
async function pendingOf(
  client: Client,
  { raw }: WorkflowExecutionDescription,
): Promise<{ heartbeat?: JobHeartbeat; trouble?: string }> {
  const result: { heartbeat?: JobHeartbeat; trouble?: string } = {};
  for (const activity of raw.pendingActivities ?? []) {
    const value = await heartbeatOf(client, activity);
    if (typeof value === 'object' && value !== null && 'logBytes' in value) {
      result.heartbeat = value as JobHeartbeat;
    }
    const failure = await lastFailureOf(client, activity);
    if ((activity.attempt ?? 1) > 1 && failure !== undefined) result.trouble = failure.message;
  }
  return result;
}

/**
 * Asks a job to stop: SIGTERM, then SIGKILL after its grace period.
 *
 * @returns false when it had ended already
 */
export async function stopJob(client: Client, jobId: string): Promise<boolean> {
  const { status } = await getJob(client, jobId);
  if (status.name !== 'RUNNING') return false;
  await client.workflow.getHandle(jobWorkflowId(jobId)).signal(SIGNAL.stopJob);
  return true;
}

/** The newest jobs, newest first; one entry for a job, however often it was continued. */
export async function listJobs(client: Client, limit: number): Promise<JobListing[]> {
  const executions = new Map<string, WorkflowExecutionInfo>();
  const query = `WorkflowType = '${WORKFLOW.job}'`;
  const prefix = jobWorkflowId('');
  for await (const execution of client.workflow.list({ query })) {
    const jobId = execution.workflowId.slice(prefix.length);
    if (!executions.has(jobId)) executions.set(jobId, execution);
    if (executions.size >= limit) break;
  }
  const jobs = [...executions].map(async ([jobId, one]): Promise<JobListing> => {
    const memo = memoOf(one);
    return {
      jobId,
      state: await stateOf(client, jobId, one),
      startedAt: one.startTime,
      ...(one.closeTime && { closedAt: one.closeTime }),
      ...(memo && { entrypoint: memo.entrypoint, cluster: memo.cluster }),
    };
  });
  const listed = await Promise.all(jobs);
  return listed.toSorted((a, b) => b.startedAt.getTime() - a.startedAt.getTime());
}

async function stateOf(
  client: Client,
  jobId: string,
  { status, runId }: WorkflowExecutionInfo,
): Promise<JobState> {
  if (status.name === 'RUNNING') return 'running';
  if (status.name === 'CANCELLED' || status.name === 'TERMINATED') return 'stopped';
  try {
    const handle = client.workflow.getHandle(jobWorkflowId(jobId), runId);
    return ((await handle.result()) as JobResult).state;
  } catch (error) {
    return describeFailure(error).type === 'JobTimedOut' ? 'timed_out' : 'failed';
  }
}
