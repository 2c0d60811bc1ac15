import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { Context } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest';

import { prepareRun, type PreparedRun } from '../../../src/client/inference.js';
import { runSnapshot, watchRun } from '../../../src/client/progress.js';
import { cancelRun, listRuns, startRun } from '../../../src/client/runs.js';
import type { RunSnapshot } from '../../../src/client/snapshot.js';
import { CONTROL_QUEUE, fleetQueue, PYTHON_QUEUE } from '../../../src/contracts/names.js';
import type { BatchHeartbeat } from '../../../src/contracts/run.js';
import { FakeRun, ROWS_PER_BATCH } from '../../support/fake-run.js';
import { eventually, Harness } from '../../support/harness.js';

// The real workflows on a real server; only what needs Ray, vLLM or a store is replaced.
let harness: Harness;
let folder: string;
let run: FakeRun;
let prepared: PreparedRun;
let release: () => void;
let refused = false;

const prepare = (runId: string): Promise<PreparedRun> =>
  prepareRun(
    {
      input: { uri: path.join(folder, 'in.jsonl') },
      model: { model: 'org/model' },
      store: folder,
      ranks: 2,
      runId,
    },
    (name) => name,
    async () => ({ cpus: 2, gpus: 0 }),
  );

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'rankflow-watch-'));
  writeFileSync(path.join(folder, 'in.jsonl'), '{"prompt":"hello"}\n');
  prepared = await prepare('watched');
  run = new FakeRun([1, 1]);
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  run.onBatch = async ({ rank }) => {
    if (rank === 0) return;
    const heartbeat: BatchHeartbeat = {
      engine: `${prepared.inference.fleet.name}/slot-0/abc-1`,
      rowsDone: 4,
      rows: ROWS_PER_BATCH,
      completionTokens: 32,
    };
    // Again and again, so that the bare heartbeats of the fake do not hide it.
    const beat = setInterval(() => Context.current().heartbeat(heartbeat), 50);
    await released.finally(() => clearInterval(beat));
  };
  run.onPlan = () => {
    if (!refused) return;
    const problems = [{ line: 3, code: 'invalid_json', message: 'not JSON' }];
    throw ApplicationFailure.create({
      type: 'InvalidInput',
      message: 'the input has 1 problem',
      nonRetryable: true,
      details: [{ problems, total: 1 }],
    });
  };
  harness = await Harness.start('client');
  const { fleet, specHash } = prepared.inference;
  await harness.serve(PYTHON_QUEUE, run.python);
  await harness.serve(fleetQueue(fleet.name, specHash), { generateBatch: run.generateBatch });
  await harness.serve(CONTROL_QUEUE, {
    ensureCluster: async () => ({
      address: { name: 'local', address: 'h:1', dashboardUrl: 'http://h:2' },
      startedHere: true,
    }),
    ensureFleet: async () => ({ engines: 1, startedHere: true }),
    stopFleet: async () => ({ stopped: true }),
    stopCluster: async () => ({ stopped: true }),
  });
});

afterAll(async () => {
  await harness.close();
  rmSync(folder, { recursive: true });
});

test('a run is watched from its start to its results, rows in flight included', async () => {
  await startRun(harness.client, prepared);
  const seen: RunSnapshot[] = [];
  for await (const snapshot of watchRun(harness.client, 'watched')) {
    seen.push(snapshot);
    if (snapshot.doneRows > ROWS_PER_BATCH) release();
  }
  expect(seen).toContainEqual(
    expect.objectContaining({
      state: 'in_progress',
      phase: 'generating',
      totalRows: 2 * ROWS_PER_BATCH,
      doneRows: ROWS_PER_BATCH + 4,
      ranks: 2,
    }),
  );
  expect(seen.at(-1)).toMatchObject({
    state: 'completed',
    doneRows: 2 * ROWS_PER_BATCH,
    failedRows: 0,
    output: { rows: 2 * ROWS_PER_BATCH, succeeded: 2 * ROWS_PER_BATCH },
  });
});

test('a result that cannot be fetched is no failure of the run: it is asked for again', async () => {
  const { workflow } = harness.client;
  const getHandle = workflow.getHandle.bind(workflow);
  let losses = 1;
  const spy = vi.spyOn(workflow, 'getHandle').mockImplementation((...args) => {
    const handle = getHandle(...args);
    const result = handle.result.bind(handle);
    handle.result = async () => {
      // It said that the run has ended, and went away.
      if (losses-- > 0) throw Object.assign(new Error('the line was cut'), { code: 13 });
      return result();
    };
    return handle;
  });
  onTestFinished(() => spy.mockRestore());
  const troubles: string[] = [];
  const watching = watchRun(harness.client, 'watched', undefined, ({ message }) =>
    troubles.push(message),
  );
  let last: RunSnapshot | undefined;
  for await (const snapshot of watching) last = snapshot;
  expect(last).toMatchObject({ state: 'completed', output: { failed: 0 } });
  expect(last).not.toHaveProperty('failure');
  expect(troubles).toEqual(['the line was cut']);
});

test('a run that was seen is looked for again, whatever goes wrong, and the reason is told', async () => {
  const { workflow } = harness.client;
  const getHandle = workflow.getHandle.bind(workflow);
  const watching = (runId: string, troubles: string[]) =>
    watchRun(harness.client, runId, undefined, ({ message }) => troubles.push(message));
  const troubles: string[] = [];
  run.committed.clear();
  run.finalized.length = 0;
  const open = run.holdBatches();
  await startRun(harness.client, await prepare('odd'));
  const snapshots = watching('odd', troubles);
  expect((await snapshots.next()).value).toMatchObject({ runId: 'odd' });
  const spy = vi.spyOn(workflow, 'getHandle').mockImplementationOnce(() => {
    throw new Error('no code at all');
  });
  onTestFinished(() => spy.mockRestore());
  open();
  let last: RunSnapshot | undefined;
  for await (const snapshot of snapshots) last = snapshot;
  expect(last).toMatchObject({ state: 'completed' });
  expect(troubles).toEqual(['no code at all']);

  // Of one that was never seen it is a bug, and nobody is kept waiting.
  spy.mockImplementationOnce(() => {
    throw new Error('no code at all');
  });
  await expect(watching('odd', troubles).next()).rejects.toThrow('no code at all');
  spy.mockImplementation(getHandle);
});

test('who stops watching leaves the run alone', async () => {
  const aborted = new AbortController();
  aborted.abort();
  const seen: RunSnapshot[] = [];
  for await (const one of watchRun(harness.client, 'watched', aborted.signal)) seen.push(one);
  expect(seen).toEqual([]);
});

test('a refused input ends the watching with its lines', async () => {
  refused = true;
  try {
    await startRun(harness.client, await prepare('refused'));
    let last: RunSnapshot | undefined;
    for await (const snapshot of watchRun(harness.client, 'refused')) last = snapshot;
    expect(last).toMatchObject({
      state: 'failed',
      failure: { type: 'InvalidInput', exitCode: 2, problems: [{ line: 3 }], totalProblems: 1 },
    });
  } finally {
    refused = false;
  }
});

test('a cancelled run ends as cancelled', async () => {
  run.committed.clear();
  run.finalized.length = 0;
  run.onBatch = () => new Promise(() => {});
  await startRun(harness.client, await prepare('cancelled'));
  await eventually(async () => {
    const { phase } = await runSnapshot(harness.client, 'cancelled');
    return phase === 'generating' && run.inFlight > 0;
  });
  expect(await cancelRun(harness.client, 'cancelled')).toBe(true);
  const states: string[] = [];
  let last: RunSnapshot | undefined;
  for await (const snapshot of watchRun(harness.client, 'cancelled')) {
    last = snapshot;
    states.push(snapshot.state);
  }
  expect(last).toMatchObject({ state: 'cancelled', output: { succeeded: 0 } });
  expect(states).toContain('cancelling');
  await eventually(async () => {
    const runs = await listRuns(harness.client, 100);
    return runs.find(({ runId }) => runId === 'cancelled')?.state === 'cancelled';
  });
});
