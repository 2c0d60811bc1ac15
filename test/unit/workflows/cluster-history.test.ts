import { describe, expect, it } from 'vitest';

import type { ClusterNodeStatus } from '../../../src/contracts/workflows.js';
import { ClusterHistory } from '../../../src/workflows/cluster-history.js';
import { Idle } from '../../../src/workflows/idle.js';

const NOW = Date.parse('2030-01-01T00:00:00Z');
const row = (name: string, state: ClusterNodeStatus['state']): ClusterNodeStatus => ({
  ...{ name, role: 'worker', state, cpus: 1, gpus: 0 },
});

describe('the history of a cluster', () => {
  it('tells each change of state once, and since when a node is what it is', () => {
    const history = new ClusterHistory();
    history.see([row('a', 'starting')], NOW);
    history.see([row('a', 'starting')], NOW + 1000);
    history.see([row('a', 'alive')], NOW + 2000);
    expect(history.events.map(({ node, what }) => `${node}: ${what}`)).toEqual([
      'a: is starting',
      'a: was starting, is alive',
    ]);
    expect(history.sinceOf('a')).toBe('2030-01-01T00:00:02.000Z');
  });

  it('names nodes that were lost, not those that left on purpose', () => {
    const history = new ClusterHistory();
    history.see([row('a', 'alive'), row('b', 'alive')], NOW);
    expect(history.see([row('a', 'dead'), row('b', 'draining')], NOW)).toEqual(['a']);
  });

  it('keeps the last thirty, also across continue-as-new', () => {
    const history = new ClusterHistory();
    for (let index = 0; index < 40; index += 1) history.note(`event ${index}`, NOW);
    const next = new ClusterHistory(history.carried().history);
    expect(next.events).toHaveLength(30);
    expect(next.events.at(-1)?.what).toBe('event 39');
  });
});

describe('an idle cluster', () => {
  const seen = (engines: Record<string, number> | undefined, jobs = 0) => ({
    ...{ reachable: true, nodes: [], processes: [], jobs },
    ...(engines && { engines }),
  });

  it('goes when it has had no engine, job or user for as long as its file says', () => {
    const idle = new Idle(10);
    expect(idle.see(seen({ n: 0 }), 0, NOW)).toBe(false);
    expect(idle.see(seen({}), 0, NOW + 599_999)).toBe(false);
    expect(idle.see(seen({}), 0, NOW + 600_000)).toBe(true);
  });

  it.each([
    ['an engine', seen({ n: 1 }), 0],
    ['a job', seen({}, 1), 0],
    ['a user', seen({}), 1],
    ['a look that saw nothing', seen(undefined), 0],
  ])('stays for %s', (_, observation, users) => {
    const idle = new Idle(10);
    idle.see(seen({}), 0, NOW);
    idle.see(observation, users, NOW + 500_000);
    expect(idle.see(seen({}), 0, NOW + 700_000)).toBe(false);
  });

  it('stays for ever when its file says nothing', () => {
    expect(new Idle(undefined).see(seen({}), 0, NOW)).toBe(false);
  });
});
