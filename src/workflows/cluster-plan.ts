import type { ClusterObservation, RayNode } from '../contracts/activities.js';
import type { ClusterSpec } from '../contracts/cluster.js';
import type { PreemptionNotice } from '../contracts/preemption.js';
import type { ClusterNodeStatus } from '../contracts/workflows.js';

/** What is to be done on this host: first `end` together, then `start` together. */
export interface ClusterPlan {
  readonly end: readonly string[];
  readonly start: readonly string[];
}

export const HEAD = 'head';

/**
 * Seconds that a process may run without Ray knowing its node (or, for the head, without its state API): a node
 * is up in 11–15 s on an idle host, several at once on a busy one take a few times that.
 */
export const START_PATIENCE_S = 120;

/**
 * Seconds after its deadline at which a node of this host that had notice is ended, if nobody else has: Ray cannot
 * take a cordon back, and clouds are late by less.
 */
export const OVERDUE_S = 30;

/** Notices of preemption by node id. */
export type NoticesByNode = ReadonlyMap<string, PreemptionNotice>;
const NO_NOTICES: NoticesByNode = new Map();

/** Names of the nodes that a local cluster is to have, the head first; empty for an existing cluster. */
export function localNodeNames({ nodes }: ClusterSpec): string[] {
  if (nodes.provider !== 'local') return [];
  return [HEAD, ...Array.from({ length: nodes.workers }, (_, index) => `worker-${index + 1}`)];
}

/**
 * Compares a cluster with its specification. The head comes first: without it the others cannot join, and those
 * of a head that is gone end with it, unless its state is on disk. A worker that Ray does not know in time is
 * started afresh. One with notice of preemption is left alone until its deadline, as its machine is about to go;
 * then its successor is started.
 *
 * @param unreachableSeconds how long the state API has not answered; 0 when it does
 * @param now milliseconds since the epoch
 */
export function planCluster(
  spec: ClusterSpec,
  { reachable, nodes, processes }: ClusterObservation,
  unreachableSeconds: number,
  notices: NoticesByNode = NO_NOTICES,
  now = 0,
): ClusterPlan {
  if (spec.nodes.provider !== 'local') return { end: [], start: [] };
  const wanted = localNodeNames(spec);
  const running = new Map(processes.filter((p) => p.running).map((p) => [p.name, p]));
  const head = running.get(HEAD);
  const headHangs =
    !reachable &&
    unreachableSeconds > START_PATIENCE_S &&
    (head?.ageSeconds ?? 0) > START_PATIENCE_S;
  if (head === undefined || headHangs) {
    // With its state on disk a new head knows the nodes and engines of the lost one, and they wait for it.
    const lost = spec.nodes.gcsStorage === 'rocksdb' ? [HEAD] : [...running.keys()];
    return { end: lost.filter((name) => running.has(name)), start: [HEAD] };
  }
  if (!reachable) return { end: [], start: [] };

  const workers = wanted.filter((name) => {
    const deadline = noticeOf(name, nodes, notices)?.deadline ?? 0;
    return name !== HEAD && now >= deadline;
  });
  const lost = workers.filter((name) => {
    const process = running.get(name);
    if (process === undefined) return false;
    const late = now - (noticeOf(name, nodes, notices)?.deadline ?? now);
    // What was started after the deadline is the successor, of which Ray does not know yet.
    const hadNotice = late > 0 && process.ageSeconds * 1000 > late;
    if (nodeOf(name, nodes)?.alive) return hadNotice && late >= OVERDUE_S * 1000;
    return hadNotice || process.ageSeconds > START_PATIENCE_S;
  });
  const surplus = [...running.keys()].filter((name) => !wanted.includes(name));
  const missing = workers.filter((name) => !running.has(name));
  return { end: [...lost, ...surplus], start: [...lost, ...missing] };
}

/** Of the nodes that had this name the living one, else the last. */
function nodeOf(name: string, nodes: readonly RayNode[]): RayNode | undefined {
  const known = nodes.filter((node) => node.name === name);
  return known.find((node) => node.alive) ?? known.at(-1);
}

/** The notice of the present node of this name, not of one that had it before. */
function noticeOf(
  name: string,
  nodes: readonly RayNode[],
  notices: NoticesByNode,
): PreemptionNotice | undefined {
  const present = nodes.filter((node) => node.name === name);
  if (present.some((node) => node.alive && !notices.has(node.nodeId))) return undefined;
  const given = present.flatMap(({ nodeId }) => notices.get(nodeId) ?? []);
  return given.toSorted((a, b) => a.deadline - b.deadline).at(-1);
}

/**
 * Whether a notice has done its work: its node is gone, and what takes its place on this host is there. A lost
 * node is listed for as long as the head knows it. A head that stays was never cordoned, so it is as good as new.
 */
export function isOver(
  { nodes: { provider } }: ClusterSpec,
  { nodeId, deadline }: PreemptionNotice,
  { reachable, nodes }: ClusterObservation,
  now: number,
): boolean {
  const node = nodes.find((one) => one.nodeId === nodeId);
  if (!reachable) return false;
  if (node?.alive) return node.head && now >= deadline + OVERDUE_S * 1000;
  return provider !== 'local' || node === undefined || nodeOf(node.name, nodes)?.alive === true;
}

/** The nodes of a cluster as people see them: what is wanted for a local one, what is there for another. */
export function describeNodes(
  spec: ClusterSpec,
  { nodes, processes }: ClusterObservation,
  notices: NoticesByNode = NO_NOTICES,
): ClusterNodeStatus[] {
  if (spec.nodes.provider !== 'local') {
    return nodes.map((node) => describeNode(node.name, node, false, notices));
  }
  return localNodeNames(spec).map((name) => {
    const running = processes.some((process) => process.name === name && process.running);
    return describeNode(name, nodeOf(name, nodes), running, notices);
  });
}

function describeNode(
  name: string,
  node: RayNode | undefined,
  running: boolean,
  notices: NoticesByNode,
): ClusterNodeStatus {
  const role = node?.head === true || name === HEAD ? 'head' : 'worker';
  if (node === undefined) {
    return { name, role, state: running ? 'starting' : 'missing', cpus: 0, gpus: 0 };
  }
  const { nodeId, ip, cpus, gpus } = node;
  const notice = notices.get(nodeId);
  if (notice !== undefined) {
    const deadline = new Date(notice.deadline).toISOString();
    const state = node.alive ? 'draining' : 'dead';
    return { name, role, state, deadline, nodeId, ip, cpus, gpus };
  }
  const state = node.alive ? 'alive' : running ? 'starting' : 'dead';
  return { name, role, state, nodeId, ip, cpus, gpus };
}

/** Whether engines can be placed: every node that is wanted is there and stays; of an existing cluster, any. */
export function isReady(
  spec: ClusterSpec,
  observation: ClusterObservation,
  notices: NoticesByNode = NO_NOTICES,
): boolean {
  if (!observation.reachable || observation.address === undefined) return false;
  const nodes = describeNodes(spec, observation, notices);
  return spec.nodes.provider === 'local'
    ? nodes.every((node) => node.state === 'alive')
    : nodes.some((node) => node.state === 'alive');
}
