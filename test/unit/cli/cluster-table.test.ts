import { expect, test } from 'vitest';

import { clusterTable } from '../../../src/cli/cluster-table.js';
import type { ClusterStatus } from '../../../src/contracts/workflows.js';

const status = (change: Partial<ClusterStatus> = {}): ClusterStatus => ({
  name: 'here',
  provider: 'local',
  spec: { name: 'here', nodes: { provider: 'local', workers: 1 } },
  state: 'degraded',
  nodes: [
    { name: 'head', role: 'head', state: 'alive', ip: '127.0.0.2', cpus: 0, gpus: 0, engines: 0 },
    {
      ...{ name: 'worker-1', role: 'worker', state: 'draining', ip: '127.0.0.3' },
      ...{ cpus: 2, gpus: 1, engines: 2, since: '2026-01-01', deadline: '2026-01-02' },
    },
  ],
  users: ['run/one'],
  ...change,
});

test.each(['local', 'existing', 'ssh'] as const)(
  'a cluster that is %s shows what happens on each node',
  (provider) => {
    const events = [{ at: '2026-01-01', node: 'worker-1', what: 'was missing, is alive' }];
    const lines = clusterTable(status({ provider, events })).split('\n');
    expect(lines[0]).toBe(`here: degraded (${provider})`);
    expect(lines[1]).toMatch(/^NODE +STATE +ADDRESS +RESOURCES +ENGINES +SINCE +LAST PROBLEM$/u);
    expect(lines[3]).toMatch(
      /^worker-1 +draining until 2026-01-02 +127\.0\.0\.3 +2 CPU, 1 GPU +2 +2026-01-01$/u,
    );
    expect(lines.slice(4)).toEqual([
      'used by run/one',
      '2026-01-01  worker-1: was missing, is alive',
    ]);
  },
);

test('the last problem of a cluster is told once', () => {
  const problem = { type: 'ClusterUnavailable', message: 'no answer' } as const;
  expect(clusterTable(status({ problem }))).toContain('last problem: no answer');
  const [head] = status().nodes;
  if (head === undefined) throw new Error('no head');
  const told = clusterTable(status({ problem, nodes: [{ ...head, problem }] }));
  expect(told.split('no answer')).toHaveLength(2);
});

test('a cordoned node is shown as one', () => {
  const nodes = status().nodes.map((node) => ({ ...node, unschedulable: true as const }));
  expect(clusterTable(status({ nodes }))).toMatch(/^head +alive, cordoned +127/mu);
});
