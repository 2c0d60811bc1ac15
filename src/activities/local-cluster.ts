import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';

import { ApplicationFailure } from '@temporalio/common';
import getPort, { clearLockedPorts } from 'get-port';

import type { LocalNodeInput } from '../contracts/activities.js';
import type { ClusterAddress, ClusterSpec } from '../contracts/cluster.js';
import type { ErrorType } from '../contracts/errors.js';
import { readIfExists } from '../setup/files.js';
import { paths } from '../setup/paths.js';
import { endGroup, identityOf, isAlive } from '../setup/processes.js';
import { HEAD, START_PATIENCE_S } from '../workflows/cluster-plan.js';
import { killMarked } from './local/marked-processes.js';
import {
  nodeArguments,
  nodeEnvironment,
  nodeIp,
  temporaryFiles,
  type NodePlacement,
} from './local/node-command.js';
import {
  clusterFolder,
  clusterHash,
  ensureToken,
  forgetCluster,
  forgetNode,
  gcsFolder,
  localAddress,
  localProcesses,
  logFile,
  noticeFile,
  readNode,
  recordedClusters,
  recordedNodes,
  temporaryFolder,
  writeNode,
  type NodeRecord,
} from './local/node-state.js';
import { listNodes } from './ray-state.js';

const HOST = '127.0.0.1';
/** Ray drains for 5 s (see the node's environment) and ends its processes; then they are killed. */
const GRACE_MS = 15_000;
const POLL_MS = 500;

/** Waits; in an activity it also heartbeats and ends with the activity's cancellation. */
export type Pause = (ms: number) => Promise<void>;

/**
 * Starts one node of a local cluster in a process group of its own, which outlives this process, and waits until
 * Ray knows it. A node that runs is left alone.
 *
 * @param database which Temporal database answers for it
 * @throws ApplicationFailure `ClusterStartFailed` with the end of the node's log; another try may help.
 *   `ClusterUnavailable` for a worker whose head ended meanwhile; only another head helps
 */
export async function startLocalNode(
  { spec, node }: LocalNodeInput,
  pause: Pause,
  database?: string,
): Promise<void> {
  const known = readNode(spec.name, node);
  const record =
    known && isAlive(known.process) ? known : await launch(spec, node, known, database);
  const deadline = record.startedAtMs + START_PATIENCE_S * 1000;
  while (!(await isJoined(spec.name, record))) {
    if (!isAlive(record.process)) throw startFailed(spec.name, node, 'ended');
    if (node !== HEAD && !isHeadAlive(spec.name)) {
      await endLocalNode({ spec, node });
      throw headEnded(spec.name, node);
    }
    if (Date.now() > deadline) {
      await endLocalNode({ spec, node });
      throw startFailed(spec.name, node, `did not join within ${START_PATIENCE_S} s`);
    }
    await pause(POLL_MS);
  }
}

async function launch(
  { name, nodes }: ClusterSpec,
  node: string,
  before: NodeRecord | undefined,
  database: string | undefined,
): Promise<NodeRecord> {
  if (nodes.provider !== 'local') throw new Error(`cluster ${name} is not a local one`);
  const marker = `${clusterHash(name)}/${node}`;
  // A worker that was killed between starting a node and recording it left one that nobody knows.
  await killMarked(marker);
  const folder = temporaryFolder(name, node);
  rmSync(folder, { recursive: true, force: true });
  // A machine that comes anew has no notice.
  rmSync(noticeFile(name, node), { force: true });
  mkdirSync(temporaryFiles(folder), { recursive: true, mode: 0o700 });
  mkdirSync(clusterFolder(name), { recursive: true, mode: 0o700 });
  // State without a head's record is that of a cluster long gone.
  if (node === HEAD && before === undefined)
    rmSync(gcsFolder(name), { recursive: true, force: true });
  mkdirSync(gcsFolder(name), { recursive: true, mode: 0o700 });

  const ports = node === HEAD ? await headPorts(before) : undefined;
  const placement: NodePlacement = {
    node,
    nodes,
    temporaryFolder: folder,
    tokenFile: ensureToken(name),
    gcsFolder: gcsFolder(name),
    address: ports ? `${nodeIp(HEAD)}:${ports.gcs}` : headAddress(name).address,
    dashboardPort: ports?.dashboard ?? 0,
    clientPort: ports?.client ?? 0,
    noticeFile: noticeFile(name, node),
    marker,
  };
  const startedAtMs = Date.now();
  const pid = spawnNode(placement, logFile(name, node));
  const identity = identityOf(pid);
  if (identity === undefined) throw startFailed(name, node, 'ended at once');
  const record: NodeRecord = {
    node,
    process: { pid, identity },
    startedAtMs,
    ...(database !== undefined && { database }),
    ...(ports && { ports: { gcs: ports.gcs, dashboard: ports.dashboard } }),
  };
  writeNode(name, record);
  return record;
}

function spawnNode(placement: NodePlacement, log: string): number {
  // A log of its own for each start: its end is what an error message shows.
  const output = openSync(log, 'w', 0o600);
  try {
    const child = spawn(paths.python, nodeArguments(placement, availableParallelism()), {
      env: nodeEnvironment(placement, process.env),
      // A session of its own: neither a terminal's Ctrl-C nor the end of this worker reaches it.
      detached: true,
      stdio: ['ignore', output, output],
    });
    child.on('error', () => {
      // Shows as a missing pid.
    });
    child.unref();
    if (child.pid === undefined) throw new Error(`${paths.python} cannot be run`);
    return child.pid;
  } finally {
    closeSync(output);
  }
}

/** The ports of the last head if they are free, so that a rebuilt cluster has its old address; else any. */
async function headPorts(
  before: NodeRecord | undefined,
): Promise<{ gcs: number; dashboard: number; client: number }> {
  const last = before?.ports;
  // It keeps ports that it gave out from being given out again for some seconds, to us too.
  clearLockedPorts();
  const gcs = await getPort({ host: nodeIp(HEAD), ...(last && { port: last.gcs }) });
  const dashboard = await getPort({
    host: HOST,
    exclude: [gcs],
    ...(last && { port: last.dashboard }),
  });
  const client = await getPort({ host: HOST, exclude: [gcs, dashboard] });
  return { gcs, dashboard, client };
}

function headAddress(cluster: string): ClusterAddress {
  const address = localAddress(cluster);
  if (address === undefined) throw new Error(`cluster ${cluster} has no head to join`);
  return address;
}

function isHeadAlive(cluster: string): boolean {
  const head = readNode(cluster, HEAD);
  return head !== undefined && isAlive(head.process);
}

const headEnded = (cluster: string, node: string): ApplicationFailure =>
  ApplicationFailure.nonRetryable(
    `the head of cluster ${cluster} ended before node ${node} joined it`,
    'ClusterUnavailable' satisfies ErrorType,
  );

/** Whether Ray lists this very start of the node: for some seconds it still lists the one before as alive. */
async function isJoined(cluster: string, { node, startedAtMs }: NodeRecord): Promise<boolean> {
  try {
    const nodes = await listNodes(headAddress(cluster));
    return nodes.some((n) => n.name === node && n.alive && n.startedAtMs >= startedAtMs);
  } catch {
    return false;
  }
}

/** Lines of a node's log that an error shows. */
const TAIL_LINES = 15;

function startFailed(cluster: string, node: string, what: string): ApplicationFailure {
  const log = logFile(cluster, node);
  const tail = (readIfExists(log) ?? '').trimEnd().split('\n').slice(-TAIL_LINES).join('\n');
  // Retryable for its own activity: ports are chosen afresh.
  return ApplicationFailure.retryable(
    `node ${node} of cluster ${cluster} ${what}; ${log} ends with:\n${tail}`,
    'ClusterStartFailed',
  );
}

/** Ends a node with all its processes and removes its temporary folder. */
export async function endLocalNode({ spec, node }: LocalNodeInput): Promise<void> {
  await endNode(spec.name, node);
}

async function endNode(cluster: string, node: string): Promise<void> {
  const record = readNode(cluster, node);
  if (record !== undefined) await endGroup(record.process, GRACE_MS);
  await killMarked(`${clusterHash(cluster)}/${node}`);
  rmSync(temporaryFolder(cluster, node), { recursive: true, force: true });
  // The head's record keeps its ports for the next start.
  if (node !== HEAD) forgetNode(cluster, node);
}

/**
 * Ends every node of this data folder's local clusters, engines included. What is asked for stays asked for: with
 * the next control worker they come back at their old addresses.
 *
 * @returns what ran, e.g. `local/worker-1`
 */
export async function endAllLocalNodes(): Promise<string[]> {
  const ended = recordedClusters().map(async (cluster) => {
    const running = localProcesses(cluster).filter((node) => node.running);
    const workers = running.filter(({ name }) => name !== HEAD);
    await Promise.all(workers.map(({ name }) => endNode(cluster, name)));
    await endNode(cluster, HEAD);
    await killMarked(clusterHash(cluster));
    return running.map(({ name }) => `${cluster}/${name}`);
  });
  return (await Promise.all(ended)).flat();
}

/** Takes a local cluster down: no process, no temporary folder and no token of it is left, only logs. */
export async function removeLocalCluster({ name }: { readonly name: string }): Promise<void> {
  const workers = recordedNodes(name).filter((node) => node !== HEAD);
  await Promise.all(workers.map((node) => endNode(name, node)));
  await endNode(name, HEAD);
  await killMarked(clusterHash(name));
  forgetCluster(name);
}

/**
 * Takes a local cluster down when another Temporal database started it. Its workflows are lost with that one:
 * its engines would poll for work that never comes, and hold the resources of those that are wanted.
 *
 * @returns whether there was one
 */
export async function endLostCluster(name: string, database: string | undefined): Promise<boolean> {
  const lost = recordedNodes(name).some((node) => {
    const record = readNode(name, node);
    return record?.database !== undefined && database !== undefined && record.database !== database;
  });
  if (lost) await removeLocalCluster({ name });
  return lost;
}

/** Whether anything that was started as a local cluster still runs here. */
export const hasLocalNodes = (name: string): boolean =>
  recordedNodes(name).some((node) => {
    const record = readNode(name, node);
    return record !== undefined && isAlive(record.process);
  });
