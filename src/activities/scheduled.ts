import { existsSync, statSync } from 'node:fs';

import { Context } from '@temporalio/activity';
import { WorkflowFailedError } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';

import { nodesOfRunningCluster } from '../client/clusters.js';
import { describeFailure } from '../client/errors.js';
import { type RunMemo, runParameters } from '../client/identity.js';
import { digestRemote, inspectInput, sha256File } from '../client/input.js';
import { pythonError, runPython } from '../client/python.js';
import { findRun, priorityOf, runResult } from '../client/runs.js';
import { storedResult } from '../client/stored.js';
import type {
  ControlActivities,
  FindInput,
  PlanOccurrenceInput,
  PreparedScheduledRun,
  PrepareScheduledRunInput,
  PruneInput,
  PublishInput,
} from '../contracts/activities.js';
import { ERRORS } from '../contracts/errors.js';
import type { Occurrence } from '../contracts/schedule.js';
import type { PublishedResults, RunResult } from '../contracts/workflows.js';
import { occurrenceOf } from '../occurrence.js';
import { checkAllowed } from '../roots.js';

/** Well within the 30 s after which these activities are thought to be lost. */
const HEARTBEAT_MS = 5_000;

/** For so long a cluster may be away when a run is due, as a store may: long enough to be brought up anew. */
const CLUSTER_PATIENCE_MS = 600_000;

export const planOccurrence: ControlActivities['planOccurrence'] = async ({
  run,
  nominal,
}: PlanOccurrenceInput): Promise<Occurrence> => occurrenceOf(run, new Date(nominal));

/** Looks once; Temporal looks again. */
export async function findInput({ input, wait, fail }: FindInput): Promise<{ found: boolean }> {
  return told(async () => {
    if (await isThere(input)) return { found: true };
    const message = `there is no input at ${input}`;
    if (wait) throw ApplicationFailure.retryable(message, 'InputMissing');
    if (fail) throw ApplicationFailure.nonRetryable(message, 'InputMissing');
    return { found: false };
  });
}

/** An empty file is one that is just being written. */
async function isThere(input: string): Promise<boolean> {
  checkAllowed(input);
  if (!input.includes('://')) return existsSync(input) && statSync(input).size > 0;
  const { size } = await python<{ size: number | null }>(['size', '--input', input]);
  return (size ?? 0) > 0;
}

/** What is known of the run of a date, and what to start it with. */
export async function prepareScheduledRun({
  run,
  occurrence,
  deadline,
}: PrepareScheduledRunInput): Promise<PreparedScheduledRun> {
  return told(async () => {
    const { client } = Context.current();
    const { runId } = occurrence;
    const { store } = run.inference.run;
    const known = await findRun(client, runId);
    const stored = await storedResult(store, runId);
    const inference = structuredClone(run.inference);
    inference.run.runId = runId;
    inference.run.input.uri = occurrence.input;
    if (deadline !== undefined) inference.deadline = deadline;
    const { cluster } = inference;
    const nodes = run.onRunningCluster
      ? await nodesOfRunningCluster(client, cluster.name)
      : undefined;
    cluster.nodes = nodes ?? cluster.nodes;
    const base = { inference, memo: {}, priority: priorityOf(inference), running: false };
    if (known?.status.name === 'RUNNING') return { ...base, running: true };
    if (stored !== undefined) return { ...base, finished: { runId, ...stored } };
    if (run.needsCluster && nodes === undefined) {
      const { attempt, scheduledTimestampMs } = Context.current().info;
      // Before its first look the run waited for a worker, and not for the cluster.
      throw missingCluster(cluster.name, attempt === 1 ? 0 : Date.now() - scheduledTimestampMs);
    }
    const memo: RunMemo = {
      parameters: runParameters(inference.run, await sha256Of(occurrence.input)),
      store,
      fleet: inference.fleet.name,
      cluster: inference.cluster.name,
    };
    return { ...base, memo };
  });
}

/**
 * A local one in the place of a cluster that is away would load its engines on this host.
 *
 * @param waited milliseconds since the run looked for it first
 */
export function missingCluster(name: string, waited: number): ApplicationFailure {
  const message = `there is no cluster ${name} up`;
  if (waited < CLUSTER_PATIENCE_MS) {
    return ApplicationFailure.retryable(message, 'ClusterMissing');
  }
  const minutes = CLUSTER_PATIENCE_MS / 60_000;
  return ApplicationFailure.nonRetryable(
    `${message}, and there was none for ${minutes} minutes`,
    'ClusterMissing',
  );
}

async function sha256Of(input: string): Promise<string> {
  const found = await inspectInput(input);
  return found.kind === 'remote' ? (await digestRemote(found.uri)).sha256 : sha256File(found.uri);
}

/** Waits for a run that was started before, whoever started it. That it failed is final. */
export async function awaitRun({ runId }: { readonly runId: string }): Promise<RunResult> {
  return told(async () => {
    try {
      return await runResult(Context.current().client, runId);
    } catch (error) {
      if (!(error instanceof WorkflowFailedError)) throw error;
      const { type, message } = describeFailure(error);
      throw ApplicationFailure.nonRetryable(message, type);
    }
  });
}

/** Copies the results to where the schedule wants them, and notes the run for retention. Safe to repeat. */
export async function publishResults({
  store,
  occurrence,
}: PublishInput): Promise<PublishedResults> {
  return told(async () => {
    const input = JSON.stringify({ store, ...occurrence });
    return python<PublishedResults>(['publish'], input);
  });
}

interface Pruned {
  readonly removed: string[];
  readonly kept: readonly { readonly runId: string; readonly why: string }[];
}

export async function pruneScheduled({
  store,
  occurrence,
  retention,
}: PruneInput): Promise<{ removed: string[] }> {
  return told(async () => {
    const input = JSON.stringify({ store, ...occurrence, ...retention });
    const { removed, kept } = await python<Pruned>(['prune'], input);
    for (const { runId, why } of kept) {
      Context.current().log.info('a run that is too old stays', { run: runId, why });
    }
    return { removed };
  });
}

async function python<T>(args: readonly string[], input?: string): Promise<T> {
  const result = await runPython(['rankflow.rows', ...args], input === undefined ? {} : { input });
  if (result.exitCode !== 0) throw pythonError('Working on the store', result);
  return JSON.parse(result.stdout) as T;
}

/** Heartbeats meanwhile, and throws failures with the types that decide whether Temporal tries again. */
async function told<T>(work: () => Promise<T>): Promise<T> {
  const context = Context.current();
  const timer = setInterval(() => context.heartbeat(), HEARTBEAT_MS);
  try {
    return await Promise.race([work(), context.cancelled]);
  } catch (error) {
    if (error instanceof ApplicationFailure) throw error;
    const { type, message } = describeFailure(error);
    if (!Object.hasOwn(ERRORS, type)) {
      const lasting = type === 'Usage' || type === 'Cancelled' || type === 'Terminated';
      throw ApplicationFailure.create({ type, message, nonRetryable: lasting });
    }
    const { retryable } = ERRORS[type as keyof typeof ERRORS];
    throw ApplicationFailure.create({ type, message, nonRetryable: !retryable });
  } finally {
    clearInterval(timer);
  }
}
