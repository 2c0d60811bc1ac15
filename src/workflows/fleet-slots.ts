import type { ObservedEngine } from '../contracts/fleet.js';
import type { FleetSlotStatus, Problem } from '../contracts/workflows.js';
import type { Verdict } from './canary.js';

/** Seconds in `placing` after which something stands in the way: with room, Ray places an actor in a few. */
const PLACING_PATIENCE_S = 20;

/** What can be placed in principle is not placed now. Who holds the room is not Ray's to say. */
const WAITS_FOR_ROOM: Problem = {
  type: 'ClusterUnavailable',
  message: 'waits for room that something else holds, see `rankflow fleet status`',
};

/** The slots as they are now: what Ray says, and what is known of an incarnation that is still the same. */
export function mergeSlots(
  desired: number,
  before: readonly FleetSlotStatus[],
  engines: readonly ObservedEngine[],
  now: number,
): FleetSlotStatus[] {
  return Array.from({ length: desired }, (_, slot) =>
    mergeSlot(
      slot,
      before.find((known) => known.slot === slot),
      engines.find((engine) => engine.slot === slot),
      now,
    ),
  );
}

function mergeSlot(
  slot: number,
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
  const known = before?.problem?.message === WAITS_FOR_ROOM.message ? undefined : before?.problem;
  const problem = (leftOver ? undefined : problemWith(engine)) ?? waits ?? known;
  return {
    slot,
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
  const { problem: _over, ...rest } = slot;
  if (verdict.kind === 'ready') {
    const { loadSeconds, maxModelLen } = verdict.result;
    const since = slot.state === 'ready' ? slot.since : new Date(now).toISOString();
    return { ...rest, state: 'ready', since, loadSeconds, maxModelLen };
  }
  const state = verdict.kind === 'failed' ? 'failed' : 'restarting';
  return { ...rest, state, since: new Date(now).toISOString(), problem: verdict.problem };
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
