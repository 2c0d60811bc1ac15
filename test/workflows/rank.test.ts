import { ApplicationFailure, WorkflowFailedError } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import {
  CONTROL_QUEUE,
  PYTHON_QUEUE,
  QUERY,
  WORKFLOW,
  fleetQueue,
  rankWorkflowId,
  slotQueue,
} from '../../src/contracts/names.js';
import type { GenerateBatchInput } from '../../src/contracts/run.js';
import type {
  RankProgressView,
  RankResult,
  RankWorkflowInput,
} from '../../src/contracts/workflows.js';
import { FakeRun, ROWS_PER_BATCH, SPEC_HASH } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';

let harness: Harness;
let run: FakeRun;

beforeAll(async () => {
  harness = await Harness.start('rank');
  // The runs of the tests follow each other: the workers serve whichever is the present one.
  await harness.serve(CONTROL_QUEUE, {});
  await harness.serve(PYTHON_QUEUE, {
    rankProgress: async (input: Parameters<typeof run.python.rankProgress>[0]) =>
      run.python.rankProgress(input),
    checkStoreRoom: async (input: Parameters<typeof run.python.checkStoreRoom>[0]) =>
      run.python.checkStoreRoom(input),
  });
  await harness.serve(fleetQueue('fleet', SPEC_HASH), {
    generateBatch: async (input: Parameters<typeof run.generateBatch>[0]) =>
      run.generateBatch(input),
  });
});
afterAll(async () => harness.close());

function inputOf(runId: string, change: Partial<RankWorkflowInput> = {}): RankWorkflowInput {
  const batches = run.batches[0] ?? 0;
  return {
    runId,
    store: '/store',
    specHash: SPEC_HASH,
    rank: 0,
    ranks: 1,
    rows: batches * ROWS_PER_BATCH,
    batches,
    fleet: { name: 'fleet', engines: 2, maxConcurrentBatches: 2 },
    affinity: 'pull',
    ...change,
  };
}

const start = async (runId: string, change: Partial<RankWorkflowInput> = {}) =>
  harness.client.workflow.start(WORKFLOW.rank, {
    workflowId: rankWorkflowId(runId, 0),
    taskQueue: CONTROL_QUEUE,
    args: [inputOf(runId, change)],
  });

const finish = async (runId: string, change: Partial<RankWorkflowInput> = {}) =>
  (await (await start(runId, change)).result()) as RankResult;

/** An engine that polls its own queue for the present run. */
const serveSlot = async (slot: number) =>
  harness.serve(slotQueue('fleet', SPEC_HASH, slot), {
    generateBatch: async (input: GenerateBatchInput) => run.generateBatch(input),
  });

describe('a rank', () => {
  it('generates every batch once and counts rows and tokens', async () => {
    run = new FakeRun([7]);
    const result = await finish('all');
    expect(result.done).toEqual({
      batches: 7,
      rows: 70,
      failedRows: 0,
      promptTokens: 350,
      completionTokens: 560,
    });
    expect(run.attempts.toSorted()).toEqual(['0/0', '0/1', '0/2', '0/3', '0/4', '0/5', '0/6']);
  });

  it('leaves out batches that are committed, and counts them', async () => {
    run = new FakeRun([4]);
    for (const batch of [0, 2]) {
      run.committed.set(`0/${batch}`, { rank: 0 } as never);
    }
    const result = await finish('continued');
    expect(run.attempts.toSorted()).toEqual(['0/1', '0/3']);
    expect(result.done.rows).toBe(40);
  });

  it('keeps its window full, and not fuller', async () => {
    run = new FakeRun([20]);
    run.onBatch = async () => new Promise((resolve) => setTimeout(resolve, 200));
    await finish('window');
    // 2 engines of 2 batches, and half as many again.
    expect(run.mostInFlight).toBe(6);
  });

  it('tries a batch again when an engine dies, and reports retries and salvaged rows', async () => {
    run = new FakeRun([3]);
    run.onBatch = async ({ batch }, attempt) => {
      if (batch === 1 && attempt === 1) throw ApplicationFailure.retryable('gone', 'EngineGone');
    };
    const result = await finish('retried');
    expect(result).toMatchObject({ retries: 1, salvagedRows: 4, done: { batches: 3 } });
    expect(result.redone).toEqual({ rows: 2, tokens: 16, leftTokens: 8 });
  });

  it('fails with the reason when an engine refuses the run, and ends the other batches', async () => {
    run = new FakeRun([10]);
    run.onBatch = async ({ batch }) => {
      if (batch === 2) throw ApplicationFailure.nonRetryable('other model', 'ModelMismatch');
      await new Promise((resolve) => setTimeout(resolve, 30_000));
    };
    const failed = await finish('refused').catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(WorkflowFailedError);
    expect((failed as WorkflowFailedError).cause).toMatchObject({
      type: 'ModelMismatch',
      message: 'other model',
    });
    expect(run.inFlight).toBe(0);
  });

  it('does not begin a new history while its window is wider than an ordinary one has batches', async () => {
    run = new FakeRun([450]);
    const open = run.holdBatches();
    const fleet = { name: 'fleet', engines: 200, maxConcurrentBatches: 2 };
    const handle = await start('wide', { fleet });
    const scheduled = async () =>
      (await handle.query<RankProgressView>(QUERY.progress)).inFlight.length;
    await eventually(async () => (await scheduled()) === 450, 40, scheduled);
    open();
    expect(await handle.result()).toMatchObject({ done: { batches: 450 } });
    expect((await handle.describe()).runId).toBe(handle.firstExecutionRunId);
  });

  it('continues as new without losing a batch or its counts', async () => {
    run = new FakeRun([405]);
    const redone = { rows: 1, tokens: 7, leftTokens: 0 };
    const handle = await start('long', { carried: { retries: 3, salvagedRows: 9, redone } });
    const first = handle.firstExecutionRunId;
    const result = (await handle.result()) as RankResult;
    const { runId } = await harness.client.workflow.getHandle(rankWorkflowId('long', 0)).describe();
    expect(runId).not.toBe(first);
    expect(result).toMatchObject({ retries: 3, salvagedRows: 9, redone, done: { batches: 405 } });
    expect(run.attempts).toHaveLength(405);
  });

  it('answers for its progress while it works', async () => {
    run = new FakeRun([4]);
    let release = (): void => {};
    const gate = new Promise<void>((resolve) => (release = resolve));
    run.onBatch = async ({ batch }) => (batch === 0 ? undefined : gate);
    const handle = await start('progress');
    const seen = await eventually(async () => {
      const view = await handle.query<RankProgressView>(QUERY.progress);
      return view.batchesDone === 1 && view;
    });
    expect(seen).toMatchObject({
      rowsTotal: 40,
      rowsDone: 10,
      completionTokens: 80,
      batchesTotal: 4,
      inFlight: [1, 2, 3],
    });
    release();
    await handle.result();
  });

  it(
    "gives a batch to any engine when the rank's own does not take it",
    { timeout: 90_000 },
    async () => {
      run = new FakeRun([1]);
      // Nobody polls the queue of slot 0: the engine is gone.
      const result = await finish('affinity-lost', { affinity: 'rank' });
      expect(result.done.batches).toBe(1);
    },
  );

  it('runs a batch that killed engines on one alone, and says which', async () => {
    run = new FakeRun([4]);
    let release = (): void => {};
    const gate = new Promise<void>((resolve) => (release = resolve));
    const alone: GenerateBatchInput[] = [];
    run.onBatch = async (input) => {
      if (input.batch !== 2) return;
      if (input.alone !== true) throw ApplicationFailure.nonRetryable('died', 'SuspectBatch');
      alone.push(input);
      await gate;
    };
    const worker = await serveSlot(0);
    const handle = await start('suspect');
    const seen = await eventually(async () => {
      const view = await handle.query<RankProgressView>(QUERY.progress);
      return view.batchesDone === 3 && alone.length === 1 && view;
    });
    expect(seen).toMatchObject({ inFlight: [2], suspects: [2] });
    release();
    const result = (await handle.result()) as RankResult;
    await harness.end(worker);
    expect(result).toMatchObject({ quarantined: 1, done: { batches: 4 } });
    expect(alone).toHaveLength(1);
    const after = await handle.query<RankProgressView>(QUERY.progress);
    expect(after.suspects).toBeUndefined();
  });

  it('does not wait for an engine that a suspect batch killed: the next one goes on', async () => {
    run = new FakeRun([1]);
    const visited: number[] = [];
    let bury = (): void => {};
    const grave = new Promise<void>((resolve) => (bury = resolve));
    const serve = async (slot: number, work: (visit: number) => Promise<void>) =>
      harness.serve(slotQueue('fleet', SPEC_HASH, slot), {
        generateBatch: async (input: GenerateBatchInput) => {
          visited.push(slot);
          await work(visited.length);
          return run.generateBatch(input);
        },
      });
    run.onBatch = async ({ alone }) => {
      if (alone !== true) throw ApplicationFailure.nonRetryable('died', 'SuspectBatch');
    };
    const workers = [
      // Its process is gone: it neither answers nor heartbeats, until the minute is over.
      await serve(0, async (visit) => (visit === 1 ? grave : undefined)),
      // It lost its EngineCore and says so.
      await serve(1, async () => {
        throw ApplicationFailure.retryable('EngineCore ended', 'EngineGone');
      }),
    ];
    const result = await finish('suspect-kills');
    bury();
    for (const worker of workers) await harness.end(worker);
    expect(visited).toEqual([0, 1, 0]);
    expect(result).toMatchObject({ quarantined: 1, done: { batches: 1 } });
  }, 120_000);

  it('fails when a suspect batch has killed too many engines', async () => {
    run = new FakeRun([2]);
    run.onBatch = async ({ batch, alone }) => {
      if (batch === 0) return;
      const type = alone === true ? 'TooManyEngineDeaths' : 'SuspectBatch';
      throw ApplicationFailure.nonRetryable('64 engines died', type);
    };
    const worker = await serveSlot(0);
    const failed = await finish('suspect-endless').catch((error: unknown) => error);
    await harness.end(worker);
    expect((failed as WorkflowFailedError).cause).toMatchObject({ type: 'TooManyEngineDeaths' });
  });

  it('prefers the engine of its rank with affinity', async () => {
    run = new FakeRun([5]);
    let own = 0;
    const worker = await harness.serve(slotQueue('fleet', SPEC_HASH, 0), {
      generateBatch: async (input: Parameters<typeof run.generateBatch>[0]) => {
        own += 1;
        return run.generateBatch(input);
      },
    });
    await finish('affinity', { affinity: 'rank' });
    await harness.end(worker);
    expect(own).toBe(5);
  });
});
