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
  harness = await Harness.start('hold');
  await serveRun(harness, () => run);
});
afterAll(async () => harness.close());

/** One engine and one rank: a window of two batches, or of three for each batch that an engine admits twice. */
const start = async (runId: string, change: Partial<RunWorkflowInput> = {}) => {
  const input: RunWorkflowInput = {
    spec: fakeSpec(runId, run.batches.length),
    specHash: SPEC_HASH,
    fleet: { name: 'fleet', engines: 1, maxConcurrentBatches: 1 },
    affinity: 'pull',
    ...change,
  };
  return harness.client.workflow.start(WORKFLOW.run, {
    workflowId: runWorkflowId(runId),
    taskQueue: CONTROL_QUEUE,
    args: [input],
  });
};

/** Batches wait until they are let go. */
function gated(): { release: () => void } {
  const gate = { release: (): void => {} };
  const open = new Promise<void>((resolve) => {
    gate.release = resolve;
  });
  run.onBatch = async () => open;
  return gate;
}

const stateOf = async (handle: Awaited<ReturnType<typeof start>>) =>
  (await handle.query<RunProgress>(QUERY.progress)).state;
const aWhile = async () => new Promise((resolve) => setTimeout(resolve, 1_500));

describe('a run that is paused', { timeout: 60_000 }, () => {
  it('finishes the batches in flight, begins no other, says so, and goes on', async () => {
    run = new FakeRun([6]);
    const gate = gated();
    const handle = await start('paused');
    await eventually(() => run.inFlight === 2);
    await handle.signal(SIGNAL.pause);
    await aWhile();
    gate.release();
    await eventually(() => run.committed.size === 2);
    await aWhile();
    expect(run.attempts).toHaveLength(2);
    expect(await handle.query<RunProgress>(QUERY.progress)).toMatchObject({
      state: 'paused',
      problem: { message: 'paused by hand', wayOut: expect.stringContaining('resume paused') },
    });
    await handle.signal(SIGNAL.resume);
    expect(await handle.result()).toMatchObject({ state: 'completed' });
    expect(run.attempts).toHaveLength(6);
  });

  it('gives batches in flight up when it is to pause now, and generates them afterwards', async () => {
    run = new FakeRun([3]);
    gated();
    const handle = await start('paused-now');
    await eventually(() => run.inFlight === 2);
    await handle.signal(SIGNAL.pause, { now: true });
    await eventually(() => run.inFlight === 0);
    await aWhile();
    expect(run.committed.size).toBe(0);
    run.onBatch = async () => {};
    await handle.signal(SIGNAL.resume);
    expect(await handle.result()).toMatchObject({ state: 'completed', output: { succeeded: 30 } });
  });

  it('can be cancelled', async () => {
    run = new FakeRun([4]);
    const gate = gated();
    const handle = await start('paused-cancelled');
    await eventually(() => run.inFlight === 2);
    await handle.signal(SIGNAL.pause);
    await aWhile();
    gate.release();
    await eventually(() => run.committed.size === 2);
    await handle.signal(SIGNAL.cancelRun);
    expect(await handle.result()).toMatchObject({ state: 'cancelled', output: { succeeded: 20 } });
  });

  it('before its first batch begins none until it goes on', async () => {
    run = new FakeRun([2]);
    const handle = await start('paused-early', { hold: 'pause' });
    await eventually(async () => (await stateOf(handle)) === 'paused');
    await aWhile();
    expect(run.attempts).toEqual([]);
    await handle.signal(SIGNAL.resume);
    expect(await handle.result()).toMatchObject({ state: 'completed' });
  });

  it('stays paused in the next history of a rank', { timeout: 120_000 }, async () => {
    run = new FakeRun([402]);
    let last: () => void = () => {};
    run.onBatch = async ({ batch }) =>
      batch === 399 ? new Promise((resolve) => (last = resolve)) : undefined;
    const handle = await start('paused-long');
    await eventually(() => run.committed.size === 399, 90);
    await handle.signal(SIGNAL.pause);
    await aWhile();
    last();
    await eventually(() => run.committed.size === 400);
    await aWhile();
    expect(run.committed.size).toBe(400);
    await handle.signal(SIGNAL.resume);
    expect(await handle.result()).toMatchObject({ state: 'completed' });
  });
});

describe('a run that is drained', { timeout: 60_000 }, () => {
  it('ends after the batches in flight; the other rows are cancelled', async () => {
    run = new FakeRun([6]);
    const gate = gated();
    const handle = await start('drained');
    await eventually(() => run.inFlight === 2);
    await handle.signal(SIGNAL.drain);
    await aWhile();
    gate.release();
    expect(await handle.result()).toMatchObject({
      state: 'cancelled',
      output: { succeeded: 20, failed: 40 },
    });
    expect(run.finalized).toEqual(['batch_cancelled']);
    expect(run.attempts).toHaveLength(2);
  });

  it('is completed when nothing was left to begin', async () => {
    run = new FakeRun([2]);
    const gate = gated();
    const handle = await start('drained-whole');
    await eventually(() => run.inFlight === 2);
    await handle.signal(SIGNAL.drain);
    await aWhile();
    gate.release();
    expect(await handle.result()).toMatchObject({ state: 'completed' });
    expect(run.finalized).toEqual(['refuse']);
  });
});

describe('a run with a deadline', { timeout: 60_000 }, () => {
  const inSeconds = (seconds: number) => new Date(Date.now() + seconds * 1000).toISOString();

  it('expires: what is done is kept, the rest are batch_expired lines', async () => {
    run = new FakeRun([3]);
    run.onBatch = async ({ batch }) =>
      batch === 0 ? undefined : new Promise((resolve) => setTimeout(resolve, 30_000));
    const handle = await start('expired', { deadline: inSeconds(4) });
    expect(await handle.result()).toMatchObject({
      state: 'expired',
      output: { succeeded: 10, failed: 20 },
    });
    expect(run.finalized).toEqual(['batch_expired']);
    expect(run.inFlight).toBe(0);
    expect(await stateOf(handle)).toBe('expired');
  });

  it('accounts for every row when it has passed before the first batch', async () => {
    run = new FakeRun([2]);
    const handle = await start('too-late', { deadline: inSeconds(-1) });
    expect(await handle.result()).toMatchObject({ state: 'expired', output: { failed: 20 } });
    expect(run.attempts).toEqual([]);
  });

  it('completes when it is done in time', async () => {
    run = new FakeRun([2]);
    const handle = await start('in-time', { deadline: inSeconds(3_600) });
    expect(await handle.result()).toMatchObject({ state: 'completed' });
  });

  it('expires while it is paused', async () => {
    run = new FakeRun([2]);
    const handle = await start('paused-expired', { deadline: inSeconds(3), hold: 'pause' });
    expect(await handle.result()).toMatchObject({ state: 'expired', output: { failed: 20 } });
  });
});

describe('a run whose fleet gets another size', { timeout: 60_000 }, () => {
  it('keeps as many batches ready as all engines together need, and fewer again', async () => {
    run = new FakeRun([40]);
    const gate = gated();
    const handle = await start('grows');
    await eventually(() => run.inFlight === 2);
    await handle.signal(SIGNAL.fleetSize, { engines: 8 });
    await eventually(() => run.inFlight === 12);
    await handle.signal(SIGNAL.fleetSize, { engines: 1 });
    await aWhile();
    const before = run.attempts.length;
    gate.release();
    run.mostInFlight = 0;
    expect(await handle.result()).toMatchObject({ state: 'completed' });
    expect(before).toBe(12);
    expect(new Set(run.attempts).size).toBe(40);
  });

  it('counts the engines that may come, until the fleet no longer scales by itself', async () => {
    run = new FakeRun([60]);
    let gate = gated();
    const next = (): void => {
      const { release } = gate;
      gate = gated();
      release();
    };
    const handle = await start('may-grow');
    await eventually(() => run.inFlight === 2);
    await handle.signal(SIGNAL.fleetSize, { engines: 2, maxEngines: 8 });
    await eventually(() => run.inFlight === 12);
    // What a fleet of an older version says leaves the limits as they were.
    await handle.signal(SIGNAL.fleetSize, { engines: 1 });
    await aWhile();
    next();
    await eventually(() => run.committed.size === 12 && run.inFlight === 12);
    await handle.signal(SIGNAL.fleetSize, { engines: 1, maxEngines: 0 });
    await aWhile();
    next();
    await eventually(() => run.committed.size === 24 && run.inFlight === 2);
    gate.release();
    expect(await handle.result()).toMatchObject({ state: 'completed' });
  });
});
