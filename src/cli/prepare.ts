import { access, constants, mkdir, stat } from 'node:fs/promises';
import path from 'node:path';

import type { Client } from '@temporalio/client';

import { nodesOfRunningCluster } from '../client/clusters.js';
import { temporalConfigured } from '../client/connection.js';
import { isRunning } from '../client/entities.js';
import { ClientError } from '../client/errors.js';
import { prepareRun, type PreparedRun } from '../client/inference.js';
import { checkStoreSpace } from '../client/input.js';
import { pythonInstalled } from '../client/python.js';
import { startRun, type StartedRun } from '../client/runs.js';
import type { ClusterSpec } from '../contracts/cluster.js';
import { clusterWorkflowId, inferenceWorkflowId } from '../contracts/names.js';
import { logToStderr } from '../setup/log.js';
import { infrastructure, say } from './output.js';
import { flagOf, type RunFlags, toRunOptions } from './run-options.js';

/**
 * Everything that can be checked before anything is started: the options, the input file, the space in the store.
 *
 * @throws ClientError with all problems of the options at once
 */
export async function prepare(file: string, flags: RunFlags): Promise<PreparedRun> {
  if (isBucket(file) || isBucket(flags.store ?? '')) await installPython();
  const run = await prepareRun(toRunOptions(file, flags), flagOf);
  if (run.inference.run.model.backend === 'simulated') {
    say('The simulated backend makes its answers up: they are good for tests only.');
  }
  return run;
}

const isBucket = (address: string): boolean => /^[a-z0-9+.-]+:\/\//iu.test(address);

/** Only the Python side has a client for buckets, and it is needed before anything else is. */
async function installPython(): Promise<void> {
  if (pythonInstalled()) return;
  const { setUp } = await import('../setup/index.js');
  await infrastructure(async () => setUp({ log: logToStderr }));
}

/** Refuses a run that its store has no room for. Separate, as a finished run needs none. */
export async function checkSpace(run: PreparedRun): Promise<void> {
  if (run.inputBytes !== undefined) await checkStoreSpace(run.inference.run.store, run.inputBytes);
}

/**
 * Makes the folder that a file goes to and sees that it can be written to, so that a run of hours does not end
 * there.
 *
 * @throws ClientError `Usage`
 */
export async function prepareOut(file: string | undefined): Promise<void> {
  if (file === undefined) return;
  const out = path.resolve(file);
  const there = await stat(out).catch(() => undefined);
  if (there?.isDirectory()) throw new ClientError('Usage', `--out: ${out} is a folder, not a file`);
  try {
    await mkdir(path.dirname(out), { recursive: true });
    await access(path.dirname(out), constants.W_OK);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new ClientError('Usage', `--out: ${message}`, { cause: error });
  }
}

/** What flags say about the nodes of a local cluster. */
export type NodeFlags = Pick<RunFlags, 'nodes' | 'cpusPerNode' | 'gcsStorage'>;

/** Name of the cluster that is started when nobody names one. */
const DEFAULT_CLUSTER = 'local';

/**
 * Starts a run on the cluster that is up, when the flags say nothing about its nodes.
 *
 * @param named whether the flags named the cluster just now
 * @throws ClientError `NotFound` when they named one that is not up, nor asked for by a run that goes on
 */
export async function startOnCluster(
  client: Client,
  run: PreparedRun,
  flags: NodeFlags,
  named = false,
): Promise<StartedRun> {
  const { cluster, run: spec } = run.inference;
  if (await isMissing(client, cluster, flags)) {
    if (!named) say(`No cluster ${cluster.name} is up: a local one of this name is started.`);
    else if (!(await isRunning(client, inferenceWorkflowId(spec.runId)))) {
      throw noSuchCluster(cluster.name);
    }
  }
  return startRun(client, run);
}

/**
 * Like {@link startOnCluster}, for a run that is due while nobody watches: its cluster may be up again later.
 *
 * @throws ClientError `ClusterMissing` when a cluster that {@link hasToBeUp} is not
 */
export async function startOnClusterLater(
  client: Client,
  run: PreparedRun,
  flags: NodeFlags,
): Promise<StartedRun> {
  const { cluster } = run.inference;
  if (await isMissing(client, cluster, flags)) {
    throw new ClientError('ClusterMissing', `There is no cluster ${cluster.name} up.`);
  }
  return startRun(client, run);
}

/**
 * Has a cluster be asked for with the nodes that it has, when it is up and the flags say nothing about them.
 *
 * @returns whether there is none, though its name is not the default: a slip of the pen, or one that has gone. A local
 *   one in its place would load its engines on this host.
 */
export async function isMissing(
  client: Client,
  cluster: ClusterSpec,
  flags: NodeFlags,
): Promise<boolean> {
  const { name, nodes } = cluster;
  if (nodes.provider !== 'local' || flags.nodes !== undefined) return false;
  const present = await nodesOfRunningCluster(client, name);
  cluster.nodes = present ?? nodes;
  return present === undefined && hasToBeUp(cluster, flags);
}

/** Whether a cluster is named and nothing says what a local one of this name would be like: it is meant as it is. */
export function hasToBeUp({ name, nodes }: ClusterSpec, flags: NodeFlags): boolean {
  const { nodes: workers, cpusPerNode, gcsStorage } = flags;
  const described = [workers, cpusPerNode, gcsStorage].some((value) => value !== undefined);
  return nodes.provider === 'local' && !described && name !== DEFAULT_CLUSTER;
}

/** @throws ClientError `NotFound` when a cluster that {@link hasToBeUp} is not: for what is run on it later */
export async function checkUp(
  client: Client,
  cluster: ClusterSpec,
  flags: NodeFlags,
): Promise<void> {
  if (!hasToBeUp(cluster, flags)) return;
  if (await isRunning(client, clusterWorkflowId(cluster.name))) return;
  throw noSuchCluster(cluster.name);
}

export const noSuchCluster = (name: string): ClientError =>
  new ClientError('NotFound', `There is no cluster ${name} up.`, {
    wayOut:
      'Bring it up with `rankflow cluster up`, or see `rankflow cluster status`; --nodes N starts a local one of this name.',
  });

/**
 * Brings up what is missing on this machine: the installation, Temporal unless another server is configured,
 * and the workers.
 */
export async function startStack(): Promise<void> {
  await infrastructure(async () => {
    const { setUp } = await import('../setup/index.js');
    const { ensureStack } = await import('../workers/stack/index.js');
    await setUp({ log: logToStderr });
    const { address, uiUrl } = await ensureStack({ log: logToStderr });
    say(
      uiUrl === undefined
        ? `Temporal at ${address}`
        : `Temporal at ${address}, web interface ${uiUrl}`,
    );
  });
}

/** Whether a command may start the local stack: not when told so. */
export async function startStackUnless(noStart: boolean): Promise<void> {
  if (!noStart) await startStack();
  else if (temporalConfigured()) say('Using the Temporal server that the environment names.');
}
