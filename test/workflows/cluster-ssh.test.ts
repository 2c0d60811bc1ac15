import { Context } from '@temporalio/activity';
import { WithStartWorkflowOperation, type WorkflowUpdateFailedError } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import type { ControlActivities, NodeProblem } from '../../src/contracts/activities.js';
import type { ClusterSpec } from '../../src/contracts/cluster.js';
import {
  CONTROL_QUEUE,
  QUERY,
  SIGNAL,
  UPDATE,
  WORKFLOW,
  clusterWorkflowId,
} from '../../src/contracts/names.js';
import type {
  ChangeNodesRequest,
  ChangeNodesResult,
  ClusterStatus,
  CordonRequest,
  CordonResult,
  EnsureClusterRequest,
  EnsuredCluster,
  StopResult,
} from '../../src/contracts/workflows.js';
import { ADDRESS, rayNode } from '../support/fake-cluster.js';
import { Harness, eventually } from '../support/harness.js';
import { RECORDING, keepHistory } from '../support/kept-history.js';
import { sshProvider } from '../support/ssh-spec.js';

/** Hosts on which a node runs; those that are not fit, and why; those that do not answer; those that install for long. */
const running = new Set<string>();
const unfit = new Map<string, string>();
const away = new Set<string>();
const installing = new Set<string>();
const calls: string[] = [];
/** Activities that were told what the environment of the nodes is made of. */
const told = new Set<string>();
const hear = (activity: string, { nodes }: ClusterSpec): void => {
  if (nodes.provider === 'ssh' && nodes.environment.requirements !== undefined) told.add(activity);
};
/** Hosts become unfit only after they were looked at. */
let lookAway = false;

const problemOf = (node: string): NodeProblem => ({
  node,
  problem: { type: 'HostRefused', message: `${node}: ${unfit.get(node)}` },
});

/** Ends when it is cancelled, and a little later. */
async function install(node: string): Promise<void> {
  const context = Context.current();
  const timer = setInterval(() => context.heartbeat(), 100);
  try {
    await context.cancelled;
  } finally {
    await new Promise((resolve) => setTimeout(resolve, 500));
    clearInterval(timer);
    calls.push(`installs no more ${node}`);
  }
}

const activities: Partial<ControlActivities> = {
  checkNodes: async ({ spec, nodes }) => {
    hear('checkNodes', spec);
    calls.push(`check ${nodes.join(' ')}`);
    if (lookAway) return [];
    return nodes.filter((node) => unfit.has(node)).map(problemOf);
  },
  observeCluster: async ({ spec, nodes = [] }) => {
    hear('observeCluster', spec);
    const processes = nodes.map((name) => ({
      ...{ name, running: running.has(name), ageSeconds: 1 },
      ...(away.has(name) && { running: false, unreachable: 'no route' }),
    }));
    if (!running.has('head')) return { reachable: false, nodes: [], processes };
    const alive = [...running].filter((name) => !away.has(name));
    return {
      ...{ reachable: true, address: ADDRESS, processes, jobs: 0, engines: {} },
      nodes: alive.map((name) => rayNode({ name, nodeId: `id-${name}`, head: name === 'head' })),
    };
  },
  startNode: async ({ spec, node, address }) => {
    hear('startNode', spec);
    calls.push(`start ${node}${address ? ` at ${address.address}` : ''}`);
    if (away.has(node)) throw ApplicationFailure.nonRetryable(`${node}: away`, 'HostUnreachable');
    if (unfit.has(node))
      throw ApplicationFailure.nonRetryable(problemOf(node).problem.message, 'HostRefused');
    if (installing.has(node)) await install(node);
    running.add(node);
  },
  endNode: async ({ node }) => {
    calls.push(`end ${node}`);
    running.delete(node);
  },
  removeNodes: async ({ nodes }) => {
    calls.push(`remove ${nodes.join(' ')}`);
    running.clear();
    return nodes
      .filter((node) => away.has(node))
      .map((node) => ({ node, problem: { type: 'HostUnreachable', message: `${node}: away` } }));
  },
  drainNode: async ({ nodeId, seconds }) => {
    calls.push(`drain ${nodeId} ${seconds}`);
  },
};

let harness: Harness;
beforeAll(async () => {
  harness = await Harness.start('cluster-ssh');
  await harness.serve(CONTROL_QUEUE, activities);
});
beforeEach(() => {
  for (const state of [running, unfit, away, installing, told]) state.clear();
  calls.length = 0;
});
afterAll(async () => harness.close());

const specOf = (name: string, workers: string[], count?: number): ClusterSpec => ({
  name,
  nodes: sshProvider(workers, count),
});
const handleOf = (name: string) => harness.client.workflow.getHandle(clusterWorkflowId(name));
const ensure = async (spec: ClusterSpec, user?: string) =>
  harness.client.workflow.executeUpdateWithStart<never, EnsuredCluster, [EnsureClusterRequest]>(
    UPDATE.ensureCluster,
    {
      args: [{ spec, ...(user !== undefined && { user }) }],
      startWorkflowOperation: new WithStartWorkflowOperation<never>(WORKFLOW.cluster, {
        workflowId: clusterWorkflowId(spec.name),
        taskQueue: CONTROL_QUEUE,
        args: [{ spec }],
        workflowIdConflictPolicy: 'USE_EXISTING',
      } as never),
    },
  );
const change = async (name: string, request: ChangeNodesRequest) =>
  handleOf(name).executeUpdate<ChangeNodesResult, [ChangeNodesRequest]>(UPDATE.changeNodes, {
    args: [request],
  });
const stop = async (name: string) =>
  handleOf(name).executeUpdate<StopResult, [object]>(UPDATE.stopCluster, { args: [{}] });
let deadline = Date.now() + 3_600_000;
/** Has it look at once: a notice for a node that nobody has, and an earlier one is news each time. */
const wake = async (name: string) =>
  handleOf(name).signal(SIGNAL.preemptionNotice, {
    ...{ nodeId: 'f'.repeat(40), source: 'url', deadline: (deadline -= 1) },
  });
const statusOf = async (name: string) => handleOf(name).query<ClusterStatus>(QUERY.status);
const refusal = async (update: Promise<unknown>): Promise<{ type?: string; message?: string }> =>
  update.then(
    () => ({ message: 'no refusal' }),
    (error: WorkflowUpdateFailedError) =>
      error.cause as ApplicationFailure as { type?: string; message?: string },
  );

describe('a cluster over ssh', () => {
  it('comes up from its head, and is taken down', async () => {
    expect(await ensure(specOf('whole', ['a', 'b']))).toMatchObject({ address: ADDRESS });
    expect(calls.slice(0, 2)).toEqual(['check head a b', 'start head']);
    expect(calls.slice(2).toSorted()).toEqual([
      `start a at ${ADDRESS.address}`,
      `start b at ${ADDRESS.address}`,
    ]);
    const status = await statusOf('whole');
    expect(status).toMatchObject({ state: 'ready', provider: 'ssh' });
    expect(status.events?.map(({ node, what }) => `${node}: ${what}`)).toContain(
      'a: was missing, is alive',
    );
    expect(status.nodes[1]?.since).toMatch(/^\d{4}-/u);
    expect(await stop('whole')).toEqual({ stopped: true });
    expect(calls.at(-1)).toBe('remove head a b');
  });

  it('is refused with the problems of all hosts before anything is started', async () => {
    unfit.set('a', 'has no Ray').set('b', 'port 1 is taken');
    const cause = await refusal(ensure(specOf('unfit', ['a', 'b', 'c'])));
    expect(cause.type).toBe('ClusterStartFailed');
    expect(cause.message).toMatch(/a: has no Ray\n {2}b: port 1 is taken/u);
    await eventually(() => calls.some((call) => call.startsWith('remove')));
    expect(calls.filter((call) => call.startsWith('start'))).toEqual([]);
  });

  it('tells what its environment is made of where that is looked at and made, not at each look', async () => {
    const { name, nodes } = specOf('made', ['a']);
    const environment = { requirements: 'ray\n' };
    await ensure({ name, nodes: { ...nodes, environment } as typeof nodes });
    await stop('made');
    expect([...told].toSorted()).toEqual(['checkNodes', 'startNode']);
  });

  it('starts few nodes at once where each is told a long file', { timeout: 60_000 }, async () => {
    const { name, nodes } = specOf('long', ['a', 'b', 'c', 'd']);
    const environment = { requirements: `ray # ${'x'.repeat(1_100_000)}\n` };
    expect(await ensure({ name, nodes: { ...nodes, environment } as typeof nodes })).toMatchObject({
      address: ADDRESS,
    });
    expect(calls.filter((call) => call.startsWith('start'))).toHaveLength(5);
    await stop('long');
  });

  it('takes a spare for a host that is not fit', async () => {
    unfit.set('a', 'has no Ray');
    await ensure(specOf('spared', ['a', 'b', 's'], 2));
    expect(calls.slice(0, 2)).toEqual(['check head a b', 'check s']);
    const nodes = (await statusOf('spared')).nodes.map(({ name, state }) => `${name} ${state}`);
    expect(nodes).toEqual(expect.arrayContaining(['head alive', 'b alive', 's alive']));
    await stop('spared');
  });

  it('that came up in part says which nodes it lacks; the same command goes on from there', async () => {
    const spec = specOf('half', ['a', 'b']);
    // It was fit when it was looked at, and is not when it is to start.
    lookAway = true;
    unfit.set('b', 'disk full');
    const cause = await refusal(ensure(spec));
    lookAway = false;
    expect(cause).toMatchObject({ type: 'ClusterStartFailed' });
    expect(cause.message).toMatch(/lacks nodes that do not start:\n {2}b: disk full/u);
    const half = await statusOf('half');
    expect(half.nodes.map(({ name, state }) => `${name} ${state}`)).toEqual([
      ...['head alive', 'a alive', 'b failed'],
    ]);

    unfit.clear();
    calls.length = 0;
    expect(await ensure(spec)).toMatchObject({ address: ADDRESS });
    expect(calls).toEqual([`start b at ${ADDRESS.address}`]);
    await stop('half');
  });

  it('forgives a node that failed when somebody asks anew, not when a user asks again', async () => {
    const spec = specOf('again', ['a', 'b']);
    lookAway = true;
    unfit.set('b', 'disk full');
    const lacks = { type: 'ClusterStartFailed', message: expect.stringMatching(/b: disk full/u) };
    expect(await refusal(ensure(spec, 'job/one'))).toMatchObject(lacks);
    lookAway = false;
    unfit.clear();
    calls.length = 0;
    expect(await refusal(ensure(spec, 'job/one'))).toMatchObject(lacks);
    expect(calls).toEqual([]);
    expect(await ensure(spec, 'job/two')).toMatchObject({ address: ADDRESS });
    expect(calls).toEqual([`start b at ${ADDRESS.address}`]);
    await stop('again');
  });

  it('is the same with the file whose hosts were added, and else says what differs', async () => {
    const spec = specOf('edited', ['a']);
    await ensure(spec);
    const more = specOf('edited', ['c', 'a', 'b']);
    expect(await refusal(ensure(more))).toMatchObject({
      type: 'ClusterMismatch',
      message: expect.stringMatching(/other settings: workers\.c \(asked for.*workers\.b.*count/u),
      details: [{ wayOut: expect.stringMatching(/cluster add FILE.*cluster remove edited/u) }],
    });
    const add = ['b', 'c'].map((name) => ({ name, host: name }));
    await change('edited', { add });
    expect(await ensure(more)).toMatchObject({ address: ADDRESS });
    // As it was asked for at first it is asked for by those who name only the cluster.
    expect(await ensure(spec)).toMatchObject({ address: ADDRESS });
    await eventually(() => calls.filter((call) => call.startsWith('start')).length === 4);
    await stop('edited');
  });

  it('has who is on it go on with fewer nodes when one is lost for good', async () => {
    const spec = specOf('fewer', ['a', 'b']);
    expect(await ensure(spec, 'job/one')).toMatchObject({ address: ADDRESS });
    unfit.set('b', 'disk full');
    running.delete('b');
    await wake('fewer');
    await eventually(async () => (await statusOf('fewer')).state === 'degraded');
    // Refused by its host, which is final; failures that another try may change take two minutes.
    expect(await ensure(spec, 'job/one')).toMatchObject({ address: ADDRESS });
    const { state, nodes } = await statusOf('fewer');
    expect(state).toBe('degraded');
    expect(nodes.map(({ name, state: of }) => `${name} ${of}`)).toEqual([
      ...['head alive', 'a alive', 'b failed'],
    ]);
    // Who comes new is told what is lacking, when that has been tried once more.
    expect(await refusal(ensure(spec, 'job/two'))).toMatchObject({
      type: 'ClusterStartFailed',
      message: expect.stringMatching(/lacks nodes that do not start:\n {2}b: disk full/u),
    });
    await stop('fewer');
  });

  it('has nobody go on without its head', async () => {
    const spec = specOf('headless', ['a']);
    await ensure(spec, 'job/one');
    unfit.set('head', 'disk full');
    running.delete('head');
    await wake('headless');
    await eventually(async () => (await statusOf('headless')).nodes[0]?.state === 'failed');
    expect(await refusal(ensure(spec, 'job/one'))).toMatchObject({ type: 'ClusterStartFailed' });
    await stop('headless');
  });

  it(
    'joins a lost node again, tells what happened, and changes by request',
    { timeout: 120_000 },
    async () => {
      const spec = specOf('alive', ['a', 'b', 's'], 2);
      await ensure(spec);
      running.delete('a');
      calls.length = 0;
      await eventually(() => calls.includes(`start a at ${ADDRESS.address}`), 60);
      await eventually(async () => (await statusOf('alive')).state === 'ready');
      const told = (await statusOf('alive')).events?.map(({ node, what }) => `${node}: ${what}`);
      expect(told).toEqual(
        expect.arrayContaining(['a: was alive, is missing', 'a: was missing, is alive']),
      );

      expect(await refusal(change('alive', { remove: ['x'] }))).toMatchObject({
        type: 'ClusterMismatch',
      });
      expect(await refusal(change('alive', { count: 4 }))).toMatchObject({
        message: expect.stringMatching(/hosts for 3/u),
      });
      await change('alive', { drain: { nodes: ['b'], seconds: 60 } });
      expect(calls).toContain('drain id-b 60');
      await eventually(
        () => calls.includes('end b') && calls.includes(`start s at ${ADDRESS.address}`),
        60,
      );
      await eventually(async () => (await statusOf('alive')).state === 'ready');
      const nodes = (await statusOf('alive')).nodes.map(({ name, state }) => `${name} ${state}`);
      expect(nodes).toEqual(['head alive', 'a alive', 's alive', 'b drained']);
      // What it was asked for is still what it is called for.
      expect(await ensure(spec)).toMatchObject({ address: ADDRESS });
      await stop('alive');
      if (RECORDING) {
        await keepHistory(harness.client, 'cluster-over-ssh', clusterWorkflowId('alive'));
      }
    },
  );

  it('starts a lost head again while a worker is being installed, and does not install one that goes', async () => {
    installing.add('b');
    const spec = specOf('busy', ['a', 'b']);
    const up = ensure(spec);
    await eventually(() => running.has('a') && calls.includes(`start b at ${ADDRESS.address}`));
    running.delete('head');
    calls.length = 0;
    await eventually(() => calls.includes(`start a at ${ADDRESS.address}`));
    expect(calls).toEqual(['end a', 'start head', `start a at ${ADDRESS.address}`]);
    await change('busy', { remove: ['b'] });
    expect(await up).toMatchObject({ address: ADDRESS });
    await eventually(() => calls.includes('end b'));
    expect(calls.slice(-2)).toEqual(['installs no more b', 'end b']);
    expect((await statusOf('busy')).problem).toBeUndefined();
    await stop('busy');
  });

  it('keeps a node cordoned until it is uncordoned or removed, or comes back after a drain', async () => {
    const spec = specOf('closed', ['a', 'b', 's'], 2);
    await ensure(spec);
    const handle = harness.client.workflow.getHandle(clusterWorkflowId('closed'));
    const cordon = async (...nodes: readonly string[]) =>
      handle.executeUpdate<CordonResult, [CordonRequest]>(UPDATE.cordonNodes, {
        args: [{ nodes, unschedulable: true }],
      });
    const cordoned = async () => (await statusOf('closed')).unschedulable;
    // A spare, too: it may take a place some day.
    await cordon('a', 'b', 's');
    expect(await refusal(cordon('x'))).toMatchObject({
      message: 'cluster closed: there is no node x; there are head, a, b, s',
    });
    const workers = spec.nodes.provider === 'ssh' ? spec.nodes.workers : [];
    await change('closed', { add: workers });
    expect(await cordoned()).toEqual(['a', 'b', 's']);
    await change('closed', { remove: ['a'] });
    await change('closed', { drain: { nodes: ['b'], seconds: 60 } });
    expect(await cordoned()).toEqual(['b', 's']);
    await change('closed', { add: workers.filter(({ name }) => name === 'b') });
    expect(await cordoned()).toEqual(['s']);
    await stop('closed');
  });

  it('is taken down only when nothing of it is being started any more', async () => {
    installing.add('a');
    const refused = refusal(ensure(specOf('early', ['a'])));
    await eventually(() => calls.includes(`start a at ${ADDRESS.address}`));
    await stop('early');
    expect(calls.slice(-2)).toEqual(['installs no more a', 'remove head a']);
    expect(await refused).toMatchObject({ type: 'ClusterUnavailable' });
  });

  it('goes down although a host does not answer, and says which', async () => {
    await ensure(specOf('cut', ['a']));
    away.add('a');
    expect(await stop('cut')).toMatchObject({ stopped: true, left: [{ node: 'a' }] });
  });
});
