import { ApplicationFailure, type WorkflowHandle } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import {
  CONTROL_QUEUE,
  QUERY,
  SIGNAL,
  WORKFLOW,
  runWorkflowId,
} from '../../src/contracts/names.js';
import type { RunProgress, RunWorkflowInput } from '../../src/contracts/workflows.js';
import { FakeRun, SPEC_HASH, fakeSpec } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';
import { serveRun } from '../support/serve-run.js';

let harness: Harness;
let run: FakeRun;

beforeAll(async () => {
  harness = await Harness.start('store-full');
  await serveRun(harness, () => run);
});
afterAll(async () => harness.close());

const start = async (runId: string): Promise<WorkflowHandle> => {
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

const failWhileFull = (): void => {
  if (run.full) throw ApplicationFailure.nonRetryable('no room for 0-1', 'StoreFull');
};

const paused = async (handle: WorkflowHandle): Promise<RunProgress> =>
  eventually(async () => {
    const progress = await handle.query<RunProgress>(QUERY.progress);
    return progress.state === 'paused' && progress;
  });

const inState = async (handle: WorkflowHandle, state: RunProgress['state']): Promise<void> => {
  await eventually(async () => (await handle.query<RunProgress>(QUERY.progress)).state === state);
};

const WAY_OUT = 'Free some space on /store; the run goes on by itself.';

describe('a run whose store is full', () => {
  it('pauses while it generates, says the way out, and goes on with what is recorded', async () => {
    run = new FakeRun([5, 4]);
    let room = 3;
    run.onBatch = async () => {
      room -= 1;
      if (room < 0) run.full = true;
      failWhileFull();
    };
    const handle = await start('generating');
    expect((await paused(handle)).problem).toEqual({
      type: 'StoreFull',
      message: 'no room for 0-1',
      wayOut: WAY_OUT,
    });
    const { currentDetails } = await handle.query<{ currentDetails: string }>(
      '__temporal_workflow_metadata',
    );
    expect(currentDetails).toContain('| State | paused |');
    expect(currentDetails).toContain(`| Way out | ${WAY_OUT} |`);
    const before = new Set(run.committed.keys());
    expect(before.size).toBe(3);
    await eventually(() => run.looks.length >= 3);
    run.attempts.length = 0;
    room = Infinity;
    run.full = false;
    expect(await handle.result()).toMatchObject({
      state: 'completed',
      output: { rows: 90, succeeded: 90, failed: 0 },
    });
    expect(run.attempts.some((batch) => before.has(batch))).toBe(false);
    expect(await handle.query<RunProgress>(QUERY.progress)).not.toHaveProperty('problem');
  });

  it('is told of each pause of a rank once, however many batches the rank holds up', async () => {
    run = new FakeRun([9]);
    run.full = true;
    run.onBatch = async () => {
      // All batches of the window fail one after the other.
      await new Promise((resolve) => setTimeout(resolve, 100 * run.inFlight));
      failWhileFull();
    };
    const handle = await start('signals');
    await paused(handle);
    await eventually(() => run.looks.length >= 2);
    run.full = false;
    await handle.result();
    const { events } = await handle.fetchHistory();
    const signals = (events ?? []).filter(
      ({ workflowExecutionSignaledEventAttributes: signal }) =>
        signal?.signalName === SIGNAL.rankPaused,
    );
    expect(signals).toHaveLength(2);
  });

  it('adds nothing to its history while it looks for room', async () => {
    run = new FakeRun([1]);
    run.full = true;
    run.onBatch = async () => failWhileFull();
    const handle = await start('long-pause');
    await paused(handle);
    const rank = harness.client.workflow.getHandle(`${runWorkflowId('long-pause')}/rank-0`);
    const length = async (): Promise<number> => (await rank.describe()).historyLength;
    const before = await length();
    const looks = run.looks.length;
    await eventually(() => run.looks.length >= looks + 2);
    expect(await length()).toBe(before);
    run.full = false;
    await handle.result();
  });

  it('pauses while it plans, and while it assembles the output', async () => {
    run = new FakeRun([1]);
    run.full = true;
    run.onPlan = failWhileFull;
    const details = { neededBytes: 12_345 };
    run.onFinalize = () => {
      if (run.full) throw ApplicationFailure.nonRetryable('no room', 'StoreFull', details);
    };
    const handle = await start('planning');
    expect(await paused(handle)).toMatchObject({ problem: { type: 'StoreFull' }, ranks: [] });
    run.onBatch = async () => {
      run.full = true;
    };
    run.looks.length = 0;
    run.full = false;
    await eventually(() => run.committed.size === 1);
    expect(await paused(handle)).toMatchObject({ ranks: [{ state: 'completed' }] });
    await eventually(() => run.looks.at(-1)?.neededBytes === 12_345);
    run.full = false;
    expect(await handle.result()).toMatchObject({ state: 'completed' });
  });

  it('is not tried without end when every look finds room and the work finds none', async () => {
    run = new FakeRun([1]);
    run.onBatch = async () => {
      throw ApplicationFailure.nonRetryable('disk quota exceeded', 'StoreFull');
    };
    const handle = await start('quota');
    await eventually(() => run.attempts.length === 2);
    await new Promise((resolve) => setTimeout(resolve, 4_000));
    expect(run.attempts).toHaveLength(2);
    await paused(handle);
    await handle.signal(SIGNAL.cancelRun);
    expect(await handle.result()).toMatchObject({ state: 'cancelled' });
  });

  it('can be cancelled while it pauses, and keeps what is done', async () => {
    run = new FakeRun([2]);
    run.onBatch = async ({ batch }) => {
      if (batch === 1) run.full = true;
      failWhileFull();
    };
    const handle = await start('cancelled');
    await paused(handle);
    run.full = false;
    run.onBatch = async () => new Promise(() => {});
    run.full = true;
    await handle.signal(SIGNAL.cancelRun);
    expect(await handle.result()).toMatchObject({ state: 'cancelled' });
    expect(run.finalized).toEqual(['batch_cancelled']);
    await inState(handle, 'cancelled');
  });
});
