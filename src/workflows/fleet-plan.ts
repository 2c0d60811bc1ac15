import type { RayNode } from '../contracts/activities.js';
import type { ExecuteFleetPlanInput, FleetSpec, ObservedEngine } from '../contracts/fleet.js';
import type { FleetSlotStatus, Problem } from '../contracts/workflows.js';
import { counted } from '../text.js';
import { placesOf } from './fleet-slots.js';

/** Slots to create, to kill for good, and to kill so that Ray restarts them. Ascending. */
export interface FleetPlan {
  readonly start: readonly number[];
  readonly stop: readonly number[];
  readonly restart: readonly number[];
}

/** Seconds before an engine that failed to load is tried again: what is broken is rarely mended sooner. */
export const RELOAD_AFTER_S = 60;

/** Nodes that get nothing new. */
export interface Cordon {
  readonly cluster: string;
  /** Ray's ids. */
  readonly nodes: ReadonlySet<string>;
  /** Engines of the fleet that are on them. */
  readonly engines: number;
}

/** Fractions of a GPU add up with rounding errors. */
const EPSILON = 1e-9;

/**
 * Whether Ray can ever place the engines: each needs its CPUs and GPUs on one node that is alive and stays, but for
 * one of several GPUs, whose workers are placed one by one. What other fleets take is not counted, as they may go.
 *
 * @param leaving ids of nodes that are going to be taken away
 * @param cordon which nodes get nothing new; the engines that are on them stay
 * @returns `ImpossibleResources` with the numbers, or undefined when it can
 */
export function checkResources(
  { engines, model }: Pick<FleetSpec, 'engines' | 'model'>,
  nodes: readonly RayNode[],
  leaving: ReadonlySet<string> = new Set(),
  cordon?: Cordon,
): Problem | undefined {
  const { cpusPerEngine: cpus, gpusPerEngine: gpus } = model;
  const workers = gpus > 0 ? model.tensorParallelSize * model.pipelineParallelSize : 1;
  const living = nodes.filter((node) => node.alive);
  const staying = living.filter((node) => !leaving.has(node.nodeId));
  const fewer = living.length - staying.length;
  const cordoned = staying.filter(({ nodeId }) => cordon?.nodes.has(nodeId));
  const alive = staying.filter((node) => !cordoned.includes(node));
  const sum = (of: (node: RayNode) => number): number =>
    alive.reduce((total, node) => total + of(node), 0);
  // The first worker of an engine has its CPUs beside it, the others need nothing but GPUs.
  const first = sum((node) => Math.min(fit(node.cpus, cpus), fit(node.gpus, gpus / workers)));
  const whole = Math.floor(sum((node) => fit(node.gpus, gpus / workers)) / workers);
  const free = workers === 1 ? first : Math.min(first, whole);
  const there = cordon?.engines ?? 0;
  const room = free + there;
  if (room >= engines) return undefined;
  const closed = describeCordon(cordoned, cordon);
  const shape =
    workers === 1
      ? 'an engine does not span nodes'
      : `each of the ${workers} workers of an engine needs ${gpus / workers} GPUs on one node`;
  return {
    type: 'ImpossibleResources',
    message:
      `${engines} engines of ${cpus} CPUs and ${gpus} GPUs each are asked for, and there is room for ${room}: ` +
      `the cluster has ${sum((node) => node.cpus)} CPUs and ${sum((node) => node.gpus)} GPUs ` +
      `on ${alive.length} living nodes, and ${shape}` +
      (fewer > 0 ? `; ${fewer} more are about to be taken away` : '') +
      (closed === undefined ? '' : `; ${closed.message}`),
    ...(closed !== undefined && { wayOut: closed.wayOut }),
  };
}

/** What a cordon has to do with a lack of room, and what can be done about it; undefined when there is none. */
export function describeCordon(
  nodes: readonly RayNode[],
  cordon: Cordon | undefined,
): { readonly message: string; readonly wayOut: string } | undefined {
  const names = nodes
    .filter(({ nodeId, alive }) => alive && cordon?.nodes.has(nodeId))
    .map(({ name }) => name);
  if (cordon === undefined || names.length === 0) return undefined;
  const held = cordon.engines > 0 ? `, with ${counted(cordon.engines, 'engine')} of the fleet` : '';
  const command = `rankflow cluster uncordon ${cordon.cluster} ${names.join(' ')}`;
  return {
    message: `nothing new is placed on cordoned nodes: ${names.join(', ')}${held}`,
    wayOut: `Take them back with \`${command}\`, ask for fewer engines, or add nodes.`,
  };
}

const fit = (available: number, each: number): number =>
  each === 0 ? Number.MAX_SAFE_INTEGER : Math.floor(available / each + EPSILON);

/**
 * Compares the slots that are to be there with what Ray and the canaries say. A slot that Ray is placing or
 * restarting counts as present: Ray owns the crash of a process, the fleet what Ray gave up on or cannot see. A
 * draining slot is replaced at once, and killed for good when it is drained.
 *
 * @param hung slots whose engine does not answer
 * @param now milliseconds since the epoch
 */
export function planFleet(
  desired: number,
  engines: readonly ObservedEngine[],
  slots: readonly FleetSlotStatus[],
  hung: ReadonlySet<number>,
  now: number,
): FleetPlan {
  const present = engines.filter((engine) => engine.actorState !== 'DEAD').map(({ slot }) => slot);
  const wanted = placesOf(desired, slots).map(({ slot }) => slot);
  const atWork = slots
    .filter(({ state, drained }) => state === 'draining' && drained !== true)
    .map(({ slot }) => slot);
  const reload = slots
    .filter(({ state }) => state === 'failed' || state === 'restarting')
    .filter(({ slot, incarnation }) => runsStill(engines, slot, incarnation))
    .filter(({ since }) => now - Date.parse(since) >= RELOAD_AFTER_S * 1000)
    .map(({ slot }) => slot);
  const restart = new Set([...hung, ...reload]);
  return {
    start: wanted.filter((slot) => !present.includes(slot)),
    stop: present
      .filter((slot) => !wanted.includes(slot) && !atWork.includes(slot))
      .toSorted((a, b) => a - b),
    restart: wanted.filter((slot) => restart.has(slot) && present.includes(slot)),
  };
}

const runsStill = (
  engines: readonly ObservedEngine[],
  slot: number,
  incarnation: string | undefined,
): boolean =>
  incarnation !== undefined &&
  engines.some((engine) => engine.slot === slot && engine.incarnation === incarnation);

/** The plan as it is carried out: with the ranks that new engines serve, and which others need no draining. */
export function stepsOf(
  plan: FleetPlan,
  desired: number,
  slots: readonly FleetSlotStatus[],
): Omit<ExecuteFleetPlanInput, 'fleet'> {
  const places = placesOf(desired, slots);
  return {
    start: [...plan.start],
    indexes: plan.start.map((slot) => places.find((place) => place.slot === slot)?.index ?? slot),
    stop: [...plan.stop],
    drained: slots.filter(({ drained }) => drained === true).map(({ slot }) => slot),
    restart: [...plan.restart],
  };
}

export const isEmpty = ({ start, stop, restart }: FleetPlan): boolean =>
  start.length + stop.length + restart.length === 0;

/** One line for people, e.g. `Start engine 0, 1; Stop engine 4`. */
export function summaryOf({ start, stop, restart }: FleetPlan): string {
  const part = (verb: string, slots: readonly number[]): string[] =>
    slots.length === 0 ? [] : [`${verb} engine ${slots.join(', ')}`];
  return [...part('Start', start), ...part('Stop', stop), ...part('Restart', restart)].join('; ');
}

/** Seconds between two looks while an engine is missing: actors that were just asked for come in seconds. */
const LOOK_SOON_S = [2, 2, 4, 8, 10];
/** When all engines answer. */
const LOOK_RARELY_S = 30;

/**
 * How long to wait before the fleet is looked at again.
 *
 * @param looks looks since something was last asked of Ray
 */
export function secondsToNextLook(looks: number, allReady: boolean): number {
  if (allReady) return LOOK_RARELY_S;
  return LOOK_SOON_S[Math.min(looks, LOOK_SOON_S.length - 1)] ?? LOOK_RARELY_S;
}
