import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { Context } from '@temporalio/activity';
import { CancelledFailure } from '@temporalio/common';

import type { ClusterAddress } from '../../contracts/cluster.js';
import {
  JobResultFile,
  type AttemptOutcome,
  type FollowJobInput,
  type JobHeartbeat,
} from '../../contracts/job.js';
import { submissionIdOf } from '../../contracts/names.js';
import { isNetworkTrouble, resultFile } from '../../workflows/job-plan.js';
import { listNodes, reasonOf } from '../ray-state.js';
import { END_OF_LOG_BYTES, asLine, logFolder, logTail } from './job-log.js';
import { whileHeartbeating } from './heartbeat.js';
import { LogTail } from './log-tail.js';
import { jobInfo, type JobInfo } from './ray-jobs.js';

/** Time between two looks at a job, in ms. */
const LOOK_MS = 1_000;
/** A dashboard that is silent for so long (ms) is the cluster's trouble: its own repair takes over. */
const PATIENCE_MS = 60_000;
/** Ray gives a lost node up 12 to 15 s after its tasks and actors fail; ms. */
const NODE_DEATH_MS = 30_000;

/**
 * Follows one attempt and copies its log into the store. That the cluster cannot be seen is a result, and no error.
 *
 * @throws Error of the store when it cannot take the log
 */
export async function followJob(input: FollowJobInput): Promise<AttemptOutcome> {
  const { spec, attempt, address, until } = input;
  const context = Context.current();
  const submissionId = submissionIdOf(spec.jobId, attempt);
  const folder = logFolder(spec, submissionId);
  const tail = await LogTail.open(address, submissionId, folder, context.log);
  let answered = false;
  let silentSince: number | undefined;
  try {
    for (;;) {
      const seen = await look(address, submissionId);
      if (seen.reason !== undefined) {
        silentSince ??= Date.now();
        if (Date.now() - silentSince > PATIENCE_MS) {
          await tail.cut(seen.reason);
          return { status: 'unreachable', reason: seen.reason, answered };
        }
      } else {
        silentSince = undefined;
        answered = true;
        const { job } = seen;
        if (job === undefined) {
          if (tail.size > 0) await tail.cut('Ray does not know the job any more');
          return { status: 'unknown', answered };
        }
        const over = job.status !== 'PENDING' && job.status !== 'RUNNING';
        if (over) {
          const last: JobHeartbeat = { status: job.status, logBytes: tail.size };
          context.heartbeat(last);
          // A head that hangs, or a log that is read anew, takes longer than a heartbeat may.
          if (job.driver_node_id) {
            const nodeId = job.driver_node_id;
            await whileHeartbeating(async () => tail.finish(nodeId), last);
          }
          return { ...(await outcomeOf(input, job, folder)), answered };
        }
        if (until === 'start' && job.status === 'RUNNING') {
          const node = await nodeName(address, job.driver_node_id);
          return { status: 'running', answered, ...(node !== undefined && { node }) };
        }
        if (job.driver_node_id) tail.keepUp(job.driver_node_id);
      }
      const status = seen.job?.status ?? 'unreachable';
      context.heartbeat({ status, logBytes: tail.size } satisfies JobHeartbeat);
      await context.sleep(LOOK_MS);
    }
  } finally {
    await tail.stop();
  }
}

interface Seen {
  readonly job?: JobInfo | undefined;
  /** Why nothing was seen. */
  readonly reason?: string;
}

async function look(address: ClusterAddress, submissionId: string): Promise<Seen> {
  try {
    return { job: await jobInfo(address, submissionId) };
  } catch (error) {
    if (error instanceof CancelledFailure) throw error;
    return { reason: reasonOf(error) };
  }
}

/** For people only: an attempt goes on without it. */
async function nodeName(
  address: ClusterAddress,
  nodeId: string | null | undefined,
): Promise<string | undefined> {
  const nodes = await listNodes(address).catch(() => []);
  return nodes.find((node) => node.nodeId === nodeId)?.name;
}

async function outcomeOf(
  { spec, attempt, address }: FollowJobInput,
  job: JobInfo,
  folder: string,
): Promise<AttemptOutcome> {
  if (job.status === 'STOPPED') return { status: 'stopped' };
  if (job.status === 'SUCCEEDED') {
    const result = await readResult(resultFile(spec, attempt));
    return { status: 'succeeded', ...(result && { result }) };
  }
  const { error_type: errorType, driver_exit_code: exitCode, message } = job;
  const failure = {
    status: 'failed' as const,
    ...(errorType && { errorType }),
    ...(typeof exitCode === 'number' && { exitCode }),
  };
  if (errorType !== 'JOB_ENTRYPOINT_COMMAND_ERROR') {
    // There may be no log at all: what Ray says is all that there is to read.
    await keepMessage(folder, message ?? '');
    return { ...failure, ...reasonOfRay(message ?? '') };
  }
  const lostNodes = await nodesLostUnder(address, job, await logTail(folder, END_OF_LOG_BYTES));
  return { ...failure, ...(lostNodes.length > 0 && { lostNodes }) };
}

function reasonOfRay(message: string): Pick<AttemptOutcome, 'reason' | 'networkTrouble'> {
  const reason = asLine(message);
  return {
    ...(reason !== '' && { reason }),
    ...(isNetworkTrouble(message) && { networkTrouble: true }),
  };
}

/** File beside a log with what Ray says of a job that never had one. */
export const MESSAGE_FILE = 'ray-message.txt';

async function keepMessage(folder: string, message: string): Promise<void> {
  if (message === '') return;
  await mkdir(folder, { recursive: true });
  await writeFile(path.join(folder, MESSAGE_FILE), `${message.trimEnd()}\n`);
}

/** How Ray tells a driver that something on another node was lost. */
const LOSS =
  /NodeDiedError|ActorDiedError|RayActorError|ActorUnavailableError|WorkerCrashedError|ObjectLostError|OwnerDiedError|NodePreempted|raylet (?:died|client)|GcsRpcClient|worker group/u;

/**
 * Names of the nodes that were lost while the job ran, if its log says that losses are what it failed of. A node
 * that was only given back, as autoscalers do, is no excuse for a script.
 */
async function nodesLostUnder(
  address: ClusterAddress,
  { start_time: startedAt }: JobInfo,
  log: string,
): Promise<string[]> {
  if (!LOSS.test(log)) return [];
  const context = Context.current();
  const deadline = Date.now() + NODE_DEATH_MS;
  for (;;) {
    const nodes = await listNodes(address).catch(() => []);
    const lost = nodes.filter(({ alive, endedAtMs }) => !alive && endedAtMs >= (startedAt ?? 0));
    if (lost.length > 0 || Date.now() > deadline) return lost.map(({ name }) => name);
    context.heartbeat({ status: 'FAILED', logBytes: 0 } satisfies JobHeartbeat);
    await context.sleep(LOOK_MS);
  }
}

/** A result is a few numbers; histories hold it. */
const MOST_RESULT_BYTES = 65_536;

/** What the script left; undefined when it left nothing that can be used, as a job is not failed by that. */
async function readResult(file: string): Promise<JobResultFile | undefined> {
  try {
    if ((await stat(file)).size > MOST_RESULT_BYTES) return undefined;
    const { data } = JobResultFile.safeParse(JSON.parse(await readFile(file, 'utf8')));
    return data;
  } catch {
    return undefined;
  }
}
