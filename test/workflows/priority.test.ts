import type { WorkflowHandle } from '@temporalio/client';
import type { Worker } from '@temporalio/worker';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { waitingBatches } from '../../src/client/fleets.js';
import { priorityOf } from '../../src/client/runs.js';
import type { InferenceInput } from '../../src/contracts/inference.js';
import {
  CONTROL_QUEUE,
  PYTHON_QUEUE,
  WORKFLOW,
  fleetQueue,
  rankWorkflowId,
  runWorkflowId,
} from '../../src/contracts/names.js';
import type { GenerateBatchInput } from '../../src/contracts/run.js';
import type { RunWorkflowInput } from '../../src/contracts/workflows.js';
import { FakeRun, SPEC_HASH, fakeSpec } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';

let harness: Harness;
let engine: Worker | undefined;
/** Runs of the batches in the order in which the engine took them. */
let taken: string[];
/** Batches that were scheduled before the engine was there. */
let waiting: number;
const runs = new Map<string, FakeRun>();
type Fake = FakeRun['python'];

beforeAll(async () => {
  harness = await Harness.start('priority');
  const of = ({ runId }: { readonly runId: string }) => (runs.get(runId) as FakeRun).python;
  await harness.serve(CONTROL_QUEUE, {});
  await harness.serve(PYTHON_QUEUE, {
    planRun: async (input: Parameters<Fake['planRun']>[0]) => of(input.spec).planRun(input),
    rankProgress: async (input: Parameters<Fake['rankProgress']>[0]) =>
      of(input).rankProgress(input),
    finalizeRun: async (input: Parameters<Fake['finalizeRun']>[0]) => of(input).finalizeRun(input),
  });
});
beforeEach(() => {
  taken = [];
  waiting = 0;
  runs.clear();
});
afterEach(async () => {
  if (engine !== undefined) await harness.end(engine);
  engine = undefined;
});
afterAll(async () => harness.close());

/** Starts a run whose batches all wait in the queue of the fleet. */
async function queued(
  runId: string,
  batches: number,
  priority?: InferenceInput['priority'],
): Promise<WorkflowHandle> {
  runs.set(runId, new FakeRun([batches]));
  const spec = fakeSpec(runId, 1);
  const input: RunWorkflowInput = {
    spec,
    specHash: SPEC_HASH,
    fleet: { name: 'fleet', engines: 20, maxConcurrentBatches: 2 },
    affinity: 'pull',
  };
  const handle = await harness.client.workflow.start(WORKFLOW.run, {
    workflowId: runWorkflowId(runId),
    taskQueue: CONTROL_QUEUE,
    args: [input],
    priority: priorityOf({ run: spec, ...(priority && { priority }) } as InferenceInput),
  });
  await eventually(async () => {
    const rank = harness.client.workflow.getHandle(rankWorkflowId(runId, 0));
    const description = await rank.describe().catch(() => undefined);
    return description?.raw.pendingActivities?.length === Math.min(batches, 60);
  });
  waiting += Math.min(batches, 60);
  // Scheduled is not yet queued, and what comes to the queue late is shared out late.
  await eventually(async () => (await backlog()) >= waiting);
  return handle;
}

const backlog = async (): Promise<number> =>
  (await waitingBatches(harness.client, fleetQueue('fleet', SPEC_HASH))) ?? 0;

/** One engine that takes one batch at a time. */
async function serve(): Promise<void> {
  const generateBatch = async (input: GenerateBatchInput) => {
    taken.push(input.runId);
    return (runs.get(input.runId) as FakeRun).generateBatch(input);
  };
  engine = await harness.serve(fleetQueue('fleet', SPEC_HASH), { generateBatch }, 1);
}

/** How many of the first batches were those of a run. */
const among = (runId: string, first: number): number =>
  taken.slice(0, first).filter((id) => id === runId).length;

describe('runs that share a fleet', { timeout: 90_000 }, () => {
  it('go first by their priority, whichever was there before', async () => {
    const low = await queued('low', 30, { key: 5, weight: 1 });
    const high = await queued('high', 30, { key: 1, weight: 1 });
    await serve();
    await Promise.all([low.result(), high.result()]);
    // One or two that the server had at hand go before.
    expect(among('high', 30)).toBeGreaterThanOrEqual(27);
    expect(taken).toHaveLength(60);
  });

  it('take turns otherwise: a small one does not wait for a large one', async () => {
    const large = await queued('large', 40);
    const small = await queued('small', 5);
    await serve();
    await Promise.all([large.result(), small.result()]);
    // In the order in which they came it would be none of the first forty.
    expect(among('small', 30)).toBeGreaterThanOrEqual(4);
  });

  it('share by their weights', async () => {
    const light = await queued('light', 30, { key: 3, weight: 1 });
    const heavy = await queued('heavy', 30, { key: 3, weight: 100 });
    await serve();
    await Promise.all([light.result(), heavy.result()]);
    // Of equal ones it would be fifteen, in the order in which they came none.
    expect(among('heavy', 30)).toBeGreaterThanOrEqual(26);
  });

  it('keep their priority in the next history of a rank', async () => {
    await serve();
    runs.set('long', new FakeRun([401]));
    const spec = fakeSpec('long', 1);
    const handle = await harness.client.workflow.start(WORKFLOW.run, {
      workflowId: runWorkflowId('long'),
      taskQueue: CONTROL_QUEUE,
      args: [
        {
          spec,
          specHash: SPEC_HASH,
          fleet: { name: 'fleet', engines: 8, maxConcurrentBatches: 2 },
          affinity: 'pull',
        },
      ],
      priority: { priorityKey: 2, fairnessKey: 'long', fairnessWeight: 2 },
    });
    await handle.result();
    const rank = harness.client.workflow.getHandle(rankWorkflowId('long', 0));
    const { raw, runId } = await rank.describe();
    expect(raw.workflowExecutionInfo?.firstRunId).not.toBe(runId);
    expect(raw.workflowExecutionInfo?.priority).toMatchObject({
      priorityKey: 2,
      fairnessKey: 'long',
    });
  });
});
