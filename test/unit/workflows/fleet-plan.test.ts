import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import type { ObservedEngine } from '../../../src/contracts/fleet.js';
import type { FleetSlotStatus } from '../../../src/contracts/workflows.js';
import {
  RELOAD_AFTER_S,
  checkResources,
  describeCordon,
  isEmpty,
  planFleet,
  secondsToNextLook,
  summaryOf,
} from '../../../src/workflows/fleet-plan.js';
import type { PreemptionNotice } from '../../../src/contracts/preemption.js';
import {
  explainWaiting,
  judge,
  markDraining,
  markMisplaced,
  markRestarted,
  mergeSlots,
  placesOf,
} from '../../../src/workflows/fleet-slots.js';
import { Notices } from '../../../src/workflows/notices.js';
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

describe('engines and cordoned nodes', () => {
  const [A, B] = ['node', 'other'];
  const alive = new Set([A, B]);
  const deadline = new Date(NOW + 60_000).toISOString();
  const mark = (
    before: readonly FleetSlotStatus[],
    seen: ObservedEngine,
    cordoned: readonly string[],
  ) => {
    const slots = mergeSlots(1, before, [seen], NOW);
    const [slot] = markMisplaced(before, slots, [seen], new Set(cordoned), alive, deadline, NOW);
    return slot;
  };
  const known = mergeSlots(1, [], [engine(0)], NOW - 1000);

  it('leave those alone that were there before', () => {
    expect(mark(known, engine(0), [A])).toMatchObject({ state: 'loading' });
    expect(mark(known, engine(0), [B])).toMatchObject({ state: 'loading' });
  });

  it('have those leave again that come onto one, with time for what they have', () => {
    // A process that died came back there, as its node was not cordoned when it was told where it may be.
    const slot = mark(known, engine(0, 'ALIVE', 2), [A]);
    expect(slot).toMatchObject({ state: 'draining', deadline });
    expect(slot?.drained).toBeUndefined();
    expect(mark(known, engine(0, 'ALIVE', 2), [B])).toMatchObject({ state: 'loading' });
    // The other one is placed by the same look, with the index of this one.
    const plan = planFleet(1, [engine(0, 'ALIVE', 2)], slot ? [slot] : [], NONE, NOW);
    expect(plan).toEqual({ start: [1], stop: [], restart: [] });
  });

  it.each(['PENDING_CREATION', 'RESTARTING'] as const)(
    'have those that are %s asked for anew when other nodes are cordoned by now',
    (state) => {
      const waits = (...avoids: string[]): ObservedEngine => ({ ...engine(0, state), avoids });
      const isAskedAnew = (seen: ObservedEngine, ...cordoned: string[]): boolean =>
        mark([], seen, cordoned)?.drained === true;
      expect(isAskedAnew(waits(), A)).toBe(true);
      expect(isAskedAnew(waits(A))).toBe(true);
      expect(isAskedAnew(waits(B), A)).toBe(true);
      expect(isAskedAnew(waits(A), A)).toBe(false);
      expect(isAskedAnew(waits())).toBe(false);
      // A node that is gone says nothing, and a Ray that does not say what it was told neither.
      expect(isAskedAnew(waits('gone', A), A)).toBe(false);
      expect(isAskedAnew(waits('gone', A), 'gone', A)).toBe(false);
      expect(isAskedAnew(engine(0, state), A)).toBe(false);
      const slot = mark([], waits(), [A]);
      const plan = planFleet(1, [waits()], slot ? [slot] : [], NONE, NOW);
      expect(plan).toEqual({ start: [1], stop: [0], restart: [] });
    },
  );
});

describe('the resources for a fleet', () => {
  const need = (engines: number, cpusPerEngine: number, gpusPerEngine: number) => ({
    engines,
    model: { ...fakeModel, cpusPerEngine, gpusPerEngine },
  });

  it('are not on cordoned nodes, but where engines of it are there already', () => {
    const nodes = [
      rayNode({ nodeId: 'a', name: 'one', cpus: 2 }),
      rayNode({ nodeId: 'b', name: 'two', cpus: 2 }),
    ];
    const cordon = (engines: number) => ({ cluster: 'lab', nodes: new Set(['b']), engines });
    const check = (engines: number, there: number) =>
      checkResources(need(engines, 1, 0), nodes, new Set(), cordon(there));
    expect(check(2, 0)).toBeUndefined();
    expect(check(3, 0)).toMatchObject({
      type: 'ImpossibleResources',
      message: expect.stringMatching(/room for 2.*on 1 living nodes.*on cordoned nodes: two$/u),
      wayOut: expect.stringContaining('`rankflow cluster uncordon lab two`'),
    });
    expect(check(3, 1)).toBeUndefined();
    expect(check(4, 1)?.message).toMatch(/room for 3.*two, with 1 engine of the fleet$/u);
    const elsewhere = { ...cordon(0), nodes: new Set(['gone']) };
    expect(checkResources(need(5, 1, 0), nodes, new Set(), elsewhere)?.wayOut).toBeUndefined();
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

  it('are not those of nodes that are about to be taken away', () => {
    const nodes = [rayNode({ nodeId: 'a', cpus: 2 }), rayNode({ nodeId: 'b', cpus: 2 })];
    expect(checkResources(need(2, 2, 0), nodes, new Set(['z']))).toBeUndefined();
    expect(checkResources(need(2, 2, 0), nodes, new Set(['b']))?.message).toMatch(
      /room for 1.*2 CPUs.*1 living nodes.*1 more are about to be taken away/u,
    );
  });

  it('may lie on several nodes when the engine has several GPUs', () => {
    const parallel = (engines: number) => ({
      engines,
      model: { ...need(engines, 1, 8).model, tensorParallelSize: 4, pipelineParallelSize: 2 },
    });
    const nodes = [rayNode({ cpus: 4, gpus: 4 }), rayNode({ cpus: 4, gpus: 4 })];
    expect(checkResources(parallel(1), nodes)).toBeUndefined();
    expect(checkResources(parallel(2), nodes)?.message).toMatch(
      /2 engines of 1 CPUs and 8 GPUs.*room for 1.*8 GPUs.*each of the 8 workers.*1 GPUs/u,
    );
    // Odd ones out do not make up a GPU, and without a CPU nothing starts.
    const halves = Array.from({ length: 16 }, () => rayNode({ cpus: 1, gpus: 0.5 }));
    expect(checkResources(parallel(1), halves)).toBeDefined();
    const blind = nodes.map((node) => ({ ...node, cpus: 0 }));
    expect(checkResources(parallel(1), blind)).toBeDefined();
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
    expect(summaryOf({ start: [0, 1], stop: [4], restart: [] })).toBe(
      'Start engine 0, 1; Stop engine 4',
    );
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
    const [waiting] = mergeSlots(1, [asked], [pending], NOW + 70_000) as [FleetSlotStatus];
    expect(waiting).toMatchObject({ state: 'placing', since: asked.since });
    expect(waiting.problem?.message).toMatch(/waits for room.*fleet status/u);
    const [placed] = mergeSlots(1, [waiting], [engine(0)], NOW + 80_000);
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

describe('a fleet whose nodes are taken away', () => {
  const draining = (slot: number, change: Partial<FleetSlotStatus> = {}): FleetSlotStatus => ({
    ...slotOf(slot, 'draining'),
    ...change,
  });
  const at = (slot: number, index: number): FleetSlotStatus => ({
    ...slotOf(slot, 'ready'),
    index,
  });
  const notice = (nodeId: string, seconds: number): PreemptionNotice => ({
    nodeId,
    source: 'file',
    deadline: NOW + seconds * 1000,
  });

  it.each<[string, number, FleetSlotStatus[], [slot: number, index: number][]]>([
    [
      'nothing yet',
      2,
      [],
      [
        [0, 0],
        [1, 1],
      ],
    ],
    [
      'all at work',
      2,
      [slotOf(0, 'ready'), slotOf(1, 'loading')],
      [
        [0, 0],
        [1, 1],
      ],
    ],
    [
      'one draining',
      2,
      [slotOf(0, 'ready'), draining(1)],
      [
        [0, 0],
        [2, 1],
      ],
    ],
    [
      'both draining',
      2,
      [draining(0), draining(1)],
      [
        [2, 0],
        [3, 1],
      ],
    ],
    [
      'one replaced',
      2,
      [slotOf(0, 'ready'), at(2, 1)],
      [
        [0, 0],
        [2, 1],
      ],
    ],
    [
      'its replacement draining',
      2,
      [slotOf(0, 'ready'), draining(2, { index: 1 })],
      [
        [0, 0],
        [1, 1],
      ],
    ],
    [
      'growing after a replacement',
      3,
      [slotOf(0, 'ready'), at(2, 1)],
      [
        [0, 0],
        [2, 1],
        [1, 2],
      ],
    ],
    ['shrinking after a replacement', 1, [slotOf(1, 'ready'), at(2, 0)], [[2, 0]]],
    ['shrinking while one drains', 1, [slotOf(0, 'ready'), draining(1)], [[0, 0]]],
    ['none wanted', 0, [slotOf(0, 'ready'), draining(1)], []],
  ])('has one slot for each share of the ranks: %s', (_, desired, slots, expected) => {
    expect(placesOf(desired, slots).map(({ slot, index }) => [slot, index])).toEqual(expected);
  });

  it('starts the replacement at once and leaves the drained engine alone until it is done', () => {
    const engines = [engine(0), engine(1)];
    const slots = [slotOf(0, 'ready'), draining(1)];
    expect(planFleet(2, engines, slots, NONE, NOW)).toEqual({ start: [2], stop: [], restart: [] });
  });

  it('removes an engine for good when it is drained, whether or not the other is there', () => {
    const slots = [
      slotOf(0, 'ready'),
      draining(1, { drained: true }),
      { ...slotOf(2, 'placing'), index: 1 },
    ];
    const placing = [engine(0), engine(1), engine(2, 'PENDING_CREATION')];
    expect(planFleet(2, placing, slots, NONE, NOW)).toEqual({ start: [], stop: [1], restart: [] });
    const absent = [engine(0), engine(1)];
    expect(planFleet(2, absent, slots, NONE, NOW)).toEqual({ start: [2], stop: [1], restart: [] });
  });

  it('never restarts a draining engine, though it does not answer', () => {
    const slots = [draining(0)];
    expect(planFleet(1, [engine(0)], slots, new Set([0]), NOW).restart).toEqual([]);
  });

  it('drains what runs on the node, and nothing else', () => {
    const here = { nodeId: 'node' };
    const slots: FleetSlotStatus[] = [
      { ...slotOf(0, 'ready'), ...here },
      { ...slotOf(1, 'loading'), ...here },
      { ...slotOf(2, 'ready'), nodeId: 'another' },
      { ...slotOf(3, 'restarting'), ...here },
      slotOf(4, 'placing'),
    ];
    const notices = new Notices([notice('node', 30)]);
    const marked = markDraining(slots, notices.byNode, NOW);
    expect(marked.map(({ state }) => state)).toEqual([
      'draining',
      'draining',
      'ready',
      'restarting',
      'placing',
    ]);
    expect(marked[0]).toMatchObject({
      deadline: '2030-01-01T00:00:30.000Z',
      problem: { message: expect.stringContaining('file gave notice') },
    });
    expect(markDraining(marked, notices.byNode, NOW + 5000)).toEqual(marked);
    expect(notices.take(notice('node', 10))).toBe(true);
    expect(markDraining(marked, notices.byNode, NOW)[0]).toMatchObject({
      since: marked[0]?.since,
      deadline: '2030-01-01T00:00:10.000Z',
    });
  });

  it('keeps a draining slot as long as its engine is there, and no longer', () => {
    const slots = [slotOf(0, 'ready'), draining(1)];
    const stateOf = (engines: ObservedEngine[]): unknown[] =>
      mergeSlots(2, slots, engines, NOW).map(({ slot, state, drained }) => [slot, state, drained]);
    const rest = [2, 'placing', undefined];
    expect(stateOf([engine(0), engine(1)])).toEqual([
      [0, 'ready', undefined],
      [1, 'draining', undefined],
      rest,
    ]);
    // Its node took it along and Ray starts it again, or has already: that one is too many.
    for (const again of [engine(1, 'RESTARTING'), engine(1, 'ALIVE', 2)]) {
      expect(stateOf([engine(0), again])[1]).toEqual([1, 'draining', true]);
    }
    for (const gone of [[engine(0)], [engine(0), engine(1, 'DEAD')]]) {
      expect(stateOf(gone)).toEqual([[0, 'ready', undefined], rest]);
    }
  });

  it('knows what stands in for an engine whose node goes, until it is ready', () => {
    const taken = { type: 'EngineGone', message: 'its node is taken away' } as const;
    const marksOf = (slots: FleetSlotStatus[]) => slots.map(({ replaces }) => replaces ?? false);
    const before = [slotOf(0, 'ready'), draining(1, { problem: taken })];
    const placing = mergeSlots(2, before, [engine(0), engine(1)], NOW);
    expect(marksOf(placing)).toEqual([false, false, true]);
    const loading = mergeSlots(2, placing, [engine(0), engine(2)], NOW);
    expect(marksOf(loading)).toEqual([false, true]);
    const result = { engine: 'e', loadSeconds: 1, maxModelLen: 1, vllmVersion: '0' };
    const ready = loading.map((slot) => judge(slot, { kind: 'ready', result }, NOW));
    expect(marksOf(ready)).toEqual([false, false]);
    // One that goes as the fleet was made smaller has no reason; the fleet may grow again meanwhile.
    const smaller = [slotOf(0, 'ready'), draining(1)];
    const grown = mergeSlots(2, smaller, [engine(0), engine(1)], NOW);
    expect(marksOf(grown)).toEqual([false, false, false]);
  });

  it('says at a slot that waits why it does, for as long as it is so', () => {
    const slots = [slotOf(0, 'ready'), slotOf(2, 'placing')];
    const shortage = { type: 'ImpossibleResources', message: 'no room' } as const;
    const waiting = explainWaiting(slots, shortage);
    expect(waiting.map(({ problem }) => problem?.message)).toEqual([undefined, 'no room']);
    expect(explainWaiting(waiting, undefined)).toEqual(slots);
  });

  it('says at a slot that waits for what others hold which nodes are cordoned', () => {
    const old = NOW - 120_000;
    const placing = mergeSlots(1, [], [engine(0, 'PENDING_CREATION')], old);
    const waiting = mergeSlots(1, placing, [engine(0, 'PENDING_CREATION')], NOW);
    const nodes = [rayNode({ nodeId: 'a', name: 'one' }), rayNode({ nodeId: 'b', name: 'two' })];
    const cordon = { cluster: 'lab', nodes: new Set(['b']), engines: 0 };
    const told = explainWaiting(waiting, undefined, describeCordon(nodes, cordon));
    expect(told[0]?.problem).toMatchObject({
      type: 'ClusterUnavailable',
      message: expect.stringMatching(/something else holds.*cordoned nodes: two$/u),
      wayOut: expect.stringContaining('`rankflow cluster uncordon lab two`'),
    });
    // Told again it is the same, and without the cordon as before.
    const again = mergeSlots(1, told, [engine(0, 'PENDING_CREATION')], NOW);
    expect(explainWaiting(again, undefined, describeCordon(nodes, cordon))).toEqual(told);
    expect(explainWaiting(again, undefined)).toEqual(waiting);
    expect(mergeSlots(1, told, [engine(0)], NOW)[0]?.problem).toBeUndefined();
  });

  it('knows the earliest deadline of a node until the node is gone', () => {
    const notices = new Notices();
    expect(notices.take(notice('a', 30))).toBe(true);
    expect(notices.take(notice('a', 30))).toBe(false);
    expect(notices.take(notice('a', 60))).toBe(false);
    expect(notices.take(notice('a', 20))).toBe(true);
    expect(notices.take(notice('b', 20))).toBe(true);
    const carried = new Notices(notices.carried().notices);
    carried.forget(({ nodeId }) => nodeId === 'a');
    expect([...carried.nodes]).toEqual(['b']);
    expect(new Notices().carried()).toEqual({});
  });

  it('is not told of a deadline that is no moment', () => {
    const notices = new Notices();
    for (const deadline of [8.64e15 + 1, Number.NaN, undefined as unknown as number]) {
      expect(notices.take({ ...notice('a', 30), deadline })).toBe(false);
    }
    const slots: FleetSlotStatus[] = [{ ...slotOf(0, 'ready'), nodeId: 'a' }];
    expect(markDraining(slots, notices.byNode, NOW)).toEqual(slots);
  });

  it('ends with as many engines as desired, each with a share of its own, whatever drains', () => {
    const change = fc.oneof(
      fc.record({ kind: fc.constant('drain' as const), of: fc.nat(5) }),
      fc.record({ kind: fc.constant('size' as const), of: fc.nat(5) }),
    );
    fc.assert(
      fc.property(fc.array(change, { maxLength: 12 }), (changes) => {
        let desired = 2;
        let slots: FleetSlotStatus[] = [];
        let engines: ObservedEngine[] = [];
        const look = (): void => {
          slots = mergeSlots(desired, slots, engines, NOW).map((slot) =>
            slot.state === 'loading' ? { ...slot, state: 'ready' } : slot,
          );
          const { start, stop } = planFleet(desired, engines, slots, NONE, NOW);
          expect(start.filter((slot) => engines.some((one) => one.slot === slot))).toEqual([]);
          engines = engines
            .filter(({ slot }) => !stop.includes(slot))
            .concat(start.map((slot) => engine(slot)));
        };
        look();
        look();
        for (const { kind, of } of changes) {
          if (kind === 'size') desired = of;
          else {
            slots = slots.map((slot, place) =>
              place === of ? { ...slot, state: 'draining', drained: place % 2 === 0 } : slot,
            );
          }
          look();
          look();
        }
        slots = slots.map((slot) =>
          slot.state === 'draining' ? { ...slot, drained: true } : slot,
        );
        for (let round = 0; round < 3; round += 1) look();
        expect(slots.map(({ state }) => state)).toEqual(Array(desired).fill('ready'));
        const indexes = slots.map(({ slot, index }) => index ?? slot);
        expect(indexes.toSorted((a, b) => a - b)).toEqual([...Array(desired).keys()]);
        expect(engines.map(({ slot }) => slot).toSorted((a, b) => a - b)).toEqual(
          slots.map(({ slot }) => slot),
        );
      }),
    );
  });
});
