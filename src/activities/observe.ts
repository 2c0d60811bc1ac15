import { Context } from '@temporalio/activity';

import { waitingBatches } from '../client/fleets.js';
import type {
  ClusterObservation,
  FleetObservation,
  LocalProcess,
  ObserveClusterInput,
  RayNode,
} from '../contracts/activities.js';
import type { ClusterAddress } from '../contracts/cluster.js';
import type { FleetSpec, ObservedEngine } from '../contracts/fleet.js';
import { NODE_ID_LABEL, engineActorName, fleetQueue, isEngineActor } from '../contracts/names.js';
import type { ClusterStatus } from '../contracts/workflows.js';
import { localAddress, localProcesses } from './local/node-state.js';
import {
  type ActorState,
  RayRefusal,
  countJobs,
  listActors,
  listNodes,
  reasonOf,
} from './ray-state.js';
import { observeNodes } from './ssh/observe-nodes.js';

/** What of a cluster is there. Never fails: that Ray does not answer is an observation. */
export async function observeCluster(input: ObserveClusterInput): Promise<ClusterObservation> {
  const { address, processes } = await hostsOf(input);
  if (address === undefined) return { reachable: false, nodes: [], processes };
  try {
    const nodes = await listNodes(address);
    const used = await useOf(address, input.spec);
    return { reachable: true, address, nodes, processes, ...used };
  } catch (error) {
    const refused = error instanceof RayRefusal && { refused: true };
    const problem = reasonOf(error);
    return { reachable: false, address, nodes: [], processes, problem, ...refused };
  }
}

interface Hosts {
  readonly address?: ClusterAddress | undefined;
  readonly processes: readonly LocalProcess[];
}

/** Where the head is, and what the hosts of the nodes say. */
async function hostsOf({ spec, nodes: names, address }: ObserveClusterInput): Promise<Hosts> {
  const { name, nodes } = spec;
  if (nodes.provider === 'local') {
    return { address: localAddress(name), processes: localProcesses(name) };
  }
  if (nodes.provider === 'ssh') {
    const seen = await observeNodes(name, nodes, names ?? []);
    return { ...seen, address: seen.address ?? address };
  }
  const { address: gcs, dashboardUrl, tokenFile } = nodes;
  const given = { name, address: gcs, dashboardUrl, ...(tokenFile !== undefined && { tokenFile }) };
  return { address: given, processes: [] };
}

/**
 * What a cluster is used for: its engines by node, and where it goes when nobody uses it the jobs that are not done.
 * What the dashboard does not say is absent, and the cluster is there all the same: a head that is ended takes its
 * nodes with it.
 */
async function useOf(
  address: ClusterAddress,
  { nodes: { provider } }: ObserveClusterInput['spec'],
): Promise<Pick<ClusterObservation, 'engines' | 'jobs'>> {
  const [engines, jobs] = await Promise.all([
    enginesByNode(address).catch(() => undefined),
    provider === 'ssh' ? countJobs(address).catch(() => undefined) : undefined,
  ]);
  return { ...(engines !== undefined && { engines }), ...(jobs !== undefined && { jobs }) };
}

async function enginesByNode(address: ClusterAddress): Promise<Record<string, number>> {
  const actors = await listActors(address);
  const engines: Record<string, number> = {};
  for (const { state, name, node_id: nodeId } of actors) {
    if (state !== 'ALIVE' || !nodeId || !isEngineActor(name ?? '')) continue;
    engines[nodeId] = (engines[nodeId] ?? 0) + 1;
  }
  return engines;
}

/** States of nodes that nobody waits for. */
const LEFT_OUT: ReadonlySet<string> = new Set(['spare', 'drained', 'failed']);

/**
 * The engines of a fleet as Ray sees them, and the nodes they may be on. Never fails.
 *
 * @param statusOf asks the workflow of a cluster; undefined when it does not answer
 */
export async function observeFleet(
  { spec }: { readonly spec: FleetSpec },
  statusOf: (cluster: string) => Promise<ClusterStatus | undefined>,
): Promise<FleetObservation> {
  try {
    const [nodes, actors, cluster, backlog] = await Promise.all([
      listNodes(spec.cluster),
      listActors(spec.cluster),
      statusOf(spec.cluster.name),
      backlogOf(spec),
    ]);
    const alive = nodes.filter((node) => node.alive).length;
    const wanted = cluster?.nodes.filter(({ state }) => !LEFT_OUT.has(state)) ?? [];
    const missingNodes = Math.max(0, wanted.length - alive);
    const waits = backlog !== undefined && { backlog };
    const cordoned = cluster && { unschedulable: unschedulableIds(cluster, nodes) };
    const engines = enginesOf(spec, actors);
    return { reachable: true, nodes, engines, missingNodes, ...cordoned, ...waits };
  } catch (error) {
    return { reachable: false, nodes: [], engines: [], problem: reasonOf(error) };
  }
}

/** Ray's ids of the cordoned nodes. The names are the cluster's word, who has them now is Ray's. */
export function unschedulableIds(
  { unschedulable = [] }: Pick<ClusterStatus, 'unschedulable'>,
  nodes: readonly RayNode[],
): string[] {
  const names = new Set(unschedulable);
  return nodes
    .filter(({ name, alive }) => alive && names.has(name))
    .map(({ nodeId }) => nodeId)
    .toSorted();
}

/** Batches that wait for an engine of the fleet; undefined when nobody asks, or when the server does not say. */
async function backlogOf(spec: FleetSpec): Promise<number | undefined> {
  const { name, specHash, scaling, idleTimeoutSeconds } = spec;
  if (scaling === undefined && idleTimeoutSeconds === undefined) return undefined;
  return waitingBatches(Context.current().client, fleetQueue(name, specHash));
}

/** The actors that are slots of a fleet, one entry a slot: Ray also lists the dead ones that a slot had before. */
export function enginesOf(
  { name, specHash }: Pick<FleetSpec, 'name' | 'specHash'>,
  actors: readonly ActorState[],
): ObservedEngine[] {
  const prefix = engineActorName(name, specHash, 0).slice(0, -1);
  const engines = new Map<number, ObservedEngine>();
  for (const actor of actors) {
    const slotText = actor.name?.startsWith(prefix) ? actor.name.slice(prefix.length) : '';
    if (!/^\d+$/u.test(slotText)) continue;
    const slot = Number(slotText);
    const known = engines.get(slot);
    if (known !== undefined && known.actorState !== 'DEAD') continue;
    engines.set(slot, engineOf(slot, actor));
  }
  return [...engines.values()].toSorted((a, b) => a.slot - b.slot);
}

function engineOf(slot: number, actor: ActorState): ObservedEngine {
  const { state, node_id: nodeId, pid } = actor;
  const alive = state === 'ALIVE' && nodeId && pid;
  const deathCause = deathCauseOf(actor.death_cause);
  return {
    slot,
    actorState: state,
    restarts: actor.num_restarts,
    ...(nodeId && { nodeId }),
    ...(alive && { incarnation: `${nodeId.slice(0, 8)}-${pid}` }),
    ...(deathCause !== undefined && { deathCause }),
    ...(actor.label_selector !== undefined && { avoids: idsAvoided(actor.label_selector ?? {}) }),
  };
}

/** Ids of nodes that a selector of labels excludes: `!in(id, id)`. */
function idsAvoided(selector: Readonly<Record<string, string>>): string[] {
  const ids = /^!(?:in)?\(?(?<ids>[^()]*)\)?$/u.exec(selector[NODE_ID_LABEL] ?? '')?.groups?.[
    'ids'
  ];
  return ids === undefined ? [] : ids.split(',').map((id) => id.trim());
}

/** Stack traces belong in logs: the status shows the first lines. */
const LONGEST_CAUSE = 300;

/** Ray nests the reason of a death below a key that names its kind. */
function deathCauseOf(cause: unknown): string | undefined {
  if (typeof cause !== 'object' || cause === null) return undefined;
  for (const [key, value] of Object.entries(cause)) {
    if (key === 'error_message' && typeof value === 'string') return value.slice(0, LONGEST_CAUSE);
    const inner = deathCauseOf(value);
    if (inner !== undefined) return inner;
  }
  return undefined;
}
