import type { ObservedEngine } from '../contracts/fleet.js';
import type { PreemptionNotice } from '../contracts/preemption.js';
import type { FleetSlotStatus, Problem } from '../contracts/workflows.js';
import type { Verdict } from './canary.js';

/**
 * Seconds in `placing` after which something stands in the way: with room, Ray places an actor in a few, on a busy
 * host in half a minute.
 */
const PLACING_PATIENCE_S = 60;

/** What can be placed in principle is not placed now. Who holds the room is not Ray's to say. */
const WAITS_FOR_ROOM: Problem = {
  type: 'ClusterUnavailable',
  message: 'waits for room that something else holds, see `rankflow fleet status`',
};

/** A slot that is to be there. Its index, 0 to `desired - 1`, says which ranks it serves. */
export interface Place {
  readonly slot: number;
  readonly index: number;
}

/** Of a slot that replaces no other it is the slot's number. */
export const indexOf = ({ slot, index }: Pick<FleetSlotStatus, 'slot' | 'index'>): number =>
  index ?? slot;

/**
 * The slots that are to be there, one for each index: those that are not draining keep theirs, what is missing
 * gets the lowest free numbers. Without a drain that is 0 to `desired - 1`.
 */
export function placesOf(desired: number, slots: readonly FleetSlotStatus[]): Place[] {
  const taken = new Set(slots.map(({ slot }) => slot));
  const staying = slots.filter(({ state }) => state !== 'draining');
  return Array.from({ length: desired }, (_, index) => {
    const known = staying.find((slot) => indexOf(slot) === index);
    if (known !== undefined) return { slot: known.slot, index };
    let slot = 0;
    while (taken.has(slot)) slot += 1;
    taken.add(slot);
    return { slot, index };
  });
}

/**
 * The slots as they are now, by number: what Ray says, and what is known of an incarnation that is still the
 * same. Draining ones are beside those that are to be there, until Ray has them no more.
 */
export function mergeSlots(
  desired: number,
  before: readonly FleetSlotStatus[],
  engines: readonly ObservedEngine[],
  now: number,
): FleetSlotStatus[] {
  const engineOf = (slot: number): ObservedEngine | undefined =>
    engines.find((engine) => engine.slot === slot);
  const places = placesOf(desired, before).map((place) => {
    const known = before.find(({ slot }) => slot === place.slot);
    const replaces = known === undefined ? isPreempted(place.index, before) : known.replaces;
    const merged = mergeSlot(place, known, engineOf(place.slot), now);
    return replaces ? { ...merged, replaces } : merged;
  });
  const draining = before
    .filter(({ state }) => state === 'draining')
    .flatMap((slot) => mergeDraining(slot, engineOf(slot.slot)));
  return [...places, ...draining].toSorted((a, b) => a.slot - b.slot);
}

/** Whether an engine of this index drains because its node is taken away: only then a reason stands at it. */
const isPreempted = (index: number, slots: readonly FleetSlotStatus[]): true | undefined =>
  slots.some(
    (slot) => slot.state === 'draining' && slot.problem !== undefined && indexOf(slot) === index,
  ) || undefined;

/** What its node took with it, or Ray has started again elsewhere, has nothing left to drain. */
function mergeDraining(
  slot: FleetSlotStatus,
  engine: ObservedEngine | undefined,
): FleetSlotStatus[] {
  if (engine === undefined || engine.actorState === 'DEAD') return [];
  const same = engine.actorState === 'ALIVE' && engine.incarnation === slot.incarnation;
  return [same ? slot : { ...slot, drained: true }];
}

function mergeSlot(
  { slot, index }: Place,
  before: FleetSlotStatus | undefined,
  engine: ObservedEngine | undefined,
  now: number,
): FleetSlotStatus {
  const same = before?.incarnation !== undefined && before.incarnation === engine?.incarnation;
  // Of an earlier fleet of this name: it says nothing about this one.
  const leftOver = before === undefined && engine?.actorState === 'DEAD';
  const state = leftOver ? 'placing' : stateOf(engine);
  if (same && state === 'loading') return { ...before, restarts: engine.restarts };
  const since =
    before?.state === state && !engine?.incarnation ? before.since : new Date(now).toISOString();
  const waits =
    state === 'placing' && (now - Date.parse(since)) / 1000 >= PLACING_PATIENCE_S
      ? WAITS_FOR_ROOM
      : undefined;
  const known = before?.problem?.message.startsWith(WAITS_FOR_ROOM.message)
    ? undefined
    : before?.problem;
  const problem = (leftOver ? undefined : problemWith(engine)) ?? waits ?? known;
  return {
    slot,
    ...(index !== slot && { index }),
    state,
    since,
    restarts: engine?.restarts ?? before?.restarts ?? 0,
    ...(engine?.nodeId !== undefined && { nodeId: engine.nodeId }),
    ...(engine?.incarnation !== undefined && { incarnation: engine.incarnation }),
    ...(problem && { problem }),
  };
}

function stateOf(engine: ObservedEngine | undefined): FleetSlotStatus['state'] {
  if (engine?.actorState === 'DEAD') return 'dead';
  if (engine?.actorState === 'RESTARTING') return 'restarting';
  return engine?.actorState === 'ALIVE' && engine.incarnation !== undefined ? 'loading' : 'placing';
}

function problemWith(engine: ObservedEngine | undefined): Problem | undefined {
  if (engine?.deathCause === undefined) return undefined;
  return { type: 'EngineGone', message: engine.deathCause };
}

/** The slot after the canary of its present incarnation came back. */
export function judge(slot: FleetSlotStatus, verdict: Verdict, now: number): FleetSlotStatus {
  const { problem: _over, ...known } = slot;
  if (verdict.kind === 'ready') {
    const { replaces: _done, ...rest } = known;
    const { loadSeconds, maxModelLen, batches, metrics } = verdict.result;
    const since = slot.state === 'ready' ? slot.since : new Date(now).toISOString();
    const busy = batches !== undefined && { batches };
    const scraped = metrics !== undefined && { metrics };
    return { ...rest, state: 'ready', since, loadSeconds, maxModelLen, ...busy, ...scraped };
  }
  const state = verdict.kind === 'failed' ? 'failed' : 'restarting';
  return { ...known, state, since: new Date(now).toISOString(), problem: verdict.problem };
}

/** The slots whose engines are on nodes with notice drain until the earliest deadline that was given. */
export function markDraining(
  slots: readonly FleetSlotStatus[],
  notices: ReadonlyMap<string, PreemptionNotice>,
  now: number,
): FleetSlotStatus[] {
  return slots.map((slot) => {
    const notice = slot.nodeId === undefined ? undefined : notices.get(slot.nodeId);
    if (notice === undefined || !['loading', 'ready', 'draining'].includes(slot.state)) return slot;
    const deadline = new Date(notice.deadline).toISOString();
    if (slot.state === 'draining') return { ...slot, deadline };
    const problem: Problem = {
      type: 'EngineGone',
      message: `its node is taken away (${notice.source} gave notice)`,
    };
    return { ...slot, state: 'draining', since: new Date(now).toISOString(), deadline, problem };
  });
}

/** How many slots drain that did not before. */
export function newlyDraining(
  before: readonly FleetSlotStatus[],
  after: readonly FleetSlotStatus[],
): number {
  const draining = new Set(
    before.filter(({ state }) => state === 'draining').map(({ slot }) => slot),
  );
  return after.filter(({ slot, state }) => state === 'draining' && !draining.has(slot)).length;
}

/**
 * The slots after the fleet was made smaller: engines that have work or may have it drain until the deadline, the
 * others are not wanted any more. Those with the lowest indexes stay.
 *
 * @param deadline ISO 8601
 */
export function markRemoved(
  desired: number,
  slots: readonly FleetSlotStatus[],
  deadline: string,
  now: number,
): FleetSlotStatus[] {
  return slots.map((slot) => {
    if (indexOf(slot) < desired || !['loading', 'ready'].includes(slot.state)) return slot;
    const { problem: _before, ...rest } = slot;
    return { ...rest, state: 'draining', since: new Date(now).toISOString(), deadline };
  });
}

/**
 * The slots whose engines must not be where they are, or where Ray may put them, drain, so that others take their
 * places. What Ray places or restarts by itself it places as it was told at the start, when other nodes were cordoned:
 * an engine that comes onto a cordoned node leaves it again, and one that waits is asked for anew.
 *
 * @param before the slots before this look
 * @param unschedulable ids of the living nodes that are cordoned
 * @param alive ids of the living nodes
 * @param deadline ISO 8601 time until which an engine that runs may finish what it has
 */
export function markMisplaced(
  before: readonly FleetSlotStatus[],
  slots: readonly FleetSlotStatus[],
  engines: readonly ObservedEngine[],
  unschedulable: ReadonlySet<string>,
  alive: ReadonlySet<string>,
  deadline: string,
  now: number,
): FleetSlotStatus[] {
  return slots.map((slot) => {
    if (slot.state === 'draining') return slot;
    const engine = engines.find((one) => one.slot === slot.slot);
    const known = before.find((one) => one.slot === slot.slot);
    const runs = engine?.actorState === 'ALIVE';
    const came = runs && engine.incarnation !== known?.incarnation;
    const misplaced = came && unschedulable.has(engine.nodeId ?? '');
    if (!misplaced && !isToldOtherwise(engine, unschedulable, alive)) return slot;
    const { problem: _before, ...rest } = slot;
    const drained = !runs && { drained: true };
    return { ...rest, state: 'draining', since: new Date(now).toISOString(), deadline, ...drained };
  });
}

/** Whether Ray looks for a place for an engine, and leaves out other nodes than those that are cordoned now. */
function isToldOtherwise(
  engine: ObservedEngine | undefined,
  unschedulable: ReadonlySet<string>,
  alive: ReadonlySet<string>,
): boolean {
  if (engine?.avoids === undefined || ['ALIVE', 'DEAD'].includes(engine.actorState)) return false;
  // Nodes that are gone say nothing, in either: a cluster that does not answer leaves them among those cordoned.
  const avoided = engine.avoids.filter((nodeId) => alive.has(nodeId));
  const closed = [...unschedulable].filter((nodeId) => alive.has(nodeId));
  return avoided.length !== closed.length || avoided.some((id) => !unschedulable.has(id));
}

/** The slots after an engine has given back all its work, or went before it could. */
export function markDrained(
  slots: readonly FleetSlotStatus[],
  slot: number,
  incarnation: string,
): FleetSlotStatus[] {
  return slots.map((known) =>
    known.slot === slot && known.incarnation === incarnation ? { ...known, drained: true } : known,
  );
}

/**
 * The slots, with the reason at those that wait for a node with room: Ray places them when one comes.
 *
 * @param cordoned which nodes with room, it may be, get nothing new, and the way out
 */
export function explainWaiting(
  slots: readonly FleetSlotStatus[],
  shortage: Problem | undefined,
  cordoned?: Pick<Problem, 'message' | 'wayOut'>,
): FleetSlotStatus[] {
  return slots.map((slot) => {
    if (slot.state !== 'placing') return slot;
    const { problem, ...rest } = slot;
    const known = problem?.type === 'ImpossibleResources' ? undefined : problem;
    const waits = known?.message === WAITS_FOR_ROOM.message && cordoned !== undefined;
    const held = waits
      ? { ...known, ...cordoned, message: `${known.message}; ${cordoned.message}` }
      : known;
    const reason = shortage ?? held;
    return { ...rest, ...(reason && { problem: reason }) };
  });
}

/** The slots after those of `restarted` were killed so that Ray restarts them. */
export function markRestarted(
  slots: readonly FleetSlotStatus[],
  restarted: readonly number[],
  now: number,
): FleetSlotStatus[] {
  const since = new Date(now).toISOString();
  return slots.map((slot) =>
    restarted.includes(slot.slot) ? { ...slot, state: 'restarting', since } : slot,
  );
}
