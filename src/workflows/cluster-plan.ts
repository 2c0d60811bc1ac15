import type { ClusterObservation, LocalProcess, RayNode } from '../contracts/activities.js';
import type { ClusterSpec } from '../contracts/cluster.js';
import type { PreemptionNotice } from '../contracts/preemption.js';
import type { ClusterNodeStatus } from '../contracts/workflows.js';
import type { Members } from './members.js';
import { HEAD } from './names.js';

/** What is to be done: first `end` together, then `start` together. */
export interface ClusterPlan {
  readonly end: readonly string[];
  readonly start: readonly string[];
}

export { HEAD } from './names.js';

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

/** Names of the nodes that a local cluster is to have, the head first; empty for another cluster. */
export function localNodeNames({ nodes }: ClusterSpec): string[] {
  if (nodes.provider !== 'local') return [];
  return [HEAD, ...Array.from({ length: nodes.workers }, (_, index) => `worker-${index + 1}`)];
}

/** Names of the nodes that a cluster is to have, the head first; empty for an existing cluster. */
export const wantedNodes = (spec: ClusterSpec, members: Members | undefined): string[] =>
  members === undefined ? localNodeNames(spec) : [HEAD, ...members.active];

/**
 * Compares a cluster with its specification. The head comes first: without it the others cannot join, and those
 * of a head that is gone end with it, unless its state is on disk. A worker that Ray does not know in time is
 * started afresh. One with notice of preemption is left alone until its deadline, as its machine is about to go;
 * then its successor is started. Over ssh nothing is done to a host that does not answer while Ray says that its
 * node is well, and a node that keeps failing is left alone for longer and longer.
 *
 * @param unreachableSeconds how long the state API has not answered; 0 when it does
 * @param now milliseconds since the epoch
 * @param members of a cluster over ssh
 */
export function planCluster(
  spec: ClusterSpec,
  { reachable, nodes, processes }: ClusterObservation,
  unreachableSeconds: number,
  notices: NoticesByNode = NO_NOTICES,
  now = 0,
  members?: Members,
): ClusterPlan {
  if (spec.nodes.provider === 'existing') return { end: [], start: [] };
  const wanted = wantedNodes(spec, members);
  const silent = new Set(processes.filter((p) => p.unreachable !== undefined).map((p) => p.name));
  const mayStart = (name: string): boolean => members?.troubles.mayStart(name, now) ?? true;
  const running = new Map(processes.filter((p) => p.running).map((p) => [p.name, p]));
  const head = running.get(HEAD);
  const headHangs =
    !reachable &&
    unreachableSeconds > START_PATIENCE_S &&
    (head?.ageSeconds ?? 0) > START_PATIENCE_S;
  if (silent.has(HEAD) && !reachable) {
    // It may be this machine that is cut off: nodes that may be well are not touched.
    const again = unreachableSeconds > START_PATIENCE_S && mayStart(HEAD);
    return { end: [], start: again ? [HEAD] : [] };
  }
  if ((head === undefined && !silent.has(HEAD)) || headHangs) {
    if (!mayStart(HEAD)) return { end: [], start: [] };
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
  const leaving = members?.leaving.filter((name) => !silent.has(name));
  const kept = (name: string): boolean =>
    wanted.includes(name) || members?.deadlineOf(name) !== undefined;
  const surplus = leaving ?? [...running.keys()].filter((name) => !kept(name));
  const missing = workers.filter((name) => {
    const well = silent.has(name) && nodeOf(name, nodes)?.alive === true;
    return !running.has(name) && !well && mayStart(name);
  });
  const again = lost.filter(mayStart);
  return { end: [...again, ...surplus], start: [...again, ...missing] };
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
  return provider === 'existing' || node === undefined || nodeOf(node.name, nodes)?.alive === true;
}

/** The nodes of a cluster as people see them: what is wanted, or of an existing one what is there. */
export function describeNodes(
  spec: ClusterSpec,
  { nodes, processes, engines }: ClusterObservation,
  notices: NoticesByNode = NO_NOTICES,
  members?: Members,
  now = 0,
): ClusterNodeStatus[] {
  const withEngines = (node: ClusterNodeStatus): ClusterNodeStatus =>
    engines === undefined || node.nodeId === undefined
      ? node
      : { ...node, engines: engines[node.nodeId] ?? 0 };
  if (spec.nodes.provider === 'existing') {
    return nodes.map((node) => withEngines(describeNode(node.name, node, undefined, notices)));
  }
  const process = new Map(processes.map((one) => [one.name, one]));
  if (members === undefined) {
    return localNodeNames(spec).map((name) =>
      withEngines(describeNode(name, nodeOf(name, nodes), process.get(name), notices)),
    );
  }
  const present = members.watched.map((name) => {
    const status = describeNode(name, nodeOf(name, nodes), process.get(name), notices);
    return withEngines({ ...status, ...membership(name, status.state, members, now) });
  });
  const spares = members.spares.map((name): ClusterNodeStatus => {
    const role = { name, role: 'worker', cpus: 0, gpus: 0 } as const;
    const state = members.isCordoned(name) ? 'drained' : 'spare';
    return { ...role, state, ...membership(name, state, members, now) };
  });
  return [...present, ...spares];
}

/** What a node's place in a cluster over ssh says about it. */
function membership(
  name: string,
  state: ClusterNodeStatus['state'],
  members: Members,
  now: number,
): Partial<ClusterNodeStatus> {
  const host = members.hostOf(name);
  const trouble = members.troubles.of(name);
  const deadline = members.deadlineOf(name);
  const failed = state !== 'alive' && members.troubles.isFailed(name, now);
  const draining = deadline !== undefined && state === 'alive';
  return {
    ...(failed && { state: 'failed' }),
    ...(draining && { state: 'draining', deadline: new Date(deadline).toISOString() }),
    ...(host !== undefined && { host }),
    ...(trouble !== undefined && { problem: trouble.problem }),
  };
}

function describeNode(
  name: string,
  node: RayNode | undefined,
  process: LocalProcess | undefined,
  notices: NoticesByNode,
): ClusterNodeStatus {
  const role = node?.head === true || name === HEAD ? 'head' : 'worker';
  const absent = process?.unreachable === undefined ? undefined : 'unreachable';
  const running = process?.running === true;
  if (node === undefined) {
    return { name, role, state: absent ?? (running ? 'starting' : 'missing'), cpus: 0, gpus: 0 };
  }
  const { nodeId, ip, cpus, gpus } = node;
  const notice = notices.get(nodeId);
  if (notice !== undefined) {
    const deadline = new Date(notice.deadline).toISOString();
    const state = node.alive ? 'draining' : 'dead';
    return { name, role, state, deadline, nodeId, ip, cpus, gpus };
  }
  const state = node.alive ? 'alive' : (absent ?? (running ? 'starting' : 'dead'));
  return { name, role, state, nodeId, ip, cpus, gpus };
}

/** Whether engines can be placed: every node that is wanted is there and stays; of an existing cluster, any. */
export function isReady(
  spec: ClusterSpec,
  observation: ClusterObservation,
  notices: NoticesByNode = NO_NOTICES,
  members?: Members,
): boolean {
  if (!observation.reachable || observation.address === undefined) return false;
  const nodes = describeNodes(spec, observation, notices, members);
  if (spec.nodes.provider === 'existing') return nodes.some((node) => node.state === 'alive');
  const wanted = new Set(wantedNodes(spec, members));
  const there = nodes.filter(({ name, state }) => wanted.has(name) && state === 'alive');
  return there.length === wanted.size;
}
