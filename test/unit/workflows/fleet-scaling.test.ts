import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import type { FleetSlotStatus } from '../../../src/contracts/workflows.js';
import {
  busyBatches,
  checkDrainRequest,
  checkScaleRequest,
  planScaling,
  planStop,
  quietOf,
  withStep,
  type Demand,
} from '../../../src/workflows/fleet-scaling.js';
import { markRemoved } from '../../../src/workflows/fleet-slots.js';

const NOW = Date.parse('2030-01-01T00:00:00Z');
const scaling = { minEngines: 1, maxEngines: 4, idleSeconds: 60 };
const fleet = (engines: number, change: Partial<typeof scaling> = {}) => ({
  engines,
  maxConcurrentBatches: 2,
  scaling: { ...scaling, ...change },
});
const demand = (change: Partial<Demand> = {}): Demand => ({
  backlog: 0,
  busy: 0,
  users: 1,
  waiting: 0,
  ...change,
});
const sized = (engines: number, seen: Demand, spareForS?: number, change = {}) =>
  planScaling(
    fleet(engines, change),
    seen,
    spareForS === undefined ? {} : { spareSince: NOW - spareForS * 1000 },
    NOW,
  )?.engines;

describe('the size of a fleet that scales by itself', () => {
  it('is as many engines as the batches that wait and are in work keep busy', () => {
    expect(sized(1, demand({ backlog: 3, busy: 2 }))).toBe(3);
    expect(sized(1, demand({ backlog: 1, busy: 1 }))).toBeUndefined();
    expect(sized(1, demand({ backlog: 100 }))).toBe(4);
    expect(sized(4, demand({ backlog: 100 }))).toBeUndefined();
  });

  it('says how much waits', () => {
    const seen = demand({ backlog: 3, busy: 2 });
    expect(planScaling(fleet(1), seen, {}, NOW)?.reason).toBe(
      '3 batches wait and 2 are in work, 2 to an engine',
    );
  });

  it('shrinks only when fewer have sufficed for long enough, and to none only if it may', () => {
    expect(sized(4, demand({ busy: 3 }))).toBeUndefined();
    expect(sized(4, demand({ busy: 3 }), 59)).toBeUndefined();
    expect(sized(4, demand({ busy: 3 }), 60)).toBe(2);
    expect(sized(2, demand(), 60)).toBe(1);
    expect(sized(2, demand(), 60, { minEngines: 0 })).toBe(0);
    expect(sized(0, demand({ backlog: 1 }), undefined, { minEngines: 0 })).toBe(1);
  });

  it('keeps within limits that were changed', () => {
    expect(sized(0, demand())).toBe(1);
    expect(sized(6, demand({ busy: 12 }))).toBe(4);
  });

  it('never leaves its limits, and never shrinks while a batch waits', () => {
    const count = fc.nat(40);
    fc.assert(
      fc.property(
        fc.record({ engines: fc.nat(8), backlog: count, busy: count, least: fc.nat(3) }),
        fc.nat(200),
        ({ engines, backlog, busy, least }, spareForS) => {
          const limited = fleet(engines, { minEngines: least, maxEngines: 6 });
          const seen = demand({ backlog, busy });
          const quiet = quietOf({ spareSince: NOW - spareForS * 1000 }, limited, seen, NOW);
          const size = planScaling(limited, seen, quiet, NOW)?.engines;
          if (size === undefined) return;
          expect(size).toBeGreaterThanOrEqual(least);
          expect(size).toBeLessThanOrEqual(6);
          if (backlog > 0 && engines <= 6) expect(size).toBeGreaterThan(engines);
        },
      ),
    );
  });

  it('is left alone without limits', () => {
    const { scaling: _none, ...plain } = fleet(1);
    expect(planScaling(plain, demand({ backlog: 9 }), { spareSince: 0 }, NOW)).toBeUndefined();
  });
});

describe('a quiet fleet', () => {
  it('is one that was larger than needed, or unused, at every look since', () => {
    const first = quietOf({}, fleet(2), demand({ busy: 2 }), NOW);
    expect(first).toEqual({ spareSince: NOW });
    expect(quietOf(first, fleet(2), demand({ users: 0 }), NOW + 5)).toEqual({
      spareSince: NOW,
      unusedSince: NOW + 5,
    });
    expect(quietOf(first, fleet(2), demand({ busy: 3 }), NOW + 5)).toEqual({});
    expect(quietOf(first, fleet(2), demand({ backlog: 1 }), NOW + 5)).toEqual({});
  });

  it('is not one whose users still wait for its engines', () => {
    expect(quietOf({}, fleet(2), demand({ waiting: 1, users: 0 }), NOW)).toEqual({});
  });

  it('stops after its time, and says so', () => {
    const idle = { idleTimeoutSeconds: 30 };
    expect(planStop(idle, { unusedSince: NOW - 30_000 }, NOW)).toMatch(/for 30 s/u);
    expect(planStop(idle, { unusedSince: NOW - 29_000 }, NOW)).toBeUndefined();
    expect(planStop({}, { unusedSince: 0 }, NOW)).toBeUndefined();
  });
});

describe('a request to scale', () => {
  it.each([
    [{ engines: 2 }],
    [{ engines: 0 }],
    [{ scaling }],
    [{ scaling: { ...scaling, minEngines: 0 } }],
  ])('may be %j', (request) => {
    expect(checkScaleRequest(request)).toBeUndefined();
  });

  it.each([
    [undefined],
    [{}],
    [{ engines: -1 }],
    [{ engines: 'two' }],
    [{ engines: 2, scaling }],
    [{ scaling: { ...scaling, minEngines: 5 } }],
    [{ scaling: { minEngines: 0, maxEngines: 0, idleSeconds: 1 } }],
    [{ scaling: { minEngines: 0, maxEngines: 1 } }],
  ])('is refused when it is %j', (request) => {
    expect(checkScaleRequest(request)).toMatchObject({ type: 'InvalidRequest' });
  });
});

describe('a request to drain a fleet', () => {
  it.each([[undefined], [null], [{}], [{ graceSeconds: 0 }], [{ graceSeconds: 2_592_000 }]])(
    'is taken when it is %j',
    (request) => expect(checkDrainRequest(request)).toBeUndefined(),
  );

  it.each([
    [60],
    ['1h'],
    [{ graceSeconds: '1h' }],
    [{ graceSeconds: -1 }],
    [{ graceSeconds: Number.NaN }],
    [{ graceSeconds: 8.64e12 }],
  ])('is refused when it is %j', (request) => {
    expect(checkDrainRequest(request)).toMatchObject({ type: 'InvalidRequest' });
  });
});

const slot = (number: number, state: FleetSlotStatus['state'], change = {}): FleetSlotStatus => ({
  slot: number,
  state,
  since: new Date(0).toISOString(),
  restarts: 0,
  ...change,
});

describe('the slots of a fleet that is made smaller', () => {
  it('drain from the highest index on; what has no engine just goes', () => {
    const deadline = new Date(NOW + 1000).toISOString();
    const slots = [
      slot(0, 'ready'),
      slot(1, 'placing'),
      slot(2, 'loading'),
      slot(3, 'ready', { index: 0 }),
    ];
    const states = markRemoved(1, slots, deadline, NOW).map(({ state }) => state);
    expect(states).toEqual(['ready', 'placing', 'draining', 'ready']);
  });

  it('count as busy what their engines said, while they are ready', () => {
    const slots = [
      slot(0, 'ready', { batches: 2 }),
      slot(1, 'ready'),
      slot(2, 'dead', { batches: 9 }),
    ];
    expect(busyBatches(slots)).toBe(2);
  });
});

it('the last changes of size are kept', () => {
  let steps = withStep([], 0, { engines: 1, reason: 'first' }, NOW);
  for (let to = 2; to <= 12; to += 1) {
    steps = withStep(steps, to - 1, { engines: to, reason: `to ${to}` }, NOW);
  }
  expect(steps).toHaveLength(10);
  expect(steps.at(-1)).toEqual({
    at: new Date(NOW).toISOString(),
    from: 11,
    to: 12,
    reason: 'to 12',
  });
});
