import {
  type Client,
  type WorkflowExecutionDescription,
  WorkflowFailedError,
  WorkflowNotFoundError,
} from '@temporalio/client';

import {
  clusterWorkflowId,
  ENGINE_ACTIVITY,
  fleetWorkflowId,
  inferenceWorkflowId,
  QUERY,
  runWorkflowId,
} from '../contracts/names.js';
import { BatchHeartbeat } from '../contracts/run.js';
import type {
  ClusterStatus,
  FleetStatus,
  InferenceStatus,
  RankProgressView,
  RunProgress,
} from '../contracts/workflows.js';
import { queryWorkflow } from './entities.js';
import { heartbeatOf, lastFailureOf } from './encryption.js';
import { ClientError, describeFailure, type Failure, isTransient } from './errors.js';
import { getRun, memoOf, runResult } from './runs.js';
import {
  assemble,
  type Ended,
  type LiveRank,
  type Observation,
  type PendingFailure,
} from './assemble.js';
import { isOver, type RunSnapshot } from './snapshot.js';

/** Rank workflows asked at once: enough to be quick, few enough not to crowd out the workflows' own tasks. */
const RANKS_AT_ONCE = 16;
/** Milliseconds between two looks; more ranks are looked at less often. */
const INTERVAL_MS = 1_000;
const INTERVAL_PER_RANK_MS = 20;
/** For what is no query. */
const LOOK_TIMEOUT_MS = 15_000;
/** How long Temporal or its workers may be away before watching gives up: a restart takes seconds. */
const PATIENCE_MS = 120_000;

/**
 * What a run is like now, put together from the queries of its workflows and the heartbeats of its engines.
 *
 * @throws ClientError `NotFound`
 */
export async function runSnapshot(client: Client, runId: string): Promise<RunSnapshot> {
  const deadline = Date.now() + LOOK_TIMEOUT_MS;
  return assemble(await client.withDeadline(deadline, () => observe(client, runId)));
}

/**
 * Looks at a run again and again until it is over. A server or worker that is away for a while is waited for: a run
 * that was seen goes on, whatever keeps it from being looked at.
 *
 * @param signal ends the watching, not the run
 * @param onTrouble told once when nothing can be seen, with the reason
 * @throws ClientError `Unreachable` when nothing is seen for two minutes
 */
export async function* watchRun(
  client: Client,
  runId: string,
  signal?: AbortSignal,
  onTrouble: (failure: Failure) => void = () => {},
): AsyncGenerator<RunSnapshot> {
  let blindSince: number | undefined;
  let wasSeen = false;
  while (!signal?.aborted) {
    let ranks = 0;
    try {
      const snapshot = await runSnapshot(client, runId);
      blindSince = undefined;
      wasSeen = true;
      ranks = snapshot.ranks;
      yield snapshot;
      if (isOver(snapshot.state)) return;
    } catch (error) {
      const passes = isTransient(error) || (wasSeen && !(error instanceof ClientError));
      if (!passes) throw error;
      const failure = describeFailure(error);
      if (blindSince === undefined) onTrouble(failure);
      blindSince ??= Date.now();
      if (Date.now() - blindSince > PATIENCE_MS) {
        const message = `Nothing was seen of run ${runId} for ${PATIENCE_MS / 1000} s: ${failure.message}`;
        throw new ClientError('Unreachable', message, {
          wayOut: 'The run may go on: look again with `rankflow watch`, and see `rankflow doctor`.',
          cause: error,
        });
      }
    }
    await pause(INTERVAL_MS + ranks * INTERVAL_PER_RANK_MS, signal);
  }
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    }
    signal?.addEventListener('abort', done);
  });
}

async function observe(client: Client, runId: string): Promise<Observation> {
  const description = await getRun(client, runId);
  const build = buildOf(description);
  const base = {
    runId,
    at: Date.now(),
    startedAt: description.startTime.getTime(),
    ...(build !== undefined && { build }),
  };
  const { name } = description.status;
  const ended = name === 'RUNNING' ? undefined : await endOf(client, runId, name);
  const closed = description.closeTime?.getTime();
  if (ended !== undefined) {
    return { ...base, at: closed ?? base.at, ended, ranks: [], failures: [] };
  }

  const inference = await queryWorkflow<InferenceStatus>(client, inferenceWorkflowId(runId));
  const memo = memoOf(description);
  const generating = inference?.phase === 'running' || inference?.phase === 'stopping';
  const [cluster, fleet, run, runFailures] = await Promise.all([
    memo && queryWorkflow<ClusterStatus>(client, clusterWorkflowId(memo.cluster)),
    // Before these phases, an execution of the fleet or of the run is that of an earlier try.
    memo && inference?.phase !== 'preparing'
      ? queryWorkflow<FleetStatus>(client, fleetWorkflowId(memo.fleet))
      : undefined,
    generating
      ? queryWorkflow<RunProgress>(client, runWorkflowId(runId), QUERY.progress)
      : undefined,
    generating ? failuresOf(client, runWorkflowId(runId)) : [],
  ]);
  const ranks = run === undefined ? [] : await observeRanks(client, run);
  return {
    ...base,
    ...(inference && { inference }),
    ranks: ranks.map(({ rank }) => rank),
    failures: [
      ...(await pendingFailures(client, description)),
      ...runFailures,
      ...ranks.flatMap(({ failures }) => failures),
    ],
    ...(cluster && { cluster }),
    ...(fleet && { fleet }),
    ...(run && { run }),
  };
}

/** The build whose workers did the last step of a workflow, by the server's word. */
function buildOf({ raw }: WorkflowExecutionDescription): string | undefined {
  const { deploymentVersion } = raw.workflowExecutionInfo?.versioningInfo ?? {};
  return deploymentVersion?.buildId || undefined;
}

/** Failures of a workflow's activities; none when there is no such workflow. */
async function failuresOf(client: Client, workflowId: string): Promise<PendingFailure[]> {
  try {
    return await pendingFailures(client, await client.workflow.getHandle(workflowId).describe());
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return [];
    throw error;
  }
}

/** Temporal tries activities again silently: what failed last says why nothing moves. */
async function pendingFailures(
  client: Client,
  { raw }: WorkflowExecutionDescription,
): Promise<PendingFailure[]> {
  const failures = (raw.pendingActivities ?? []).map(async (one) => lastFailureOf(client, one));
  return (await Promise.all(failures)).filter((failure) => failure !== undefined);
}

async function endOf(client: Client, runId: string, status: string): Promise<Ended> {
  try {
    return { status, result: await runResult(client, runId) };
  } catch (error) {
    // Anything else says nothing of the run: its result could not be fetched.
    if (!(error instanceof WorkflowFailedError)) throw error;
    return { status, failure: describeFailure(error) };
  }
}

interface ObservedRank {
  readonly rank: LiveRank;
  readonly failures: readonly PendingFailure[];
}

/** Ranks at work: what they committed, and the heartbeats of their batches in flight. */
async function observeRanks(client: Client, run: RunProgress): Promise<ObservedRank[]> {
  const live = run.ranks.filter(({ state }) => state !== 'completed' && state !== 'waiting');
  const result: ObservedRank[] = [];
  for (let start = 0; start < live.length; start += RANKS_AT_ONCE) {
    const some = live.slice(start, start + RANKS_AT_ONCE);
    const observed = await Promise.all(some.map((rank) => observeRank(client, rank.workflowId)));
    result.push(...observed.filter((rank) => rank !== undefined));
  }
  return result;
}

async function observeRank(client: Client, workflowId: string): Promise<ObservedRank | undefined> {
  const progress = await queryWorkflow<RankProgressView>(client, workflowId, QUERY.progress);
  if (progress === undefined) return undefined;
  const description = await client.workflow.getHandle(workflowId).describe();
  const batches = (description.raw.pendingActivities ?? []).filter(
    ({ activityType }) => activityType?.name === ENGINE_ACTIVITY.generateBatch,
  );
  const details = await Promise.all(batches.map(async (batch) => heartbeatOf(client, batch)));
  const heartbeats = details.flatMap((detail) => {
    // A hint only: the heartbeat of an engine that loads its batch carries nothing.
    const { data } = BatchHeartbeat.safeParse(detail);
    return data === undefined ? [] : [data];
  });
  const retries = batches.filter(({ attempt }) => (attempt ?? 1) > 1).length;
  const failures = await pendingFailures(client, description);
  return { rank: { progress, heartbeats, retries }, failures };
}
