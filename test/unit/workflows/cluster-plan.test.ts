import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import type { ClusterObservation, LocalProcess } from '../../../src/contracts/activities.js';
import type { ClusterSpec } from '../../../src/contracts/cluster.js';
import type { PreemptionNotice } from '../../../src/contracts/preemption.js';
import {
  OVERDUE_S,
  START_PATIENCE_S,
  describeNodes,
  isOver,
  isReady,
  localNodeNames,
  planCluster,
} from '../../../src/workflows/cluster-plan.js';
import { ADDRESS, rayNode } from '../../support/fake-cluster.js';

const spec = (workers: number): ClusterSpec => ({
  name: 'ray',
  nodes: { provider: 'local', workers },
});
const existing: ClusterSpec = {
  name: 'theirs',
  nodes: { provider: 'existing', address: 'h:1', dashboardUrl: 'http://h:2' },
};
const runs = (name: string, ageSeconds = 10): LocalProcess => ({ name, running: true, ageSeconds });
const ended = (name: string): LocalProcess => ({ name, running: false, ageSeconds: 10 });
const up = (processes: LocalProcess[], alive: string[]): ClusterObservation => ({
  reachable: true,
  address: ADDRESS,
  nodes: alive.map((name) => rayNode({ name, nodeId: name, head: name === 'head' })),
  processes,
});
const unreachable = (...processes: LocalProcess[]): ClusterObservation => ({
  reachable: false,
  nodes: [],
  processes,
});

describe('the plan of a cluster', () => {
  it('starts the head alone first', () => {
    expect(planCluster(spec(2), unreachable(), 0)).toEqual({ end: [], start: ['head'] });
  });

  it('starts all missing workers together once the head answers', () => {
    expect(planCluster(spec(2), up([runs('head')], ['head']), 0)).toEqual({
      end: [],
      start: ['worker-1', 'worker-2'],
    });
  });

  it('waits for a head that is still coming up', () => {
    expect(planCluster(spec(1), unreachable(runs('head')), 5)).toEqual({ end: [], start: [] });
  });

  it('ends the workers of a head that is lost and starts again from the head', () => {
    const seen = unreachable(ended('head'), runs('worker-1'), runs('worker-2'));
    expect(planCluster(spec(2), seen, 5)).toEqual({
      end: ['worker-1', 'worker-2'],
      start: ['head'],
    });
  });

  it('leaves the workers of a lost head alone when its state is on disk: they wait for the next', () => {
    const durable: ClusterSpec = {
      name: 'ray',
      nodes: { provider: 'local', workers: 1, gcsStorage: 'rocksdb' },
    };
    const lost = unreachable(ended('head'), runs('worker-1'));
    expect(planCluster(durable, lost, 5)).toEqual({ end: [], start: ['head'] });
    const hung = unreachable(runs('head', 500), runs('worker-1', 500));
    expect(planCluster(durable, hung, START_PATIENCE_S + 1)).toEqual({
      end: ['head'],
      start: ['head'],
    });
  });

  it('rebuilds when a head runs without answering for too long', () => {
    const old = START_PATIENCE_S + 1;
    const seen = unreachable(runs('head', old), runs('worker-1', old));
    expect(planCluster(spec(1), seen, old)).toEqual({ end: ['head', 'worker-1'], start: ['head'] });
    expect(planCluster(spec(1), seen, 10)).toEqual({ end: [], start: [] });
  });

  it('joins a worker again that runs without Ray knowing it, but not one that is still joining', () => {
    const stuck = up([runs('head'), runs('worker-1', START_PATIENCE_S + 1)], ['head']);
    expect(planCluster(spec(1), stuck, 0)).toEqual({ end: ['worker-1'], start: ['worker-1'] });
    const joining = up([runs('head'), runs('worker-1', 5)], ['head']);
    expect(planCluster(spec(1), joining, 0)).toEqual({ end: [], start: [] });
  });

  it('does nothing when all is well, and never anything to a cluster of somebody else', () => {
    const well = up([runs('head'), runs('worker-1')], ['head', 'worker-1']);
    expect(planCluster(spec(1), well, 0)).toEqual({ end: [], start: [] });
    expect(planCluster(existing, unreachable(), 1000)).toEqual({ end: [], start: [] });
  });

  it('brings any state of a host to what is wanted within three rounds', () => {
    const name = fc.constantFrom('head', 'worker-1', 'worker-2', 'worker-3');
    fc.assert(
      fc.property(fc.uniqueArray(name), fc.nat(3), (initially, workers) => {
        const running = new Set<string>(initially);
        for (let round = 0; round < 3; round += 1) {
          const names = [...running];
          const processes = names.map((n) => runs(n));
          const seen = running.has('head') ? up(processes, names) : unreachable(...processes);
          const plan = planCluster(spec(workers), seen, 0);
          for (const node of plan.end) running.delete(node);
          for (const node of plan.start) {
            expect(node === 'head' || running.has('head')).toBe(true);
            expect(running.has(node)).toBe(false);
            running.add(node);
          }
        }
        expect([...running].toSorted()).toEqual(localNodeNames(spec(workers)).toSorted());
      }),
    );
  });
});

describe('a local node with notice of preemption', () => {
  const NOW = Date.parse('2030-01-01T00:00:00Z');
  const OLD = 1000;
  const in30s = new Map<string, PreemptionNotice>([
    ['n1', { nodeId: 'n1', source: 'file', deadline: NOW + 30_000 }],
  ]);
  const node = (nodeId: string, alive = true) => rayNode({ name: 'worker-1', nodeId, alive });
  const seen = (process: LocalProcess, ...nodes: ReturnType<typeof node>[]) => ({
    ...up([runs('head', OLD), process], ['head']),
    nodes: [rayNode({ name: 'head', nodeId: 'h', head: true }), ...nodes],
  });
  const planAt = (seconds: number, observation: ClusterObservation) =>
    planCluster(spec(1), observation, 0, in30s, NOW + seconds * 1000);
  const nothing = { end: [], start: [] };

  it('is left alone until its deadline, also when it has ended before', () => {
    expect(planAt(10, seen(runs('worker-1', OLD), node('n1')))).toEqual(nothing);
    expect(planAt(10, seen(runs('worker-1', OLD), node('n1', false)))).toEqual(nothing);
    expect(planAt(10, seen(ended('worker-1'), node('n1', false)))).toEqual(nothing);
  });

  it('is started again after its deadline', () => {
    const again = { end: [], start: ['worker-1'] };
    // A raylet that was drained ends, and `ray start` stays behind without it.
    expect(planAt(31, seen(runs('worker-1', OLD), node('n1', false)))).toEqual({
      end: ['worker-1'],
      start: ['worker-1'],
    });
    expect(planAt(30, seen(ended('worker-1'), node('n1', false)))).toEqual(again);
    // For some seconds Ray still takes the lost node for alive.
    expect(planAt(30, seen(ended('worker-1'), node('n1')))).toEqual(again);
  });

  it('is ended when nobody has taken it a while after its deadline', () => {
    const late = 30 + OVERDUE_S;
    expect(planAt(late - 1, seen(runs('worker-1', OLD), node('n1')))).toEqual(nothing);
    expect(planAt(late, seen(runs('worker-1', OLD), node('n1')))).toEqual({
      end: ['worker-1'],
      start: ['worker-1'],
    });
  });

  it('is not mistaken for its successor', () => {
    const late = 30 + OVERDUE_S + 5;
    expect(planAt(late, seen(runs('worker-1', 20), node('n1', false)))).toEqual(nothing);
    expect(planAt(late, seen(runs('worker-1', 20), node('n1'), node('n2')))).toEqual(nothing);
    expect(planAt(5, seen(ended('worker-1'), node('n1'), node('n2', false)))).toEqual(nothing);
    const lost = seen(ended('worker-1'), node('n2'));
    expect(planAt(5, lost)).toEqual({ end: [], start: ['worker-1'] });
  });

  it('is remembered until it is gone and its successor is there', () => {
    const over = (...nodes: ReturnType<typeof node>[]): boolean => {
      const notice = in30s.get('n1');
      const observation = seen(ended('worker-1'), ...nodes);
      return notice !== undefined && isOver(spec(1), notice, observation, NOW + 3600_000);
    };
    expect(over(node('n1'))).toBe(false);
    expect(over(node('n1', false))).toBe(false);
    expect(over(node('n1', false), node('n2', false))).toBe(false);
    expect(over(node('n1', false), node('n2'))).toBe(true);
    expect(over(node('n2'))).toBe(true);
    const theirs = { reachable: true, nodes: [node('n1', false)], processes: [] };
    const notice: PreemptionNotice = { nodeId: 'n1', source: 'aws', deadline: NOW };
    expect(isOver(existing, notice, theirs, NOW)).toBe(true);
    // Ray is not told to drain the head, so one that stays is as good as before.
    const head: PreemptionNotice = { nodeId: 'h', source: 'aws', deadline: NOW };
    const alone = seen(runs('worker-1', OLD));
    expect(isOver(spec(1), head, alone, NOW + OVERDUE_S * 1000 - 1)).toBe(false);
    expect(isOver(spec(1), head, alone, NOW + OVERDUE_S * 1000)).toBe(true);
  });

  it('is shown with its deadline, and the cluster is not ready while it is there', () => {
    const observation = seen(runs('worker-1', OLD), node('n1'));
    expect(describeNodes(spec(1), observation, in30s)[1]).toMatchObject({
      state: 'draining',
      deadline: '2030-01-01T00:00:30.000Z',
    });
    expect(isReady(spec(1), observation)).toBe(true);
    expect(isReady(spec(1), observation, in30s)).toBe(false);
  });
});

describe('the nodes of a cluster', () => {
  it('are shown as they are wanted, with what is known of each', () => {
    const seen = up([runs('head'), runs('worker-1')], ['head']);
    expect(describeNodes(spec(2), seen).map(({ name, state }) => [name, state])).toEqual([
      ['head', 'alive'],
      ['worker-1', 'starting'],
      ['worker-2', 'missing'],
    ]);
  });

  it('prefer the living one of several that had the same name', () => {
    const seen = {
      ...up([runs('head')], []),
      nodes: [
        rayNode({ name: 'head', nodeId: 'new' }),
        rayNode({ name: 'head', nodeId: 'old', alive: false }),
      ],
    };
    expect(describeNodes(spec(0), seen)[0]).toMatchObject({ state: 'alive', nodeId: 'new' });
  });

  it('are ready when all are alive; those of somebody else when any is', () => {
    expect(isReady(spec(1), up([runs('head')], ['head']))).toBe(false);
    expect(isReady(spec(1), up([], ['head', 'worker-1']))).toBe(true);
    expect(isReady(existing, up([], ['anything']))).toBe(true);
    expect(isReady(existing, unreachable())).toBe(false);
  });
});
