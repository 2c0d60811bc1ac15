import { describe, expect, it } from 'vitest';

import type { ClusterObservation, LocalProcess } from '../../../src/contracts/activities.js';
import type { ClusterSpec, SshProvider } from '../../../src/contracts/cluster.js';
import type { Problem } from '../../../src/contracts/workflows.js';
import {
  describeNodes,
  isReady,
  planCluster,
  START_PATIENCE_S,
} from '../../../src/workflows/cluster-plan.js';
import { Members } from '../../../src/workflows/members.js';
import {
  FAILED_REST_S,
  FAILURES_LIMIT,
  STABLE_S,
  Troubles,
} from '../../../src/workflows/troubles.js';
import { ADDRESS, rayNode } from '../../support/fake-cluster.js';
import { sshProvider } from '../../support/ssh-spec.js';

const NOW = Date.parse('2030-01-01T00:00:00Z');
const later = (seconds: number): number => NOW + seconds * 1000;
const LOST: Problem = { type: 'ClusterUnavailable', message: 'lost' };
const DENIED: Problem = { type: 'HostAccessDenied', message: 'no' };

const provider = (names: string[], count = names.length): SshProvider => sshProvider(names, count);
const specOf = (nodes: SshProvider): ClusterSpec => ({ name: 'lab', nodes });
const runs = (name: string, ageSeconds = 10): LocalProcess => ({ name, running: true, ageSeconds });
const silent = (name: string): LocalProcess => ({
  name,
  running: false,
  ageSeconds: 0,
  unreachable: 'no route',
});
const up = (
  processes: LocalProcess[],
  alive: string[],
  engines: Record<string, number> = {},
): ClusterObservation => ({
  reachable: true,
  address: ADDRESS,
  nodes: alive.map((name) => rayNode({ name, nodeId: name, head: name === 'head' })),
  processes,
  engines,
});
const fail = (members: Members, node: string, now: number): void => {
  for (let count = 0; count < FAILURES_LIMIT; count += 1) members.troubles.note(node, LOST, now);
};

describe('the troubles of a node', () => {
  it('are waited out for longer and longer, and then the node is left alone', () => {
    const troubles = new Troubles();
    const waits: number[] = [];
    let now = NOW;
    for (let failure = 1; failure < FAILURES_LIMIT; failure += 1) {
      troubles.note('w', LOST, now);
      let wait = 0;
      while (!troubles.mayStart('w', now + wait * 1000)) wait += 1;
      waits.push(wait);
      now += wait * 1000;
    }
    expect(waits).toEqual([0, 10, 20, 40]);
    troubles.note('w', LOST, now);
    expect(troubles.isFailed('w', now)).toBe(true);
    expect(troubles.mayStart('w', now + 60_000)).toBe(false);
  });

  it('end with one more try after a rest, and a failure then is the last straw again', () => {
    const troubles = new Troubles();
    troubles.fail('w', LOST, NOW);
    const rested = later(FAILED_REST_S);
    expect(troubles.mayStart('w', rested)).toBe(true);
    troubles.note('w', LOST, rested);
    expect(troubles.isFailed('w', rested)).toBe(true);
  });

  it('are forgotten when the node was well for long, not when it dies soon again', () => {
    const troubles = new Troubles();
    troubles.note('w', LOST, NOW);
    troubles.well('w', later(STABLE_S - 1));
    expect(troubles.of('w')?.failures).toBe(1);
    troubles.well('w', later(STABLE_S + 1));
    expect(troubles.of('w')).toBeUndefined();
  });

  it('that another try does not change count at once', () => {
    const troubles = new Troubles();
    troubles.note('w', DENIED, NOW);
    expect(troubles.isFailed('w', NOW)).toBe(true);
    troubles.forgive('w');
    expect(troubles.mayStart('w', NOW)).toBe(true);
  });
});

describe('the members of a cluster over ssh', () => {
  it('are the first hosts; a spare takes the place of one that failed, and keeps it', () => {
    const members = new Members(provider(['a', 'b', 's'], 2));
    expect(members.active).toEqual(['a', 'b']);
    expect(members.spares).toEqual(['s']);
    fail(members, 'a', NOW);
    expect(members.settle(NOW)).toEqual([
      { node: 'a', what: 'loses its place' },
      { node: 's', what: 'takes a place' },
    ]);
    expect(members.active).toEqual(['b', 's']);
    expect(members.leaving).toEqual(['a']);
    // It may come back, but there is no place for it: nothing flaps.
    members.ended('a');
    expect(members.settle(later(FAILED_REST_S))).toEqual([]);
    expect(members.spares).toEqual(['a']);
  });

  it('keep a failed one in its place when there is no spare, and say what is wrong', () => {
    const members = new Members(provider(['a', 'b']));
    fail(members, 'b', NOW);
    expect(members.settle(NOW)).toEqual([]);
    expect(members.active).toEqual(['a', 'b']);
    expect(members.stuck(NOW)).toEqual([{ node: 'b', problem: LOST }]);
    expect(members.stuck(later(FAILED_REST_S))).toEqual([]);
    members.forgive();
    expect(members.stuck(NOW)).toEqual([]);
  });

  it('survive continue-as-new', () => {
    const members = new Members(provider(['a', 'b', 's'], 2));
    fail(members, 'a', NOW);
    members.change({ drain: { nodes: ['b'], seconds: 60 }, add: [{ name: 'n', host: 'n' }] }, NOW);
    members.settle(NOW);
    const next = new Members(provider(['a', 'b', 's'], 2), members.carried().members);
    expect(next.carried()).toEqual(members.carried());
    expect(next.active).toEqual(members.active);
  });

  it('come and go by request, and what cannot be is refused', () => {
    const members = new Members(provider(['a', 'b']));
    expect(members.refusal({ remove: ['x'] })).toMatch(/there is no node x; there are a, b/u);
    expect(members.refusal({ drain: { nodes: ['head'], seconds: 1 } })).toMatch(/cluster down/u);
    expect(members.refusal({ count: 3 })).toMatch(/hosts for 2/u);
    expect(members.refusal({ count: 3, add: [{ name: 'c', host: 'c' }] })).toBeUndefined();
    expect(members.refusal({ add: [{ name: 'twin', host: 'a' }] })).toMatch(/a is the host of a/u);

    members.change({ add: [{ name: 'c', host: 'c' }] }, NOW);
    members.settle(NOW);
    expect(members.active).toEqual(['a', 'b', 'c']);
    members.change({ add: [{ name: 's', host: 's' }], spare: true }, NOW);
    members.settle(NOW);
    expect(members.spares).toEqual(['s']);
    members.change({ remove: ['a'] }, NOW);
    members.settle(NOW);
    expect(members.active).toEqual(['b', 'c', 's']);
    expect(members.leaving).toEqual(['a']);
    expect(members.hostOf('a')).toBe('a');
    members.ended('a');
    expect(members.hostOf('a')).toBeUndefined();
  });

  it('get a place when they are named, new or a spare, and not another in their place', () => {
    const members = new Members(provider(['a', 's', 't'], 1));
    expect(members.change({ add: [{ name: 't', host: 't' }] }, NOW).active).toEqual(['a', 't']);
    members.change({ add: [{ name: 'n', host: 'n' }] }, NOW);
    expect(members.settle(NOW)).toEqual([]);
    expect(members.active).toEqual(['a', 't', 'n']);
    expect(members.spares).toEqual(['s']);
    expect(members.nodes.count).toBe(3);
    // A spare that is asked for as one stays one, and a node that has a place is not wanted twice.
    members.change({ add: [{ name: 's', host: 's' }], spare: true }, NOW);
    members.change({ add: [{ name: 'a', host: 'a' }] }, NOW);
    expect(members.active).toEqual(['a', 't', 'n']);
    // One that failed is tried again; another has its place.
    fail(members, 'a', NOW);
    members.settle(NOW);
    members.ended('a');
    members.change({ add: [{ name: 'a', host: 'a' }] }, NOW);
    members.settle(NOW);
    expect(members.active).toEqual(['t', 'n', 's']);
    expect(members.spares).toEqual(['a']);
  });

  it('are added in histories of before as they were: the first spare takes the place', () => {
    const members = new Members(provider(['a', 's', 't'], 1));
    members.change({ add: [{ name: 't', host: 't' }] }, NOW, false);
    members.change({ add: [{ name: 'n', host: 'n' }] }, NOW, false);
    members.settle(NOW);
    expect(members.active).toEqual(['a', 's']);
  });

  it('leave without engines or at their deadline when they are drained, and stay out until they are added', () => {
    const members = new Members(provider(['a', 'b']));
    members.change({ drain: { nodes: ['b'], seconds: 60 } }, NOW);
    members.settle(NOW);
    expect(members.active).toEqual(['a']);
    const all = [runs('head'), runs('a'), runs('b')];
    members.endDrains(up(all, ['head', 'a', 'b'], { b: 1 }), later(30));
    expect(members.leaving).toEqual([]);
    members.endDrains(up(all, ['head', 'a', 'b']), later(30));
    expect(members.leaving).toEqual(['b']);
    members.ended('b');
    members.settle(later(1000));
    expect(members.active).toEqual(['a']);
    members.change({ add: [{ name: 'b', host: 'b' }] }, later(1000));
    members.settle(later(1000));
    expect(members.active).toEqual(['a', 'b']);
  });

  it('that are too many when fewer are wanted get time to finish', () => {
    const members = new Members(provider(['a', 'b', 'c']));
    members.change({ count: 1 }, NOW);
    members.settle(NOW);
    expect(members.active).toEqual(['a']);
    expect(members.draining).toEqual(['b', 'c']);
    members.endDrains(up([], ['head', 'b'], { b: 1 }), later(31));
    expect(members.leaving).toEqual(['b', 'c']);
    members.change({ count: 2 }, later(40));
    members.settle(later(40));
    expect(members.active).toEqual(['a', 'b']);
  });
});

describe('the plan of a cluster over ssh', () => {
  const plan = (
    nodes: SshProvider,
    members: Members,
    seen: ClusterObservation,
    blind = 0,
    now = NOW,
  ) => planCluster(specOf(nodes), seen, blind, undefined, now, members);
  const nothing = { end: [], start: [] };

  it('starts the head first, then what is missing', () => {
    const nodes = provider(['a', 'b']);
    const members = new Members(nodes);
    const none = { reachable: false, nodes: [], processes: [] };
    expect(plan(nodes, members, none)).toEqual({ end: [], start: ['head'] });
    expect(plan(nodes, members, up([runs('head'), runs('a')], ['head', 'a']))).toEqual({
      end: [],
      start: ['b'],
    });
  });

  it('does nothing to a host that cannot be asked while Ray says that its node is well', () => {
    const nodes = provider(['a']);
    const members = new Members(nodes);
    expect(plan(nodes, members, up([runs('head'), silent('a')], ['head', 'a']))).toEqual(nothing);
    expect(plan(nodes, members, up([silent('head'), runs('a')], ['head', 'a']))).toEqual(nothing);
    expect(plan(nodes, members, up([runs('head'), silent('a')], ['head']))).toEqual({
      end: [],
      start: ['a'],
    });
  });

  it('ends no worker because this machine is cut off from the head', () => {
    const nodes = provider(['a']);
    const members = new Members(nodes);
    const seen = { reachable: false, nodes: [], processes: [silent('head'), runs('a', 1000)] };
    expect(plan(nodes, members, seen, 10)).toEqual(nothing);
    expect(plan(nodes, members, seen, START_PATIENCE_S + 1)).toEqual({ end: [], start: ['head'] });
  });

  it('leaves a node that keeps failing alone for longer and longer', () => {
    const nodes = provider(['a']);
    const members = new Members(nodes);
    const seen = up([runs('head')], ['head']);
    members.troubles.note('a', LOST, NOW);
    expect(plan(nodes, members, seen)).toEqual({ end: [], start: ['a'] });
    members.troubles.note('a', LOST, NOW);
    expect(plan(nodes, members, seen)).toEqual(nothing);
    expect(plan(nodes, members, seen, 0, later(10))).toEqual({ end: [], start: ['a'] });
  });

  it('ends what has left as soon as its host answers', () => {
    const nodes = provider(['a', 'b']);
    const members = new Members(nodes);
    members.change({ remove: ['b'] }, NOW);
    members.settle(NOW);
    const away = up([runs('head'), runs('a'), silent('b')], ['head', 'a']);
    expect(plan(nodes, members, away)).toEqual(nothing);
    const back = up([runs('head'), runs('a'), runs('b')], ['head', 'a']);
    expect(plan(nodes, members, back)).toEqual({ end: ['b'], start: [] });
  });

  it('shows every host with its place, and is ready when all that are wanted are there', () => {
    const nodes = provider(['a', 'b', 's'], 2);
    const members = new Members(nodes);
    const seen = up([runs('head'), runs('a'), silent('b')], ['head', 'a'], { a: 2 });
    const rows = describeNodes(specOf(nodes), seen, undefined, members, NOW);
    expect(rows.map(({ name, state }) => `${name} ${state}`)).toEqual([
      ...['head alive', 'a alive', 'b unreachable', 's spare'],
    ]);
    expect(rows[1]).toMatchObject({ host: 'a', engines: 2 });
    expect(isReady(specOf(nodes), seen, undefined, members)).toBe(false);
    fail(members, 'b', NOW);
    members.settle(NOW);
    const repaired = up([runs('head'), runs('a'), runs('s')], ['head', 'a', 's']);
    expect(isReady(specOf(nodes), repaired, undefined, members)).toBe(true);
    const failed = describeNodes(specOf(nodes), repaired, undefined, members, NOW);
    expect(failed.find(({ name }) => name === 'b')).toMatchObject({
      state: 'failed',
      problem: LOST,
    });
  });
});
