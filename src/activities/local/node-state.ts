import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { z } from 'zod';

import type { LocalProcess } from '../../contracts/activities.js';
import type { ClusterAddress } from '../../contracts/cluster.js';
import { readIfExists, writeAtomically } from '../../setup/files.js';
import { paths } from '../../setup/paths.js';
import { isAlive } from '../../setup/processes.js';
import { nodeIp } from './node-command.js';
import { HEAD } from '../../workflows/cluster-plan.js';

/** One node that was started on this host; kept in a file, so that it outlives the worker. */
const NodeRecord = z.object({
  node: z.string(),
  process: z.object({ pid: z.int(), identity: z.string() }),
  /** Milliseconds since the epoch. */
  startedAtMs: z.number(),
  /** Temporal database whose workflow started it; see `databaseId`. */
  database: z.string().optional(),
  /** Of the head: ports of the GCS and of the dashboard. */
  ports: z.object({ gcs: z.int(), dashboard: z.int() }).optional(),
});
export type NodeRecord = z.infer<typeof NodeRecord>;

/** Folder of a local cluster: the token, a record and a log for each node. */
export const clusterFolder = (cluster: string): string => path.join(paths.clusters, cluster);
export const logFile = (cluster: string, node: string): string =>
  path.join(clusterFolder(cluster), `${node}.log`);
/** Its presence is notice that the node is going to be taken away; see the operations guide. */
export const noticeFile = (cluster: string, node: string): string =>
  path.join(clusterFolder(cluster), `${node}.preempted`);
const recordFile = (cluster: string, node: string): string =>
  path.join(clusterFolder(cluster), `${node}.json`);
/** State of the GCS, for a cluster whose head may be lost: beside the records, as temporary folders go with a node. */
export const gcsFolder = (cluster: string): string => path.join(clusterFolder(cluster), 'gcs');
export const tokenFile = (cluster: string): string => path.join(clusterFolder(cluster), 'token');

/** Tells the clusters of this host apart, also those of other data folders. */
export const clusterHash = (cluster: string): string =>
  createHash('sha256').update(`${paths.home}\0${cluster}`).digest('hex').slice(0, 8);

/**
 * Temporary folder of a node. Short, as the paths of Ray's sockets below it are limited to 107 bytes, and one
 * for each node, as nodes that start together in one folder collide.
 */
export const temporaryFolder = (cluster: string, node: string): string =>
  path.join(temporaryRoot(cluster), node.replace('worker-', 'w').replace(HEAD, 'h'));
export const temporaryRoot = (cluster: string): string => `/tmp/rf-${clusterHash(cluster)}`;

export function readNode(cluster: string, node: string): NodeRecord | undefined {
  const text = readIfExists(recordFile(cluster, node));
  return text === undefined ? undefined : NodeRecord.parse(JSON.parse(text));
}

export function writeNode(cluster: string, record: NodeRecord): void {
  writeAtomically(recordFile(cluster, record.node), `${JSON.stringify(record)}\n`);
}

export function forgetNode(cluster: string, node: string): void {
  rmSync(recordFile(cluster, node), { force: true });
  rmSync(noticeFile(cluster, node), { force: true });
}

/** Names of the local clusters that were ever brought up in this data folder. */
export function recordedClusters(): string[] {
  try {
    return readdirSync(paths.clusters).toSorted();
  } catch {
    return [];
  }
}

/** Names of the nodes that have a record. */
export function recordedNodes(cluster: string): string[] {
  try {
    return readdirSync(clusterFolder(cluster))
      .filter((file) => file.endsWith('.json'))
      .map((file) => path.basename(file, '.json'));
  } catch {
    return [];
  }
}

/** Names of the nodes that have a log on this machine. */
export function loggedNodes(cluster: string): string[] {
  try {
    return readdirSync(clusterFolder(cluster))
      .filter((file) => file.endsWith('.log'))
      .map((file) => path.basename(file, '.log'))
      .toSorted();
  } catch {
    return [];
  }
}

/** The nodes that were started on this host, whether or not they still run. */
export function localProcesses(cluster: string): LocalProcess[] {
  return recordedNodes(cluster).map((name) => {
    const record = readNode(cluster, name);
    return {
      name,
      running: record !== undefined && isAlive(record.process),
      ageSeconds: record === undefined ? 0 : (Date.now() - record.startedAtMs) / 1000,
    };
  });
}

/** Where the head is; undefined when none was started. */
export function localAddress(cluster: string): ClusterAddress | undefined {
  const ports = readNode(cluster, HEAD)?.ports;
  if (ports === undefined) return undefined;
  return {
    name: cluster,
    address: `${nodeIp(HEAD)}:${ports.gcs}`,
    dashboardUrl: `http://127.0.0.1:${ports.dashboard}`,
    tokenFile: tokenFile(cluster),
  };
}

/** The cluster's token file, made when there is none: only its owner may read it. */
export function ensureToken(cluster: string): string {
  const file = tokenFile(cluster);
  if (readIfExists(file) !== undefined) return file;
  mkdirSync(clusterFolder(cluster), { recursive: true, mode: 0o700 });
  try {
    writeFileSync(file, randomBytes(32).toString('hex'), { mode: 0o600, flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  return file;
}

/** Forgets a cluster of which nothing runs any more; logs are kept for reading. */
export function forgetCluster(cluster: string): void {
  for (const node of recordedNodes(cluster)) forgetNode(cluster, node);
  rmSync(tokenFile(cluster), { force: true });
  rmSync(gcsFolder(cluster), { recursive: true, force: true });
  rmSync(temporaryRoot(cluster), { recursive: true, force: true });
}
