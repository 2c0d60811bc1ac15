import type { WorkflowFailedError } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { stopCluster } from '../../src/client/clusters.js';
import { QUERY, SIGNAL, clusterWorkflowId, fleetWorkflowId } from '../../src/contracts/names.js';
import type { InferenceStatus } from '../../src/contracts/workflows.js';
import { FakeRun } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';
import { World } from '../support/world.js';

let harness: Harness;
let world: World;

beforeAll(async () => {
  harness = await Harness.start('inference');
  world = await World.start(harness);
});
afterEach(async () => world.reset());
afterAll(async () => harness.close());

describe('inference', () => {
  it('brings up what a run needs and takes it down afterwards', async () => {
    world.run = new FakeRun([2, 2]);
    const handle = await world.infer('whole');
    expect(await handle.result()).toMatchObject({
      runId: 'whole',
      state: 'completed',
      output: { succeeded: 40 },
    });
    expect(world.headsStarted).toBe(1);
    expect(world.headRuns).toBe(false);
    expect(world.ray.actors.size).toBe(0);
    expect(await handle.query<InferenceStatus>(QUERY.status)).toMatchObject({ phase: 'done' });
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

  it('ends without an output when it is cancelled before its engines are there', async () => {
    world.run = new FakeRun([1]);
    world.ray.onCanary = async () => new Promise((resolve) => setTimeout(resolve, 20_000));
    const handle = await world.infer('early');
    await eventually(() => world.ray.executed.length > 0);
    await handle.cancel();
    expect(await handle.result()).toEqual({ runId: 'early', state: 'cancelled' });
    expect(world.ray.actors.size).toBe(0);
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
});
