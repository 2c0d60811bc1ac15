import { WithStartWorkflowOperation, type WorkflowUpdateFailedError } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import type { ClusterObservation, ControlActivities } from '../../src/contracts/activities.js';
import type { ClusterSpec } from '../../src/contracts/cluster.js';
import {
  CONTROL_QUEUE,
  QUERY,
  SIGNAL,
  UPDATE,
  WORKFLOW,
  clusterWorkflowId,
} from '../../src/contracts/names.js';
import type { PreemptionNotice } from '../../src/contracts/preemption.js';
import type {
  ClusterStatus,
  CordonRequest,
  CordonResult,
  EnsureClusterRequest,
  EnsuredCluster,
  StopRequest,
  StopResult,
} from '../../src/contracts/workflows.js';
import { ADDRESS, rayNode } from '../support/fake-cluster.js';
import { Harness, eventually } from '../support/harness.js';

/** Nodes of a host as a set of names; Ray knows a node as soon as it runs, and the lost ones too. */
const running = new Set<string>();
/** Each start of a node is another node for Ray. */
const joined: { readonly name: string; readonly nodeId: string }[] = [];
const calls: string[] = [];
let startNode: ControlActivities['startLocalNode'];
let endLost = async (): Promise<{ ended: boolean }> => ({ ended: false });

type Control = Partial<ControlActivities>;
const activities: Control = {
  observeCluster: async ({ spec }): Promise<ClusterObservation> => {
    const processes = [...running].map((name) => ({ name, running: true, ageSeconds: 1 }));
    if (spec.nodes.provider === 'existing') {
      return { reachable: true, address: ADDRESS, nodes: [rayNode({ head: true })], processes: [] };
    }
    if (!running.has('head')) return { reachable: false, nodes: [], processes };
    const nodes = joined.map(({ name, nodeId }) => {
      const present = joined.findLast((one) => one.name === name)?.nodeId === nodeId;
      return rayNode({ name, nodeId, head: name === 'head', alive: present && running.has(name) });
    });
    return { reachable: true, address: ADDRESS, nodes, processes };
  },
  startLocalNode: async (input) => startNode(input),
  endLocalNode: async ({ node }) => {
    calls.push(`end ${node}`);
    running.delete(node);
  },
  removeLocalCluster: async () => {
    calls.push('remove');
    running.clear();
  },
  endLostCluster: async () => endLost(),
};

let harness: Harness;
beforeAll(async () => {
  harness = await Harness.start('cluster');
  await harness.serve(CONTROL_QUEUE, activities);
});
beforeEach(() => {
  running.clear();
  joined.length = 0;
  calls.length = 0;
  endLost = async () => ({ ended: false });
  startNode = async ({ node }) => {
    calls.push(`start ${node}`);
    joined.push({ name: node, nodeId: `${node}/${joined.length}` });
    running.add(node);
  };
});
afterAll(async () => harness.close());

const local = (name: string, workers: number): ClusterSpec => ({
  name,
  nodes: { provider: 'local', workers },
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
const stop = async (name: string, request: StopRequest = {}) =>
  handleOf(name).executeUpdate<StopResult, [StopRequest]>(UPDATE.stopCluster, { args: [request] });
const statusOf = async (name: string) => handleOf(name).query<ClusterStatus>(QUERY.status);
const cordon = async (name: string, unschedulable: boolean, ...nodes: readonly string[]) =>
  handleOf(name).executeUpdate<CordonResult, [CordonRequest]>(UPDATE.cordonNodes, {
    args: [{ nodes, unschedulable }],
  });
const refusal = async (update: Promise<unknown>): Promise<unknown> =>
  update.then(
    () => 'no refusal',
    (error: WorkflowUpdateFailedError) => error.cause,
  );

describe('a cluster', () => {
  it('ends what a lost database left running before it brings up nodes of its own', async () => {
    running.add('head').add('worker-1');
    endLost = async () => {
      calls.push('end lost');
      running.clear();
      return { ended: true };
    };
    await ensure(local('lost', 1));
    expect(calls).toEqual(['end lost', 'start head', 'start worker-1']);
    await stop('lost');
  });

  it('brings up the head, then the workers, and takes all down', async () => {
    expect(await ensure(local('whole', 2), 'me')).toEqual({ address: ADDRESS, startedHere: true });
    expect(calls[0]).toBe('start head');
    expect(calls.slice(1).toSorted()).toEqual(['start worker-1', 'start worker-2']);
    expect(await statusOf('whole')).toMatchObject({ state: 'ready', address: ADDRESS });
    expect(await ensure(local('whole', 2), 'other')).toMatchObject({ startedHere: false });
    expect(calls).toHaveLength(3);
    expect(await stop('whole', { user: 'me' })).toEqual({ stopped: false });
    expect(await stop('whole', { user: 'other' })).toEqual({ stopped: true });
    expect(calls.at(-1)).toBe('remove');
    await handleOf('whole').result();
  });

  it('starts its head again when that is lost while a worker joins, at first too', async () => {
    const join = startNode;
    startNode = async (input) => {
      if (input.node === 'worker-1' && !calls.includes('lost head')) {
        calls.push('lost head');
        running.delete('head');
        throw ApplicationFailure.nonRetryable('the head ended', 'ClusterUnavailable');
      }
      return join(input);
    };
    expect(await ensure(local('headless', 1), 'me')).toMatchObject({ startedHere: true });
    expect(calls.slice(0, 2)).toEqual(['start head', 'lost head']);
    expect(calls.slice(2)).toEqual(expect.arrayContaining(['start head', 'start worker-1']));
    await stop('headless', { user: 'me' });
  });

  it('fails when its head is lost under its workers again and again', async () => {
    const join = startNode;
    startNode = async (input) => {
      if (input.node === 'head') return join(input);
      running.delete('head');
      throw ApplicationFailure.nonRetryable('the head ended', 'ClusterUnavailable');
    };
    expect(await refusal(ensure(local('crashing', 1)))).toMatchObject({
      message: expect.stringContaining('the head ended'),
    });
    expect(calls.filter((call) => call === 'start head')).toHaveLength(5);
  });

  it('refuses other nodes under its name', async () => {
    await ensure(local('taken', 0));
    expect(await refusal(ensure(local('taken', 1)))).toMatchObject({
      type: 'ClusterMismatch',
      message: expect.stringMatching(/up as a head node alone, and a head node with 1 worker/u),
    });
    await stop('taken');
  });

  it('fails with the log of the node that does not start, and leaves nothing', async () => {
    startNode = async () => {
      throw ApplicationFailure.nonRetryable('head.log ends with: boom', 'ClusterStartFailed');
    };
    const cause = await refusal(ensure(local('broken', 0)));
    expect(cause).toMatchObject({
      type: 'ClusterStartFailed',
      message: 'head.log ends with: boom',
    });
    await eventually(() => calls.includes('remove'));
  });

  it('starts a worker again that is lost', { timeout: 90_000 }, async () => {
    await ensure(local('healing', 1));
    running.delete('worker-1');
    calls.length = 0;
    await eventually(() => calls.includes('start worker-1'), 60);
    await eventually(async () => (await statusOf('healing')).state === 'ready');
    await stop('healing');
  });

  it(
    'shows a node that drains, and starts its successor when its time is over',
    { timeout: 90_000 },
    async () => {
      await ensure(local('spot', 1));
      const worker = async () =>
        (await statusOf('spot')).nodes.find(({ role }) => role === 'worker');
      const nodeId = (await worker())?.nodeId ?? '';
      const deadline = Date.now() + 8_000;
      const notice: PreemptionNotice = { nodeId, source: 'aws', deadline };
      await handleOf('spot').signal(SIGNAL.preemptionNotice, notice);
      await eventually(async () => (await worker())?.state === 'draining');
      expect((await worker())?.deadline).toBe(new Date(deadline).toISOString());
      await eventually(async () => (await statusOf('spot')).state === 'degraded');

      calls.length = 0;
      running.delete('worker-1');
      await eventually(() => calls.includes('start worker-1'), 60);
      expect(Date.now()).toBeGreaterThanOrEqual(deadline);
      await eventually(async () => (await statusOf('spot')).state === 'ready');
      expect(await worker()).toMatchObject({ state: 'alive' });
      expect((await worker())?.nodeId).not.toBe(nodeId);
      await stop('spot');
    },
  );

  it(
    'has nodes cordoned by their names, also when they start again',
    { timeout: 90_000 },
    async () => {
      await ensure(local('closed', 2));
      const shown = async () =>
        (await statusOf('closed')).nodes.map(
          ({ name, state, unschedulable }) => `${name} ${state}${unschedulable ? ' cordoned' : ''}`,
        );
      expect(await cordon('closed', true, 'worker-1', 'head')).toEqual({
        changed: ['worker-1', 'head'],
        unschedulable: ['worker-1', 'head'],
      });
      expect(await cordon('closed', true, 'worker-1')).toMatchObject({ changed: [] });
      expect(await refusal(cordon('closed', true, 'worker-2', 'worker-9'))).toMatchObject({
        type: 'ClusterMismatch',
        message: 'cluster closed: there is no node worker-9; there are head, worker-1, worker-2',
        details: [{ wayOut: expect.stringContaining('`rankflow cluster status closed`') }],
      });
      expect(await shown()).toEqual([
        'head alive cordoned',
        'worker-1 alive cordoned',
        'worker-2 alive',
      ]);
      expect(await statusOf('closed')).toMatchObject({
        state: 'ready',
        unschedulable: ['worker-1', 'head'],
      });

      const idOf = async () => (await statusOf('closed')).nodes[1]?.nodeId;
      const before = await idOf();
      running.delete('worker-1');
      await eventually(
        async () => (await idOf()) !== before && (await statusOf('closed')).state === 'ready',
        60,
      );
      expect((await shown())[1]).toBe('worker-1 alive cordoned');

      expect(await cordon('closed', false, 'worker-1', 'worker-2', 'head')).toEqual({
        changed: ['worker-1', 'head'],
        unschedulable: [],
      });
      const status = await statusOf('closed');
      expect(status.unschedulable).toBeUndefined();
      expect(status.events?.map(({ node, what }) => `${node} ${what}`)).toEqual(
        expect.arrayContaining(['worker-1 is cordoned', 'worker-1 is uncordoned']),
      );
      await stop('closed');
    },
  );

  it('is only looked at when somebody else owns it', async () => {
    const spec: ClusterSpec = {
      name: 'theirs',
      nodes: {
        provider: 'existing',
        address: ADDRESS.address,
        dashboardUrl: ADDRESS.dashboardUrl,
      },
    };
    expect(await ensure(spec, 'me')).toMatchObject({ address: ADDRESS });
    // By Ray's names of its nodes they can be cordoned all the same.
    expect(await cordon('theirs', true, 'worker-1')).toMatchObject({ changed: ['worker-1'] });
    expect(await refusal(cordon('theirs', true, 'head'))).toMatchObject({
      message: 'cluster theirs: there is no node head; there are worker-1',
    });
    expect((await statusOf('theirs')).nodes).toMatchObject([{ unschedulable: true }]);
    await stop('theirs');
    expect(calls).toEqual([]);
  });

  it('ends what it was starting when it is stopped meanwhile', async () => {
    let started = false;
    startNode = async () => {
      started = true;
      const { Context } = await import('@temporalio/activity');
      for (;;) {
        Context.current().heartbeat();
        await Context.current().sleep(100);
      }
    };
    const ensured = refusal(ensure(local('stopped', 0), 'me'));
    await eventually(() => started);
    expect(await stop('stopped', { user: 'me' })).toEqual({ stopped: true });
    expect(await ensured).toMatchObject({ type: 'ClusterUnavailable' });
    expect(calls).toEqual(['remove']);
  });
});
