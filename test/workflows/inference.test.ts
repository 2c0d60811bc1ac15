import type { WorkflowFailedError, WorkflowHandle } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { stopCluster } from '../../src/client/clusters.js';
import { fleetStatus, listFleets, scaleFleet } from '../../src/client/fleets.js';
import { runSnapshot } from '../../src/client/progress.js';
import { steerRun } from '../../src/client/steering.js';
import {
  QUERY,
  SIGNAL,
  clusterWorkflowId,
  fleetQueue,
  fleetWorkflowId,
  inferenceWorkflowId,
  rankWorkflowId,
  runWorkflowId,
} from '../../src/contracts/names.js';
import type { InferenceStatus } from '../../src/contracts/workflows.js';
import { ADDRESS, FakeRay, rayNode } from '../support/fake-cluster.js';
import { FakeRun, ROWS_PER_BATCH } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';
import { labelsOf, unlabelled } from '../support/labels.js';
import { World } from '../support/world.js';

let harness: Harness;
let world: World;

beforeAll(async () => {
  harness = await Harness.start('inference');
  world = await World.start(harness);
});
afterEach(async () => world.reset());
afterAll(async () => harness.close());

const detailsOf = async (workflowId: string): Promise<string> => {
  const handle = harness.client.workflow.getHandle(workflowId);
  return (await handle.query<{ currentDetails: string }>('__temporal_workflow_metadata'))
    .currentDetails;
};

/** How often its fleet told a run how many engines are ready. */
async function toldReady(handle: WorkflowHandle): Promise<number> {
  const { events } = await handle.fetchHistory();
  return (events ?? []).filter(
    (event) => event.workflowExecutionSignaledEventAttributes?.signalName === SIGNAL.fleetReady,
  ).length;
}

describe('inference', () => {
  it('brings up what a run needs and takes it down afterwards', async () => {
    world.run = new FakeRun([2, 2]);
    world.run.onBatch = async ({ rank, batch }, attempt) => {
      if (batch === 1 && attempt <= rank) throw ApplicationFailure.retryable('', 'EngineGone');
    };
    const handle = await world.infer('whole');
    const result = await handle.result();
    expect(result).toMatchObject({
      runId: 'whole',
      state: 'completed',
      output: { succeeded: 40 },
      usage: {
        nodes: [{ node: 'worker-1', drainingSeconds: 0 }],
        redone: { rows: 2, tokens: 16, leftTokens: 8 },
      },
    });
    expect(result).not.toHaveProperty('redone');
    expect(result.usage?.generateSeconds).toBeGreaterThan(0);
    expect(result.usage?.nodes[0]?.readySeconds).toBeGreaterThan(0);
    const ended = await runSnapshot(harness.client, 'whole');
    expect(ended.usage).toEqual(result.usage);
    expect(world.headsStarted).toBe(1);
    expect(world.headRuns).toBe(false);
    expect(world.ray.actors.size).toBe(0);
    expect(await handle.query<InferenceStatus>(QUERY.status)).toMatchObject({ phase: 'done' });
  });

  it('says what each workflow, activity and timer is for', async () => {
    world.run = new FakeRun([2]);
    const deadline = new Date(Date.now() + 3_600_000).toISOString();
    await (await world.infer('labelled', false, { deadline })).result();
    const of = async (workflowId: string) =>
      labelsOf(harness.client.workflow.getHandle(workflowId));
    const inference = await of(inferenceWorkflowId('labelled'));
    const [run, rank, fleet, cluster] = [
      await of(runWorkflowId('labelled')),
      await of(rankWorkflowId('labelled', 0)),
      await of(fleetWorkflowId('models')),
      await of(clusterWorkflowId('ray')),
    ];
    expect(run).toMatchObject({
      summary: '20 rows on 1 engine of fake-model',
      details: 'Fleet `models` on cluster `ray`',
    });
    expect(rank).toMatchObject({
      summary: 'Rank 0 of 1: 20 rows in 2 batches',
      details: 'Run `labelled`, fleet `models`',
    });
    expect(fleet).toMatchObject({
      summary: 'Engines of fake-model on cluster ray',
      details: expect.stringContaining('Model `fake-model`, task queue `fleet-models-'),
    });
    expect(cluster).toMatchObject({ summary: 'Ray cluster ray', details: expect.any(String) });
    for (const labels of [inference, run, rank, fleet, cluster]) {
      expect(unlabelled(labels)).toEqual([]);
    }
    expect(inference.steps).toContainEqual({ what: 'timer', summary: 'Deadline of the run' });
    expect(run.steps).toContainEqual({ what: 'timer', summary: 'Deadline of the run' });
    expect(rank.steps).toContainEqual({
      what: 'generateBatch',
      summary: 'Rank 0, batch 1 of 2',
    });
    expect(fleet.steps).toContainEqual({ what: 'timer', summary: 'Look at the engines again' });
  });

  it('fails with the problems of a bad input before any engine starts', async () => {
    world.run = new FakeRun([1]);
    world.run.onPlan = () => {
      throw ApplicationFailure.nonRetryable('2 problems', 'InvalidInput', { total: 2 });
    };
    const cause = await (
      await world.infer('bad')
    )
      .result()
      .catch((error: WorkflowFailedError) => error.cause);
    expect(cause).toMatchObject({ type: 'InvalidInput', details: [{ total: 2 }] });
    expect(world.ray.executed).toEqual([]);
    expect(await world.isUp(clusterWorkflowId('ray'))).toBe(false);
    expect(world.headRuns).toBe(false);
  });

  it('loads no engine on hosts that do not share the store, and asks only where there are others', async () => {
    world.run = new FakeRun([1]);
    await (await world.infer('one-machine')).result();
    expect(world.run.sharing).toEqual([]);

    const { address, dashboardUrl } = ADDRESS;
    const theirs = {
      name: 'theirs',
      nodes: { provider: 'existing', address, dashboardUrl },
    } as const;
    const onTheirs = async (runId: string, unshared?: ApplicationFailure) => {
      world.run = new FakeRun([1]);
      world.run.unshared = unshared;
      return world.infer(runId, false, { cluster: theirs });
    };
    world.headRuns = true;
    await (await onTheirs('shared')).result();
    expect(world.run.sharing).toEqual([{ store: '/store', cluster: ADDRESS, cpus: 1, gpus: 0 }]);

    const before = world.ray.executed.length;
    const apart = ApplicationFailure.nonRetryable('b: there is no folder', 'StoreNotShared');
    const cause = await (
      await onTheirs('apart', apart)
    )
      .result()
      .catch((error: WorkflowFailedError) => error.cause);
    expect(cause).toMatchObject({ type: 'StoreNotShared', message: 'b: there is no folder' });
    expect(world.ray.executed).toHaveLength(before);

    // That nobody can look says nothing of the store.
    const away = ApplicationFailure.retryable('no driver', 'ClusterUnavailable');
    expect(await (await onTheirs('unknown', away)).result()).toMatchObject({ state: 'completed' });
    expect(world.run.sharing).toHaveLength(3);
    world.headRuns = false;
  });

  it('assembles what is done and takes everything down when it is cancelled', async () => {
    world.run = new FakeRun([3]);
    world.run.onBatch = async ({ batch }) =>
      batch === 0 ? undefined : new Promise((resolve) => setTimeout(resolve, 30_000));
    const handle = await world.infer('cancelled');
    await eventually(() => world.run.committed.size === 1 && world.run.inFlight === 2, 40);
    await handle.signal(SIGNAL.cancelRun);
    expect(await handle.result()).toMatchObject({
      state: 'cancelled',
      output: { succeeded: 10, failed: 20 },
    });
    expect(world.headRuns).toBe(false);
  });

  it.each([
    ['cancelled', SIGNAL.cancelRun],
    ['drained', SIGNAL.drain],
  ])(
    'assembles what an earlier try did when it is %s before its engines are there',
    async (id, how) => {
      world.run = new FakeRun([3]);
      world.run.hasBegun();
      world.ray.onCanary = async () => new Promise((resolve) => setTimeout(resolve, 20_000));
      let held: number | undefined;
      world.run.onFinalize = () => {
        held = world.ray.actors.size;
      };
      const handle = await world.infer(`early-${id}`);
      await eventually(() => world.ray.executed.length > 0);
      await handle.signal(how);
      const { usage, ...result } = await handle.result();
      expect(result).toMatchObject({ state: 'cancelled', output: { succeeded: 10, failed: 20 } });
      expect(world.run.finalized).toEqual(['batch_cancelled']);
      expect(world.run.attempts).toEqual([]);
      // A store that is full lets this wait, and no engine is needed for it.
      expect(held).toBe(0);
      // Engines that loaded for nothing were held all the same.
      expect(usage).toMatchObject({ nodes: [{ readySeconds: 0 }] });
      expect(usage).not.toHaveProperty('generateSeconds');
      expect(world.ray.actors.size).toBe(0);
      expect(world.headRuns).toBe(false);
    },
  );

  it('assembles what an earlier try did when it is cancelled as its batches are to begin', async () => {
    world.run = new FakeRun([3]);
    world.run.hasBegun();
    let plans = 0;
    let planned = (): void => {};
    // The run itself looks at the plan once more.
    world.run.onPlan = async () => {
      plans += 1;
      if (plans === 2) await new Promise<void>((resolve) => (planned = resolve));
    };
    const handle = await world.infer('between');
    await eventually(() => plans === 2, 40);
    await handle.cancel();
    expect(await handle.result()).toMatchObject({
      state: 'cancelled',
      output: { succeeded: 10, failed: 20 },
    });
    planned();
    expect(world.run.finalized).toEqual(['batch_cancelled']);
  });

  it('ends without an output when it is cancelled before it is planned', async () => {
    world.run = new FakeRun([1]);
    let planned: (() => void) | undefined;
    world.run.onPlan = async () => new Promise((resolve) => (planned = resolve));
    const handle = await world.infer('unplanned');
    await eventually(() => planned !== undefined);
    await handle.signal(SIGNAL.cancelRun);
    expect(await handle.result()).toEqual({ runId: 'unplanned', state: 'cancelled' });
    planned?.();
    expect(world.run.finalized).toEqual([]);
    expect(world.headRuns).toBe(false);
  });

  it('fails when what is done cannot be assembled, and says why', async () => {
    world.run = new FakeRun([1]);
    world.run.onFinalize = () => {
      throw ApplicationFailure.nonRetryable('a table has changed', 'PlanCorrupt');
    };
    world.ray.onCanary = async () => new Promise((resolve) => setTimeout(resolve, 20_000));
    const handle = await world.infer('unassembled');
    await eventually(() => world.ray.executed.length > 0);
    await handle.signal(SIGNAL.cancelRun);
    const cause = await handle.result().catch((error: WorkflowFailedError) => error.cause);
    expect(cause).toMatchObject({ type: 'PlanCorrupt', message: 'a table has changed' });
    expect(world.headRuns).toBe(false);
  });

  it('leaves the cluster and the fleet up with keep, and uses them again', async () => {
    world.run = new FakeRun([1]);
    await (await world.infer('kept', true)).result();
    expect(await world.isUp(fleetWorkflowId('models'))).toBe(true);
    expect(world.headRuns).toBe(true);
    world.run = new FakeRun([1]);
    await (await world.infer('second')).result();
    expect(world.headsStarted).toBe(1);
    expect(world.ray.executed).toEqual(['start 0']);
    expect(await world.isUp(clusterWorkflowId('ray'))).toBe(true);
    // Its engines end with it, and nothing is left that would look for them.
    expect(await stopCluster(harness.client, 'ray')).toBe(true);
    expect(await world.isUp(fleetWorkflowId('models'))).toBe(false);
    expect(world.ray.actors.size).toBe(0);
    expect(world.headRuns).toBe(false);
    expect(await stopCluster(harness.client, 'ray')).toBe(false);
  });

  it('hands a pause on to the batches, takes it back, and refuses both when it is over', async () => {
    world.run = new FakeRun([6]);
    const open = world.run.holdBatches();
    await world.infer('steered');
    await eventually(() => world.run.inFlight === 3, 40);
    expect(await steerRun(harness.client, 'steered', { action: 'pause' })).toBe(true);
    await eventually(async () => {
      const { state } = await runSnapshot(harness.client, 'steered');
      return state === 'paused';
    });
    open();
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    expect(world.run.committed.size).toBe(3);
    await steerRun(harness.client, 'steered', { action: 'resume' });
    const handle = harness.client.workflow.getHandle(inferenceWorkflowId('steered'));
    expect(await handle.result()).toMatchObject({ state: 'completed' });
    expect(await steerRun(harness.client, 'steered', { action: 'pause' })).toBe(false);
  });

  it('gives its ranks more to do when its fleet is scaled up', async () => {
    world.ray.nodes = [rayNode({ cpus: 4 })];
    world.run = new FakeRun([20]);
    const open = world.run.holdBatches();
    const handle = await world.infer('scaled');
    await eventually(() => world.run.inFlight === 3, 40);
    await scaleFleet(harness.client, 'models', { engines: 3 });
    await eventually(() => world.run.inFlight === 9);
    // What it takes is seen while it goes on, too.
    const fleet = await fleetStatus(harness.client, 'models');
    expect(fleet?.usage).toMatchObject([{ user: 'inference/scaled' }]);
    open();
    expect(await handle.result()).toMatchObject({ state: 'completed' });
  });

  it('keeps more batches ready where they are so small that an engine admits more of them', async () => {
    world.run = new FakeRun([20]);
    const open = world.run.holdBatches();
    const rows = { rowsPerEngine: 3 * ROWS_PER_BATCH };
    const fleet = { name: 'models', engines: 1, maxConcurrentBatches: 2, ...rows };
    const handle = await world.infer('small-batches', false, { fleet });
    // Nine batches that have thinned out to a third, and half as many again that wait.
    await eventually(() => world.run.inFlight === 14, 40);
    open();
    expect(await handle.result()).toMatchObject({ state: 'completed' });
  });

  it('says in the web interface how far it is while it generates, and why it pauses', async () => {
    world.run = new FakeRun([4, 3]);
    const gate = { open: (): void => {} };
    const opened = new Promise<void>((resolve) => (gate.open = resolve));
    world.run.onBatch = async ({ batch }) => {
      if (batch > 0) await opened;
      if (world.run.full) throw ApplicationFailure.nonRetryable('no room', 'StoreFull');
    };
    const handle = await world.infer('numbers');
    const inference = inferenceWorkflowId('numbers');
    await eventually(() => world.run.committed.size === 2, 40);
    for (const id of [runWorkflowId('numbers'), inference]) {
      const details = await eventually(
        async () => {
          const text = await detailsOf(id);
          return text.includes('| Rows | 20 of 70 |') && text;
        },
        40,
        async () => detailsOf(id),
      );
      expect(details).toContain('| State | in_progress |');
      expect(details).toContain('| Rows failed | 0 |');
      expect(details).toContain('| Completion tokens | 160 |');
      expect(details).toMatch(/\| Completion tokens per second \| \d+ \|/u);
      expect(details).toMatch(/\| Time left \| about \d+ (?:s|min|h) \|/u);
      expect(details).toMatch(/\| As of \| 20/u);
    }
    world.run.full = true;
    gate.open();
    const paused = await eventually(async () => {
      const text = await detailsOf(inference);
      return text.includes('| State | paused |') && text;
    });
    expect(paused).toContain('| Problem | no room |');
    expect(paused).toMatch(/\| Way out \| Free some space/u);
    expect(paused).not.toContain('per second');
    const attribute = (await handle.describe()).searchAttributes['RankflowState'];
    expect(attribute).toEqual(attribute && ['paused']);
    world.run.full = false;
    await handle.result();
    const ended = await detailsOf(inference);
    expect(ended).toContain('| Rows answered | 70 |');
    expect(ended).not.toContain('Problem');
    // Its only engine was there with the answer to its own request.
    expect(await toldReady(handle)).toBe(0);
  });

  it('says in the web interface how many engines are ready, with few signals', async () => {
    world.run = new FakeRun([6]);
    const open = world.run.holdBatches();
    const gate = { open: (): void => {} };
    const opened = new Promise<void>((resolve) => (gate.open = resolve));
    world.ray.onCanary = async (slot) => (slot === 1 ? opened : undefined);
    const fleet = { name: 'models', engines: 2, maxConcurrentBatches: 2 };
    const handle = await world.infer('ready', false, { fleet });
    const shows = async (engines: string) =>
      eventually(
        async () => (await detailsOf(handle.workflowId)).includes(`| Engines | ${engines} ready`),
        45,
        async () => detailsOf(handle.workflowId),
      );
    // While they load, too.
    await shows('1 of 2');
    gate.open();
    await shows('2 of 2');
    await eventually(() => world.run.inFlight === 6, 40);
    world.ray.onCanary = async () => new Promise(() => {});
    await world.ray.die(0);
    await shows('1 of 2');
    open();
    expect(await handle.result()).toMatchObject({ state: 'completed' });
    expect(await detailsOf(handle.workflowId)).not.toContain('| Engines |');
    expect(await toldReady(handle)).toBe(2);
  });

  it('lets a fleet grow that scales by itself only since the run goes on', async () => {
    world.ray.nodes = [rayNode({ cpus: 8 })];
    world.run = new FakeRun([40]);
    const open = world.run.holdBatches();
    const handle = await world.infer('limits');
    await eventually(() => world.run.inFlight === 3, 40);
    const scaling = { minEngines: 1, maxEngines: 4, idleSeconds: 60 };
    await scaleFleet(harness.client, 'models', { scaling });
    // A window for four engines, though there is one: otherwise no batch would wait for them.
    await eventually(() => world.run.inFlight === 12);
    world.ray.backlog = 12;
    await eventually(async () => (await fleetStatus(harness.client, 'models'))?.ready === 4, 40);
    await scaleFleet(harness.client, 'models', { engines: 5 });
    await eventually(() => world.run.inFlight === 15);
    open();
    expect(await handle.result()).toMatchObject({ state: 'completed' });
  });

  it('keeps enough batches waiting for a fleet that another run lets scale by itself', async () => {
    world.ray.nodes = [rayNode({ cpus: 8 })];
    world.run = new FakeRun([20]);
    const open = world.run.holdBatches();
    const first = await world.infer('elastic-first');
    await eventually(() => world.run.inFlight === 3, 40);
    const scaling = { minEngines: 1, maxEngines: 2, idleSeconds: 60 };
    const fleet = { name: 'models', engines: 1, maxConcurrentBatches: 2, scaling };
    const second = await world.infer('elastic-second', false, { fleet });
    await eventually(() => world.run.inFlight === 12, 40);
    // The third asks for nothing, and learns how the fleet is.
    const third = await world.infer('elastic-third');
    await eventually(() => world.run.inFlight === 18, 40);
    open();
    for (const handle of [first, second, third]) {
      expect(await handle.result()).toMatchObject({ state: 'completed' });
    }
  });

  it('that expires before its engines are there accounts for every row', async () => {
    world.run = new FakeRun([2]);
    world.ray.onCanary = async () => new Promise((resolve) => setTimeout(resolve, 60_000));
    const deadline = new Date(Date.now() + 6_000).toISOString();
    const handle = await world.infer('expired', false, { deadline });
    expect(await handle.result()).toMatchObject({ state: 'expired', output: { failed: 20 } });
    expect(world.run.finalized).toEqual(['batch_expired']);
    expect(world.headRuns).toBe(false);
  });

  it('shares a fleet with another run and the cluster with another model', async () => {
    const other = new FakeRay(harness);
    world.others.set('others', other);
    world.run = new FakeRun([2]);
    const open = world.run.holdBatches();
    const otherHash = 'ffff0123456789abcdef';
    await harness.serve(fleetQueue('others', otherHash), {
      generateBatch: async (input: Parameters<FakeRun['generateBatch']>[0]) =>
        world.run.generateBatch(input),
    });
    const handles = [
      await world.infer('one'),
      await world.infer('two'),
      await world.infer('third', false, {
        specHash: otherHash,
        fleet: { name: 'others', engines: 1, maxConcurrentBatches: 2 },
      }),
    ];
    await eventually(() => world.run.inFlight === 6, 60);
    expect((await listFleets(harness.client)).toSorted()).toEqual(['models', 'others']);
    const users = (await fleetStatus(harness.client, 'models'))?.users;
    expect(users?.toSorted()).toEqual(['inference/one', 'inference/two']);
    expect([world.ray.actors.size, other.actors.size]).toEqual([1, 1]);
    open();
    for (const handle of handles) {
      expect(await handle.result()).toMatchObject({ state: 'completed' });
    }
    expect(world.headsStarted).toBe(1);
    expect([world.ray.actors.size, other.actors.size]).toEqual([0, 0]);
    expect(world.headRuns).toBe(false);
  });
});
