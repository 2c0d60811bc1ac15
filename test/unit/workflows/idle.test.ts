import { describe, expect, it } from 'vitest';

import type { ClusterObservation } from '../../../src/contracts/activities.js';
import { Idle } from '../../../src/workflows/idle.js';

const MINUTE = 60_000;
const unused: ClusterObservation = {
  ...{ reachable: true, nodes: [], processes: [] },
  ...{ engines: { a: 0 }, jobs: 0 },
};

describe('the time that a cluster is unused', () => {
  it('is over after so many minutes', () => {
    const idle = new Idle(10);
    expect(idle.see(unused, 0, 0)).toBe(false);
    expect(idle.see(unused, 0, 9 * MINUTE)).toBe(false);
    expect(idle.see(unused, 0, 10 * MINUTE)).toBe(true);
  });

  it('begins anew with an engine, a job, a user, or a look that did not see them', () => {
    const looks: [ClusterObservation, number][] = [
      [{ ...unused, engines: { a: 1 } }, 0],
      [{ ...unused, jobs: 1 }, 0],
      [unused, 1],
      [{ reachable: true, nodes: [], processes: [], jobs: 0 }, 0],
      [{ reachable: true, nodes: [], processes: [], engines: {} }, 0],
    ];
    for (const [used, users] of looks) {
      const idle = new Idle(10);
      expect(idle.see(unused, 0, 0)).toBe(false);
      expect(idle.see(used, users, 5 * MINUTE)).toBe(false);
      expect(idle.carried()).toEqual({});
      expect(idle.see(unused, 0, 6 * MINUTE)).toBe(false);
      expect(idle.see(unused, 0, 15 * MINUTE)).toBe(false);
      expect(idle.see(unused, 0, 16 * MINUTE)).toBe(true);
    }
  });

  it('counts on in the next history', () => {
    const idle = new Idle(10);
    idle.see(unused, 0, MINUTE);
    const next = new Idle(10, idle.carried().idleSince);
    expect(next.see(unused, 0, 10 * MINUTE)).toBe(false);
    expect(next.see(unused, 0, 11 * MINUTE)).toBe(true);
  });

  it('never is for a cluster that is to stay', () => {
    const idle = new Idle(undefined);
    expect(idle.see(unused, 0, 0)).toBe(false);
    expect(idle.see(unused, 0, 1e12)).toBe(false);
  });
});
