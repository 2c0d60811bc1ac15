import type { FleetScaling, FleetSpec } from '../contracts/fleet.js';
import type {
  DrainRequest,
  FleetSlotStatus,
  Problem,
  ScaleRequest,
  ScalingStep,
} from '../contracts/workflows.js';

/** What a decision is made from. Batches are counted, never rows. */
export interface Demand {
  /** Batches that wait for an engine. */
  readonly backlog: number;
  /** Batches that engines work on, as far as they say. */
  readonly busy: number;
  /** Workflows that hold the fleet. */
  readonly users: number;
  /** Users that wait for engines to be ready: what they bring is not in the queue yet. */
  readonly waiting: number;
}

/** Milliseconds since the epoch from which on a fleet was continuously larger than needed, or unused. */
export interface Quiet {
  readonly spareSince?: number;
  readonly unusedSince?: number;
}

/** A new number of engines, and why, as a person reads it. */
export interface Resize {
  readonly engines: number;
  readonly reason: string;
}

/** Milliseconds between two canaries of an engine that works: a hung one is found in minutes. */
const CANARY_EVERY_MS = 60_000;
/** Changes of size that a status shows. */
const STEPS_SHOWN = 10;

type Policy = Pick<FleetSpec, 'engines' | 'maxConcurrentBatches' | 'scaling'>;

/** Engines that the batches of `demand` keep busy, within the limits. */
function needed({ maxConcurrentBatches }: Policy, scaling: FleetScaling, demand: Demand): number {
  const engines = Math.ceil((demand.backlog + demand.busy) / maxConcurrentBatches);
  return Math.min(scaling.maxEngines, Math.max(scaling.minEngines, engines));
}

/**
 * Since when the fleet has been larger than needed, and unused, going on from what was known before. Users that wait
 * for engines are about to bring work: they count as work.
 */
export function quietOf(before: Quiet, fleet: Policy, demand: Demand, now: number): Quiet {
  const { scaling, engines } = fleet;
  const expected = demand.backlog > 0 || demand.waiting > 0;
  const spare = scaling !== undefined && !expected && needed(fleet, scaling, demand) < engines;
  const unused = !expected && demand.busy === 0 && demand.users === 0;
  return {
    ...(spare && { spareSince: before.spareSince ?? now }),
    ...(unused && { unusedSince: before.unusedSince ?? now }),
  };
}

/**
 * The size that a fleet which scales by itself should have: at once as many engines as the batches that wait and
 * are in work keep busy; fewer only when fewer have sufficed for `idleSeconds`, as loading a model again costs
 * minutes.
 *
 * @returns undefined when it has the right size, or does not scale by itself
 */
export function planScaling(
  fleet: Policy,
  demand: Demand,
  { spareSince }: Quiet,
  now: number,
): Resize | undefined {
  const { scaling, engines } = fleet;
  if (scaling === undefined) return undefined;
  const { minEngines, maxEngines, idleSeconds } = scaling;
  if (engines < minEngines) {
    return { engines: minEngines, reason: `never fewer than ${minEngines}` };
  }
  if (engines > maxEngines) {
    return { engines: maxEngines, reason: `never more than ${maxEngines}` };
  }
  const wanted = needed(fleet, scaling, demand);
  if (demand.backlog > 0 && wanted > engines) {
    const work = `${demand.backlog} batches wait and ${demand.busy} are in work`;
    return { engines: wanted, reason: `${work}, ${fleet.maxConcurrentBatches} to an engine` };
  }
  if (spareSince === undefined || now - spareSince < idleSeconds * 1000 || wanted >= engines) {
    return undefined;
  }
  const enough = demand.busy === 0 ? 'nothing was in work' : `${wanted} sufficed`;
  return { engines: wanted, reason: `no batch waited for ${idleSeconds} s and ${enough}` };
}

/** Why a fleet that nobody uses stops now; undefined when it stays. */
export function planStop(
  { idleTimeoutSeconds }: Pick<FleetSpec, 'idleTimeoutSeconds'>,
  { unusedSince }: Quiet,
  now: number,
): string | undefined {
  if (idleTimeoutSeconds === undefined || unusedSince === undefined) return undefined;
  if (now - unusedSince < idleTimeoutSeconds * 1000) return undefined;
  return `nobody used the fleet for ${idleTimeoutSeconds} s, so it stops`;
}

/** The steps with one more; only the last ones are kept. */
export function withStep(
  steps: readonly ScalingStep[],
  from: number,
  { engines: to, reason }: Resize,
  now: number,
): ScalingStep[] {
  const at = new Date(now).toISOString();
  return [...steps, { at, from, to, reason }].slice(-STEPS_SHOWN);
}

/** What engines that were asked have in work; one that was not asked yet has nothing. */
export const busyBatches = (slots: readonly FleetSlotStatus[]): number =>
  slots.reduce((sum, { state, batches }) => sum + (state === 'ready' ? (batches ?? 0) : 0), 0);

const isCount = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0;

/** What is wrong with a request; it may have been typed by hand. */
export function checkScaleRequest(request: unknown): Problem | undefined {
  const { engines, scaling } = (request ?? {}) as Partial<ScaleRequest>;
  const refuse = (message: string): Problem => ({ type: 'InvalidRequest', message });
  if ((engines === undefined) === (scaling === undefined)) {
    return refuse('scale takes a number of engines, or limits between which the fleet scales');
  }
  if (engines !== undefined) {
    return isCount(engines) ? undefined : refuse('engines is not a number of 0 or more');
  }
  const { minEngines, maxEngines, idleSeconds } = (scaling ?? {}) as Partial<FleetScaling>;
  if (!isCount(minEngines)) return refuse('minEngines is not a number of 0 or more');
  if (!isCount(maxEngines) || maxEngines < 1)
    return refuse('maxEngines is not a number of 1 or more');
  if (minEngines > maxEngines) {
    return refuse(`minEngines ${minEngines} is more than maxEngines ${maxEngines}`);
  }
  if (!isCount(idleSeconds) || idleSeconds < 1) {
    return refuse('idleSeconds is not a number of 1 or more');
  }
  return undefined;
}

/** A month, in seconds: what would take longer has been mistyped, and a date has an end. */
const LONGEST_GRACE_S = 30 * 86_400;

/** What is wrong with a request to drain a fleet; it may have been typed by hand. */
export function checkDrainRequest(request: unknown): Problem | undefined {
  const refuse = (message: string): Problem => ({ type: 'InvalidRequest', message });
  if (typeof (request ?? {}) !== 'object') {
    return refuse('drainFleet takes nothing, or an object such as {"graceSeconds": 600}');
  }
  const grace = (request as DrainRequest | null | undefined)?.graceSeconds ?? 0;
  if (typeof grace === 'number' && grace >= 0 && grace <= LONGEST_GRACE_S) return undefined;
  return refuse(`graceSeconds is not a number from 0 to ${LONGEST_GRACE_S} (30 days)`);
}

type Elastic = Pick<FleetSpec, 'scaling' | 'idleTimeoutSeconds'>;

/** Whether and how a fleet changes its size by itself, without what is not set. */
export const elasticOf = ({ scaling, idleTimeoutSeconds }: Elastic): Elastic => ({
  ...(scaling && { scaling }),
  ...(idleTimeoutSeconds && { idleTimeoutSeconds }),
});

/** Whether its size, or whether it stays at all, depends on what it has to do. */
export const isElastic = ({ scaling, idleTimeoutSeconds }: Elastic): boolean =>
  scaling !== undefined || idleTimeoutSeconds !== undefined;

/** What an engine has in work is known from its canary: asked twice before it is taken away for having nothing. */
export function canaryEveryMs({ scaling, idleTimeoutSeconds }: Elastic): number {
  const idle = Math.min(scaling?.idleSeconds ?? Infinity, idleTimeoutSeconds ?? Infinity);
  return Math.min(CANARY_EVERY_MS, (idle * 1000) / 2);
}
