import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import type { ObservedEngine } from '../../../src/contracts/fleet.js';
import type { FleetSlotStatus } from '../../../src/contracts/workflows.js';
import {
  RELOAD_AFTER_S,
  checkResources,
  isEmpty,
  planFleet,
  secondsToNextLook,
  summaryOf,
} from '../../../src/workflows/fleet-plan.js';
import { judge, markRestarted, mergeSlots } from '../../../src/workflows/fleet-slots.js';
import { rayNode } from '../../support/fake-cluster.js';
import { fakeModel } from '../../support/fake-run.js';

const NOW = Date.parse('2030-01-01T00:00:00Z');
const NONE: ReadonlySet<number> = new Set();

const engine = (
  slot: number,
  actorState: ObservedEngine['actorState'] = 'ALIVE',
  pid = 1,
): ObservedEngine => ({
  slot,
  actorState,
  restarts: 0,
  ...(actorState === 'ALIVE' && { incarnation: `node-${pid}`, nodeId: 'node' }),
});
const slotOf = (
  slot: number,
  state: FleetSlotStatus['state'],
  ageSeconds = 0,
): FleetSlotStatus => ({
  slot,
  state,
  since: new Date(NOW - ageSeconds * 1000).toISOString(),
  restarts: 0,
  incarnation: 'node-1',
});

describe('the resources for a fleet', () => {
  const need = (engines: number, cpusPerEngine: number, gpusPerEngine: number) => ({
    engines,
    model: { ...fakeModel, cpusPerEngine, gpusPerEngine },
  });

  it('must be on one node for each engine', () => {
    const nodes = [rayNode({ cpus: 3 }), rayNode({ cpus: 3 })];
    expect(checkResources(need(2, 2, 0), nodes)).toBeUndefined();
    expect(checkResources(need(3, 2, 0), nodes)).toMatchObject({
      type: 'ImpossibleResources',
      message: expect.stringMatching(/3 engines of 2 CPUs.*room for 2.*6 CPUs.*2 living nodes/u),
    });
  });

  it('are those of living nodes, with GPUs and CPUs on the same one', () => {
    expect(checkResources(need(1, 1, 0), [rayNode({ alive: false })])).toBeDefined();
    const apart = [rayNode({ cpus: 8, gpus: 0 }), rayNode({ cpus: 0, gpus: 8 })];
    expect(checkResources(need(1, 1, 1), apart)).toBeDefined();
  });

  it('may be shares of a GPU, without rounding errors', () => {
    expect(checkResources(need(10, 0.1, 0.1), [rayNode({ cpus: 1, gpus: 1 })])).toBeUndefined();
    expect(checkResources(need(11, 0.1, 0.1), [rayNode({ cpus: 1, gpus: 1 })])).toBeDefined();
  });
});

describe('the plan of a fleet', () => {
  it('starts what is missing or dead, and leaves alone what Ray is placing or restarting', () => {
    const engines = [engine(0, 'DEAD'), engine(1, 'RESTARTING'), engine(2, 'PENDING_CREATION')];
    expect(planFleet(4, engines, [], NONE, NOW)).toEqual({ start: [0, 3], stop: [], restart: [] });
  });

  it('stops the highest slots when there are too many', () => {
    const engines = [engine(2), engine(0), engine(1), engine(3, 'DEAD')];
    expect(planFleet(1, engines, [], NONE, NOW).stop).toEqual([1, 2]);
  });

  it('restarts an engine that hangs, unless it is gone already', () => {
    const plan = planFleet(2, [engine(0), engine(1, 'DEAD')], [], new Set([0, 1]), NOW);
    expect(plan).toEqual({ start: [1], stop: [], restart: [0] });
  });

  it('tries an engine that failed to load again after a while', () => {
    const engines = [engine(0)];
    const soon = [slotOf(0, 'failed', RELOAD_AFTER_S - 1)];
    const later = [slotOf(0, 'failed', RELOAD_AFTER_S)];
    expect(isEmpty(planFleet(1, engines, soon, NONE, NOW))).toBe(true);
    expect(planFleet(1, engines, later, NONE, NOW).restart).toEqual([0]);
  });

  it('kills again what should have restarted and still runs, but not its successor', () => {
    const slots = [slotOf(0, 'restarting', RELOAD_AFTER_S)];
    expect(planFleet(1, [engine(0, 'ALIVE', 1)], slots, NONE, NOW).restart).toEqual([0]);
    expect(planFleet(1, [engine(0, 'ALIVE', 2)], slots, NONE, NOW).restart).toEqual([]);
  });

  it('never asks for one slot twice, and is empty once it was carried out', () => {
    const states = fc.constantFrom('ALIVE', 'DEAD', 'RESTARTING', 'PENDING_CREATION');
    const observed = fc
      .array(states, { maxLength: 6 })
      .map((list) =>
        list.map((state, slot) => engine(slot, state as ObservedEngine['actorState'])),
      );
    fc.assert(
      fc.property(observed, fc.nat(6), fc.uniqueArray(fc.nat(6)), (engines, desired, hung) => {
        const plan = planFleet(desired, engines, [], new Set(hung), NOW);
        const all = [...plan.start, ...plan.stop, ...plan.restart];
        expect(new Set(all).size).toBe(all.length);
        const after = engines
          .filter(({ slot }) => !plan.stop.includes(slot) && !plan.start.includes(slot))
          .concat(plan.start.map((slot) => engine(slot, 'PENDING_CREATION')));
        expect(isEmpty(planFleet(desired, after, [], NONE, NOW))).toBe(true);
      }),
    );
  });
});

describe('a look at a fleet', () => {
  it('comes soon after something was asked of Ray, and rarely when all engines answer', () => {
    expect([0, 1, 2, 3, 4, 99].map((looks) => secondsToNextLook(looks, false))).toEqual([
      2, 2, 4, 8, 10, 10,
    ]);
    expect(secondsToNextLook(0, true)).toBe(30);
  });

  it('says in one line what it leads to', () => {
    expect(summaryOf({ start: [0, 1], stop: [4], restart: [] })).toBe('Start 0, 1; Stop 4');
  });
});

describe('the slots of a fleet', () => {
  const answered = { engine: 'e', loadSeconds: 9, maxModelLen: 512, vllmVersion: '1' };

  it('load until their canary answers, and stay ready as long as it is the same incarnation', () => {
    const [loading] = mergeSlots(1, [], [engine(0)], NOW);
    expect(loading).toMatchObject({ state: 'loading', incarnation: 'node-1' });
    const ready = judge(loading as FleetSlotStatus, { kind: 'ready', result: answered }, NOW);
    expect(ready).toMatchObject({ state: 'ready', loadSeconds: 9, maxModelLen: 512 });
    expect(mergeSlots(1, [ready], [engine(0)], NOW + 1000)).toEqual([ready]);
    const [again] = mergeSlots(1, [ready], [{ ...engine(0, 'ALIVE', 2), restarts: 1 }], NOW + 1000);
    expect(again).toMatchObject({ state: 'loading', incarnation: 'node-2', restarts: 1 });
  });

  it('say since when and why they are not there', () => {
    const dead = { ...engine(0, 'DEAD'), deathCause: 'node lost' };
    const [first] = mergeSlots(1, [slotOf(0, 'ready')], [dead], NOW);
    expect(first).toMatchObject({
      state: 'dead',
      problem: { type: 'EngineGone', message: 'node lost' },
    });
    const [second] = mergeSlots(1, [first as FleetSlotStatus], [dead], NOW + 60_000);
    expect(second?.since).toBe(first?.since);
  });

  it('say that they wait for room when Ray does not place them, until it does', () => {
    const pending = engine(0, 'PENDING_CREATION');
    const [asked] = mergeSlots(1, [], [pending], NOW) as [FleetSlotStatus];
    expect(asked.problem).toBeUndefined();
    const [waiting] = mergeSlots(1, [asked], [pending], NOW + 30_000) as [FleetSlotStatus];
    expect(waiting).toMatchObject({ state: 'placing', since: asked.since });
    expect(waiting.problem?.message).toMatch(/waits for room.*fleet status/u);
    const [placed] = mergeSlots(1, [waiting], [engine(0)], NOW + 40_000);
    expect(placed).toMatchObject({ state: 'loading' });
    expect(placed?.problem).toBeUndefined();
  });

  it('are not dead because an earlier fleet of this name was', () => {
    const dead = { ...engine(0, 'DEAD'), deathCause: 'killed' };
    const [slot] = mergeSlots(1, [], [dead], NOW);
    expect(slot?.state).toBe('placing');
    expect(slot?.problem).toBeUndefined();
  });

  it('forget their trouble when they are ready', () => {
    const troubled: FleetSlotStatus = {
      ...slotOf(0, 'loading'),
      problem: { type: 'EngineGone', message: 'node lost' },
    };
    expect(judge(troubled, { kind: 'ready', result: answered }, NOW).problem).toBeUndefined();
  });

  it('are as many as desired', () => {
    fc.assert(
      fc.property(fc.nat(8), fc.uniqueArray(fc.nat(8)), (desired, present) => {
        const slots = mergeSlots(
          desired,
          [],
          present.map((slot) => engine(slot)),
          NOW,
        );
        expect(slots.map(({ slot }) => slot)).toEqual([...Array(desired).keys()]);
      }),
    );
  });

  it('wait for their successor after they were killed for it', () => {
    const [slot] = markRestarted([slotOf(0, 'failed', 100)], [0], NOW);
    expect(slot).toMatchObject({ state: 'restarting', since: new Date(NOW).toISOString() });
    expect(mergeSlots(1, [slot as FleetSlotStatus], [engine(0)], NOW)[0]?.state).toBe('restarting');
  });
});
