import { expect, test } from 'vitest';

import type { FleetSlotStatus, NodeUsage } from '../../../src/contracts/workflows.js';
import { Usage } from '../../../src/workflows/fleet-usage.js';

const slot = (number: number, state: FleetSlotStatus['state'], nodeId = 'a'): FleetSlotStatus => ({
  ...{ slot: number, state, since: '2030-01-01T00:00:00Z', restarts: 0 },
  nodeId: nodeId.repeat(40),
});
const node = (name: string, seconds: Partial<Omit<NodeUsage, 'node'>>): NodeUsage => ({
  ...{ node: name, loadingSeconds: 0, readySeconds: 0, drainingSeconds: 0 },
  ...seconds,
});

test('each engine counts on its node, by what it was doing', () => {
  const usage = new Usage();
  usage.know([{ nodeId: 'a'.repeat(40), name: 'worker-1' }]);
  usage.count([], ['me'], 1_000);
  usage.count([slot(0, 'loading'), slot(1, 'loading', 'b')], ['me'], 11_000);
  usage.count([slot(0, 'ready'), slot(1, 'draining', 'b')], ['me'], 14_500);
  expect(usage.of('me')).toEqual({
    nodes: [
      node('bbbbbbbb', { loadingSeconds: 10, drainingSeconds: 3.5 }),
      node('worker-1', { loadingSeconds: 10, readySeconds: 3.5 }),
    ],
  });
});

test('what holds no part of a node does not count', () => {
  const usage = new Usage();
  usage.count([], ['me'], 0);
  const { nodeId: _none, ...placing } = slot(0, 'placing');
  const idle = (['dead', 'failed', 'restarting'] as const).map((state, n) => slot(n + 1, state));
  usage.count([placing, ...idle], ['me'], 10_000);
  expect(usage.of('me')).toBeUndefined();
});

test('users share the time in which they all use it, and time of nobody is not made up for', () => {
  const usage = new Usage();
  const ready = [slot(0, 'ready')];
  usage.count(ready, [], 0);
  usage.count(ready, [], 100_000);
  usage.count(ready, ['one'], 110_000);
  usage.count(ready, ['one', 'two'], 130_000);
  expect(usage.take('one')).toEqual({ nodes: [node('aaaaaaaa', { readySeconds: 20 })] });
  usage.count(ready, ['two'], 135_000);
  expect(usage.all).toEqual([{ user: 'two', nodes: [node('aaaaaaaa', { readySeconds: 15 })] }]);
  expect(usage.take('one')).toBeUndefined();
});

test('loading in the place of a preempted engine is told apart', () => {
  const usage = new Usage();
  usage.count([], ['me'], 0);
  usage.count([slot(0, 'loading'), { ...slot(1, 'loading'), replaces: true }], ['me'], 10_000);
  usage.count([slot(0, 'ready'), { ...slot(1, 'placing'), replaces: true }], ['me'], 12_000);
  const seconds = { loadingSeconds: 20, reloadingSeconds: 10, readySeconds: 2 };
  expect(usage.of('me')).toEqual({ nodes: [node('aaaaaaaa', seconds)] });
});

test('preemptions count for those who use the fleet', () => {
  const usage = new Usage();
  usage.count([], ['me'], 0);
  usage.count([slot(0, 'ready')], ['me'], 1_000);
  usage.preempted(2, ['me']);
  usage.preempted(0, ['me']);
  usage.preempted(1, ['me']);
  expect(usage.take('me')).toMatchObject({ preemptions: 3 });
  expect(usage.take('me')).toBeUndefined();
});

test('a fleet that continues as new goes on counting from where it was', () => {
  const before = new Usage();
  before.know([{ nodeId: 'a'.repeat(40), name: 'worker-1' }]);
  before.count([], ['me'], 0);
  before.count([slot(0, 'ready')], ['me'], 1_500);
  before.preempted(1, ['me']);
  const after = new Usage(JSON.parse(JSON.stringify(before.carried())));
  after.count([slot(0, 'ready')], ['me'], 4_000);
  expect(after.of('me')).toEqual({
    nodes: [node('worker-1', { readySeconds: 4 })],
    preemptions: 1,
  });
});
