import { ApplicationFailure } from '@temporalio/common';
import { execa } from 'execa';
import { z } from 'zod';

import type {
  ControlActivities,
  DrainNodeInput,
  LocalNodeInput,
  NodeInput,
  NodeProblem,
} from '../contracts/activities.js';
import type { ClusterAddress, ClusterSpec, SshNode, SshProvider } from '../contracts/cluster.js';
import type { Problem } from '../contracts/workflows.js';
import { inspectCluster, type ClusterInspection } from '../clusters/inspect.js';
import { findingText, unfitHosts } from '../hosts/alike/refusal.js';
import { HostError } from '../hosts/host.js';
import { paths } from '../setup/paths.js';
import { HEAD, START_PATIENCE_S } from '../workflows/cluster-plan.js';
import type { Pause } from './local-cluster.js';
import { forgetCluster } from './local/node-state.js';
import { listNodes, rayAuthEnvironment } from './ray-state.js';
import { callAgent, NoAgent, StartAnswer, StatusAnswer, TailAnswer } from './ssh/agent.js';
import { installPlan } from './ssh/environment.js';
import { hostOf } from './ssh/hosts.js';
import { nodeLog } from './ssh/node-log.js';
import {
  containerSettings,
  KEPT_FILES,
  nodeFolder,
  nodeMarker,
  nodeVariables,
  startArguments,
} from './ssh/node-settings.js';
import { clusterAddress } from './ssh/observe-nodes.js';
import { checkNode, prepareNode, type Preparation } from './ssh/prepare-node.js';

/** Between two looks at a node that is joining: each is a connection. */
const POLL_MS = 2_000;
/** Its own grace of 15 s, the kill of what is left, and a busy host. */
const END_MS = 60_000;
/** `ray drain-node` imports Ray first: 5 s, on a busy host a minute. */
const DRAIN_MS = 90_000;

interface Place extends Preparation {
  readonly python: string;
  /** Whether that Python is made on the host when the node starts. */
  readonly installs: boolean;
  readonly folder: string;
}

function placeOf(spec: ClusterSpec, name: string, signal?: AbortSignal): Place {
  const { nodes } = spec;
  if (nodes.provider !== 'ssh') throw new Error(`cluster ${spec.name} is not one over ssh`);
  const node = [nodes.head, ...nodes.workers].find((one) => one.name === name);
  if (node === undefined) throw new Error(`cluster ${spec.name} has no node ${name}`);
  const { python, steps } = installPlan(nodes.environment);
  return {
    cluster: spec.name,
    nodes,
    node,
    host: hostOf(spec.name, nodes, node),
    log: nodeLog(spec.name, name),
    python,
    installs: steps.length > 0,
    folder: nodeFolder(spec.name, nodes, name).folder,
    ...(signal && { signal }),
  };
}

/**
 * What keeps nodes from starting, looked at side by side; changes nothing. What an environment that is made on the
 * node holds is looked at when it is made; see {@link compareInstalled}.
 */
export const checkNodes: ControlActivities['checkNodes'] = async ({ spec, nodes }) => {
  const checks = nodes.map(async (name): Promise<NodeProblem[]> => {
    const place = placeOf(spec, name);
    try {
      await checkNode(place);
      return [];
    } catch (error) {
      const problem = hostProblem(error);
      place.log(problem.message);
      return [{ node: name, problem }];
    }
  });
  const unfit = (await Promise.all(checks)).flat();
  // Without a head there is nothing to compare with.
  if (unfit.some(({ node }) => node === HEAD)) return unfit;
  const fit = nodes.filter((name) => !unfit.some(({ node }) => node === name));
  return [...unfit, ...(await compareNodes(spec, fit))];
};

/** What of these nodes is not as the head, or not reached. Whether a port is free is told by {@link checkNode}. */
async function compareNodes(
  spec: ClusterSpec,
  nodes: readonly string[],
  how: ClusterInspection = { nodes },
): Promise<NodeProblem[]> {
  const workers = nodes.filter((name) => name !== HEAD);
  if (workers.length === 0) return [];
  const { findings } = await inspectCluster(spec, { ...how, running: true, engine: 'any' });
  return [...unfitHosts(findings, HEAD)].flatMap(([node, [first, ...others]]) => {
    if (first === undefined || !nodes.includes(node)) return [];
    const message = [first, ...others].map((one) => `${node}: ${findingText(one)}`).join('\n');
    nodeLog(spec.name, node)(message);
    return [{ node, problem: { type: 'HostRefused' as const, message, wayOut: first.mend } }];
  });
}

/**
 * Compares a node whose environment was installed with the head and with one other worker, as a head that has no
 * engines has nothing that engines need. Before it was installed there was nothing to compare.
 *
 * @throws ApplicationFailure `HostRefused`
 */
async function compareInstalled({ cluster, nodes, node }: Place): Promise<void> {
  const other = nodes.workers.find(({ name }) => name !== node.name);
  const compared = [...(other ? [other.name] : []), node.name];
  // Others start beside it and would listen on the same ports; who reaches whom was looked at before.
  const how = { nodes: compared, reach: false };
  const [unlike] = await compareNodes({ name: cluster, nodes }, [node.name], how);
  if (unlike === undefined) return;
  const { message, type, wayOut } = unlike.problem;
  throw ApplicationFailure.nonRetryable(message, type, { wayOut });
}

/** What went wrong on a host, with the way out for this very one; a bug is thrown again. */
function hostProblem(error: unknown): Problem {
  if (!(error instanceof HostError)) throw error;
  return { type: error.type, message: `${error.message}. ${error.wayOut}`, wayOut: error.wayOut };
}

/**
 * Starts a node on its host, in a session that outlives ssh, and waits until Ray knows it. A node that runs there
 * already is left alone, so another try finds it.
 *
 * @throws ApplicationFailure of a host's error, or `ClusterStartFailed` with the end of the node's log
 */
export async function startNode(
  { spec, node: name, address: head }: NodeInput,
  pause: Pause,
  signal?: AbortSignal,
): Promise<void> {
  const place = placeOf(spec, name, signal);
  try {
    const address = await launch(place, head);
    await joined(place, address, pause);
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    const { type, message, wayOut } = hostProblem(error);
    place.log(message);
    // The workflow tries again, at longer and longer intervals.
    throw ApplicationFailure.nonRetryable(message, type, { wayOut });
  }
}

/** Returns where the cluster's head is. */
async function launch(place: Place, head: ClusterAddress | undefined): Promise<ClusterAddress> {
  const { cluster, nodes, node, host, log, python, installs, folder } = place;
  const status = await callAgent(host, python, 'status', { folder }, StatusAnswer).catch(
    noAgentYet,
  );
  if (status?.running && status.address !== undefined) {
    return head ?? headAt(cluster, nodes, status.address);
  }
  log('preparing the host');
  const address = await prepareNode(place);
  if (installs) await compareInstalled(place);
  const own = { cluster, nodes, node, address, head: headHost(head) ?? address };
  const given = {
    folder,
    marker: nodeMarker(cluster, node.name),
    arguments: startArguments(own),
    environment: nodeVariables(own, process.env),
    placement: {
      address,
      ...(node.name === HEAD && { gcs: nodes.ports.gcs, dashboard: nodes.ports.dashboard }),
    },
    ...containerSettings(nodes),
    ...(node.resources?.num_gpus !== undefined && { gpus: node.resources.num_gpus }),
  };
  const { pid } = await callAgent(host, python, 'start', given, StartAnswer);
  log(`started as process ${pid} at ${address}`);
  return head ?? headAt(cluster, nodes, address);
}

/** A Python that is still to be installed cannot be asked yet. */
function noAgentYet(error: unknown): undefined {
  if (error instanceof NoAgent) return undefined;
  throw error;
}

const headAt = (cluster: string, nodes: SshProvider, address: string): ClusterAddress =>
  clusterAddress(cluster, nodes, { ...nodes.ports, address });

const headHost = (head: ClusterAddress | undefined): string | undefined =>
  head && new URL(head.dashboardUrl).hostname.replaceAll(/^\[|\]$/gu, '');

/** Waits until Ray lists this start of the node; the one before may be listed as alive for some seconds. */
async function joined(place: Place, head: ClusterAddress, pause: Pause): Promise<void> {
  const { host, python, folder, node, log } = place;
  const deadline = Date.now() + START_PATIENCE_S * 1000;
  for (;;) {
    const status = await callAgent(host, python, 'status', { folder }, StatusAnswer);
    if (!status.running) {
      throw startFailed(place, 'ended', status.tail);
    }
    if (await isListed(head, node, status.startedAtMs ?? 0)) break;
    if (Date.now() > deadline) {
      const { tail } = await end(place, true);
      throw startFailed(place, `did not join within ${START_PATIENCE_S} s`, tail);
    }
    await pause(POLL_MS);
  }
  log('joined the cluster');
}

/** Both times are by the clock of the node's host: its raylet tells Ray when it started. */
async function isListed(
  head: ClusterAddress,
  { name }: SshNode,
  startedAtMs: number,
): Promise<boolean> {
  try {
    const nodes = await listNodes(head);
    return nodes.some(
      (node) => node.name === name && node.alive && node.startedAtMs >= startedAtMs,
    );
  } catch {
    return false;
  }
}

/** Lines of a node's log that an error shows. */
const TAIL_LINES = 15;

/** Of what it said no more than its end; its log here has that, too, as its host forgets it. */
function startFailed({ cluster, node, log }: Place, what: string, tail = ''): ApplicationFailure {
  const wayOut = `See \`rankflow cluster logs ${cluster} ${node.name}\`, then run \`rankflow cluster up\` again.`;
  const end = tail.split('\n').slice(-TAIL_LINES).join('\n');
  const message = `node ${node.name} of cluster ${cluster} ${what}. ${wayOut} What it said ends with:\n${end}`;
  log(message);
  return ApplicationFailure.nonRetryable(message, 'ClusterStartFailed', { wayOut });
}

/** Ends a node with all its processes. What it needs to be started again stays on its host, but for `whole`. */
async function end(place: Place, keep: boolean): Promise<{ tail: string }> {
  const { cluster, nodes, node, host, log, python, folder } = place;
  const { image } = nodes.environment;
  const given = {
    folder,
    marker: nodeMarker(cluster, node.name),
    ...(keep && { keep: KEPT_FILES }),
    ...(image !== undefined && { image }),
  };
  const answer = await callAgent(host, python, 'end', given, TailAnswer, { timeoutMs: END_MS });
  for (const line of answer.tail.split('\n')) if (line !== '') log(line);
  log(keep ? 'ended' : 'ended; nothing of it is left on its host');
  return answer;
}

/** Ends a node and removes what it left on its host; a head whose state is on disk keeps that. */
export async function endNode({ spec, node }: LocalNodeInput): Promise<void> {
  const place = placeOf(spec, node);
  try {
    await end(place, node === HEAD && place.nodes.gcsStorage === 'rocksdb');
  } catch (error) {
    // Without a Python that runs it there was no agent that could have started a node.
    if (error instanceof NoAgent) {
      place.log(error.message);
      return;
    }
    const { type, message, wayOut } = hostProblem(error);
    throw ApplicationFailure.retryable(message, type, { wayOut });
  }
}

/** Takes a cluster over ssh down: workers first, as they look for their head when it is gone. */
export const removeNodes: ControlActivities['removeNodes'] = async ({ spec, nodes }) => {
  const remove = async (name: string): Promise<NodeProblem[]> => {
    const place = placeOf(spec, name);
    try {
      await end(place, false);
      return [];
    } catch (error) {
      if (error instanceof NoAgent) return [];
      const problem = hostProblem(error);
      place.log(problem.message);
      return [{ node: name, problem }];
    }
  };
  const workers = nodes.filter((name) => name !== HEAD);
  const left = (await Promise.all(workers.map(remove))).flat();
  left.push(...(await remove(HEAD)));
  forgetCluster(spec.name);
  return left;
};

/** @throws ApplicationFailure `ClusterUnavailable` when Ray does not take it */
export async function drainNode({ address, nodeId, seconds }: DrainNodeInput): Promise<void> {
  const args = [
    ...['-m', 'ray.scripts.scripts', 'drain-node', '--address', address.address],
    ...['--node-id', nodeId, '--deadline-remaining-seconds', String(seconds)],
    ...['--reason', 'DRAIN_NODE_REASON_PREEMPTION', '--reason-message', 'drained by rankflow'],
  ];
  const { failed, stderr, shortMessage } = await execa(paths.python, args, {
    reject: false,
    timeout: DRAIN_MS,
    env: rayAuthEnvironment(address.tokenFile),
  });
  if (!failed) return;
  const said = stderr.trim().split('\n').slice(-3).join('\n');
  throw ApplicationFailure.retryable(said || (shortMessage ?? ''), 'ClusterUnavailable');
}

/** The end of the log of a node, from its host. */
export async function nodeTail(spec: ClusterSpec, node: string, lines: number): Promise<string> {
  const { host, python, folder } = placeOf(spec, node);
  const answer = await callAgent(
    host,
    python,
    'logs',
    { folder, lines },
    z.object({ tail: z.string() }),
  );
  return answer.tail;
}
