import { ApplicationFailure } from '@temporalio/common';
import type { WorkflowFailedError } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import {
  CONTROL_QUEUE,
  QUERY,
  SIGNAL,
  WORKFLOW,
  rankWorkflowId,
  runWorkflowId,
} from '../../src/contracts/names.js';
import type { RunProgress, RunResult, RunWorkflowInput } from '../../src/contracts/workflows.js';
import { FakeRun, SPEC_HASH, fakeSpec } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';
import { serveRun } from '../support/serve-run.js';

let harness: Harness;
let run: FakeRun;

beforeAll(async () => {
  harness = await Harness.start('run');
  await serveRun(harness, () => run);
});
afterAll(async () => harness.close());

const start = async (runId: string) => {
  const input: RunWorkflowInput = {
    spec: fakeSpec(runId, run.batches.length),
    specHash: SPEC_HASH,
    fleet: { name: 'fleet', engines: 2, maxConcurrentBatches: 2 },
    affinity: 'pull',
  };
  return harness.client.workflow.start(WORKFLOW.run, {
    workflowId: runWorkflowId(runId),
    taskQueue: CONTROL_QUEUE,
    args: [input],
  });
};

const causeOf = async (result: Promise<unknown>): Promise<unknown> =>
  result.then(
    () => undefined,
    (error: WorkflowFailedError) => error.cause,
  );

const forAWhile = async (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 30_000));

describe('a run', () => {
  it('plans, generates all ranks and assembles the output', async () => {
    run = new FakeRun([3, 2, 0]);
    const handle = await start('whole');
    expect(await handle.result()).toMatchObject({
      runId: 'whole',
      state: 'completed',
      output: { rows: 50, succeeded: 50, failed: 0 },
    });
    const progress = await handle.query<RunProgress>(QUERY.progress);
    expect(progress).toMatchObject({ state: 'completed', finished: { rows: 50, batches: 5 } });
    expect(progress.ranks.map(({ state }) => state)).toEqual([
      'completed',
      'completed',
      'completed',
    ]);
  });

  it('generates nothing when its manifest is already there', async () => {
    run = new FakeRun([2]);
    run.committed.set('0/0', { rank: 0 } as never).set('0/1', { rank: 0 } as never);
    run.finalized.push('refuse');
    expect((await (await start('finished')).result()) as RunResult).toMatchObject({
      state: 'completed',
    });
    expect(run.attempts).toEqual([]);
  });

  it('fails with all problems of a bad input, and generates nothing', async () => {
    run = new FakeRun([1]);
    const details = { problems: [{ line: 3, code: 'invalid_json', message: 'no JSON' }], total: 1 };
    run.onPlan = () => {
      throw ApplicationFailure.nonRetryable('1 problem', 'InvalidInput', details);
    };
    const handle = await start('bad-input');
    const cause = await causeOf(handle.result());
    expect(cause).toMatchObject({ type: 'InvalidInput', details: [details] });
    expect(run.attempts).toEqual([]);
    expect(await handle.query<RunProgress>(QUERY.progress)).toMatchObject({
      state: 'failed',
      problem: { type: 'InvalidInput' },
    });
  });

  it('keeps what is done and records the rest as cancelled when it is cancelled', async () => {
    run = new FakeRun([3, 1]);
    run.onBatch = async ({ rank, batch }) => (rank === 0 && batch === 0 ? undefined : forAWhile());
    const handle = await start('cancelled');
    await eventually(() => run.committed.size === 1 && run.inFlight === 3);
    await handle.signal(SIGNAL.cancelRun);
    expect(await handle.result()).toMatchObject({
      state: 'cancelled',
      output: { succeeded: 10, failed: 30 },
    });
    expect(run.finalized).toEqual(['batch_cancelled']);
    expect(run.inFlight).toBe(0);
  });

  it("takes a Temporal cancellation like the user's", async () => {
    run = new FakeRun([2]);
    run.onBatch = forAWhile;
    const handle = await start('cancelled-by-temporal');
    await eventually(() => run.inFlight === 2);
    await handle.cancel();
    expect(await handle.result()).toMatchObject({ state: 'cancelled' });
    expect(run.finalized).toEqual(['batch_cancelled']);
  });

  it('fails with the reason of the rank that failed, and stops the other ranks', async () => {
    run = new FakeRun([2, 2]);
    run.onBatch = async ({ rank }) => {
      if (rank === 1) throw ApplicationFailure.nonRetryable('table changed', 'PlanCorrupt');
      await forAWhile();
    };
    const handle = await start('broken');
    expect(await causeOf(handle.result())).toMatchObject({
      type: 'PlanCorrupt',
      message: 'table changed',
    });
    expect(run.inFlight).toBe(0);
    const other = harness.client.workflow.getHandle(rankWorkflowId('broken', 0));
    expect((await other.describe()).status.name).toBe('CANCELLED');
  });

  it('continues from the commits when it is started again after a failure', async () => {
    run = new FakeRun([4]);
    run.onBatch = async ({ batch }) => {
      if (batch === 3) throw ApplicationFailure.nonRetryable('once', 'PlanCorrupt');
    };
    await causeOf((await start('again')).result());
    const before = new Set(run.committed.keys());
    run.attempts.length = 0;
    run.onBatch = async () => {};
    expect(await (await start('again')).result()).toMatchObject({ state: 'completed' });
    expect(run.attempts.some((batch) => before.has(batch))).toBe(false);
  });
});
