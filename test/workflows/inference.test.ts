import type { WorkflowFailedError } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import {
  ensureCluster,
  ensureFleet,
  stopCluster,
  stopFleet,
} from '../../src/activities/entities.js';
import type { InferenceInput } from '../../src/contracts/inference.js';
import {
  CONTROL_QUEUE,
  PYTHON_QUEUE,
  QUERY,
  SIGNAL,
  WORKFLOW,
  clusterWorkflowId,
  fleetQueue,
  fleetWorkflowId,
  inferenceWorkflowId,
} from '../../src/contracts/names.js';
import type { InferenceStatus } from '../../src/contracts/workflows.js';
import { ADDRESS, FakeRay, rayNode } from '../support/fake-cluster.js';
import { FakeRun, SPEC_HASH, fakeSpec } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';

let harness: Harness;
let ray: FakeRay;
let run: FakeRun;
let headRuns = false;
let headsStarted = 0;
type Fake = FakeRun['python'];

beforeAll(async () => {
  harness = await Harness.start('inference');
  await harness.serve(CONTROL_QUEUE, {
    // These call the entity workflows as they really do; only Ray itself is made up.
    ensureCluster,
    ensureFleet,
    stopCluster,
    stopFleet,
    observeFleet: async (input: Parameters<FakeRay['observeFleet']>[0]) => ray.observeFleet(input),
    observeCluster: async () => ({
      reachable: headRuns,
      nodes: headRuns ? [rayNode({ name: 'head', head: true })] : [],
      processes: headRuns ? [{ name: 'head', running: true, ageSeconds: 1 }] : [],
      ...(headRuns && { address: ADDRESS }),
    }),
    startLocalNode: async () => {
      headsStarted += 1;
      headRuns = true;
    },
    removeLocalCluster: async () => {
      headRuns = false;
    },
  });
  await harness.serve(PYTHON_QUEUE, {
    executeFleetPlan: async (input: Parameters<FakeRay['executeFleetPlan']>[0]) =>
      ray.executeFleetPlan(input),
    checkEngineArguments: async (input: Parameters<Fake['checkEngineArguments']>[0]) =>
      run.python.checkEngineArguments(input),
    planRun: async (input: Parameters<Fake['planRun']>[0]) => run.python.planRun(input),
    rankProgress: async (input: Parameters<Fake['rankProgress']>[0]) =>
      run.python.rankProgress(input),
    finalizeRun: async (input: Parameters<Fake['finalizeRun']>[0]) => run.python.finalizeRun(input),
  });
  await harness.serve(fleetQueue('models', SPEC_HASH), {
    generateBatch: async (input: Parameters<FakeRun['generateBatch']>[0]) =>
      run.generateBatch(input),
  });
});
beforeEach(() => {
  ray = new FakeRay(harness);
  headsStarted = 0;
});
afterEach(async () => ray.close());
afterAll(async () => harness.close());

const start = async (runId: string, keep = false) => {
  const input: InferenceInput = {
    run: fakeSpec(runId, run.batches.length),
    specHash: SPEC_HASH,
    cluster: { name: 'ray', nodes: { provider: 'local', workers: 0 } },
    fleet: { name: 'models', engines: 1, maxConcurrentBatches: 2 },
    affinity: 'pull',
    keep,
  };
  return harness.client.workflow.start(WORKFLOW.inference, {
    workflowId: inferenceWorkflowId(runId),
    taskQueue: CONTROL_QUEUE,
    args: [input],
  });
};

const isUp = async (workflowId: string): Promise<boolean> =>
  (await harness.client.workflow.getHandle(workflowId).describe()).status.name === 'RUNNING';

describe('inference', () => {
  it('brings up what a run needs and takes it down afterwards', async () => {
    run = new FakeRun([2, 2]);
    const handle = await start('whole');
    expect(await handle.result()).toMatchObject({
      runId: 'whole',
      state: 'completed',
      output: { succeeded: 40 },
    });
    expect(headsStarted).toBe(1);
    expect(headRuns).toBe(false);
    expect(ray.actors.size).toBe(0);
    expect(await handle.query<InferenceStatus>(QUERY.status)).toMatchObject({ phase: 'done' });
  });

  it('fails with the problems of a bad input before any engine starts', async () => {
    run = new FakeRun([1]);
    run.onPlan = () => {
      throw ApplicationFailure.nonRetryable('2 problems', 'InvalidInput', { total: 2 });
    };
    const cause = await (
      await start('bad')
    )
      .result()
      .catch((error: WorkflowFailedError) => error.cause);
    expect(cause).toMatchObject({ type: 'InvalidInput', details: [{ total: 2 }] });
    expect(ray.executed).toEqual([]);
    expect(await isUp(clusterWorkflowId('ray'))).toBe(false);
    expect(headRuns).toBe(false);
  });

  it('assembles what is done and takes everything down when it is cancelled', async () => {
    run = new FakeRun([3]);
    run.onBatch = async ({ batch }) =>
      batch === 0 ? undefined : new Promise((resolve) => setTimeout(resolve, 30_000));
    const handle = await start('cancelled');
    await eventually(() => run.committed.size === 1 && run.inFlight === 2, 40);
    await handle.signal(SIGNAL.cancelRun);
    expect(await handle.result()).toMatchObject({
      state: 'cancelled',
      output: { succeeded: 10, failed: 20 },
    });
    expect(headRuns).toBe(false);
  });

  it('ends without an output when it is cancelled before its engines are there', async () => {
    run = new FakeRun([1]);
    ray.onCanary = async () => new Promise((resolve) => setTimeout(resolve, 20_000));
    const handle = await start('early');
    await eventually(() => ray.executed.length > 0);
    await handle.cancel();
    expect(await handle.result()).toEqual({ runId: 'early', state: 'cancelled' });
    expect(ray.actors.size).toBe(0);
    expect(headRuns).toBe(false);
  });

  it('leaves the cluster and the fleet up with keep, and uses them again', async () => {
    run = new FakeRun([1]);
    await (await start('kept', true)).result();
    expect(await isUp(fleetWorkflowId('models'))).toBe(true);
    expect(headRuns).toBe(true);
    run = new FakeRun([1]);
    await (await start('second')).result();
    expect(headsStarted).toBe(1);
    expect(ray.executed).toEqual(['start 0']);
    expect(await isUp(clusterWorkflowId('ray'))).toBe(true);
    for (const [id, update] of [
      [fleetWorkflowId('models'), 'stopFleet'],
      [clusterWorkflowId('ray'), 'stopCluster'],
    ] as const) {
      await harness.client.workflow.getHandle(id).executeUpdate(update);
    }
  });
});
