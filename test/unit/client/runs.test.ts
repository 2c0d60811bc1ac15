import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { Client, Connection } from '@temporalio/client';
import getPort from 'get-port';
import { afterAll, beforeAll, beforeEach, expect, inject, test, vi } from 'vitest';

import { connect } from '../../../src/client/connection.js';
import { prepareRun, type PreparedRun, type RunOptions } from '../../../src/client/inference.js';
import { runSnapshot } from '../../../src/client/progress.js';
import {
  cancelRun,
  finishedRun,
  getRun,
  listRuns,
  memoOf,
  runIdOf,
  startRun,
} from '../../../src/client/runs.js';
import { inferenceWorkflowId } from '../../../src/contracts/names.js';

// A real server and no worker on this namespace: what is started stays as it is until a test ends it.
const address = inject('temporalAddress');
let client: Client;
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'rankflow-runs-'));
  writeFileSync(path.join(folder, 'in.jsonl'), '{"prompt":"hello"}\n');
  client = new Client({ connection: await Connection.connect({ address }) });
});

afterAll(async () => {
  await client.connection.close();
  rmSync(folder, { recursive: true });
});

let count = 0;
let id: string;
beforeEach(() => {
  id = `test-${++count}`;
});

const prepare = (options: Partial<RunOptions> = {}): Promise<PreparedRun> =>
  prepareRun(
    {
      input: { uri: path.join(folder, 'in.jsonl') },
      model: { model: 'org/model' },
      store: folder,
      runId: id,
      ...options,
    },
    (name) => name,
    async () => ({ cpus: 2, gpus: 0 }),
  );

/** Writes what a finished run leaves in its store. */
function finish({ inference, inputSha256 }: PreparedRun): void {
  const runFolder = path.join(folder, 'runs', inference.run.runId);
  mkdirSync(runFolder, { recursive: true });
  const plan = { spec: inference.run, summary: { inputSha256 } };
  const manifest = { state: 'completed', rows: 1, succeeded: 1, failed: 0 };
  writeFileSync(path.join(runFolder, 'plan.json'), JSON.stringify(plan));
  writeFileSync(path.join(runFolder, 'manifest.json'), JSON.stringify(manifest));
}

const terminate = (): Promise<unknown> =>
  client.workflow.getHandle(inferenceWorkflowId(id)).terminate();

test('the same command twice attaches to the run that goes on', async () => {
  expect((await startRun(client, await prepare())).outcome).toBe('started');
  expect((await startRun(client, await prepare())).outcome).toBe('attached');
});

test('two commands at the same moment start one run', async () => {
  const runs = await Promise.all([prepare(), prepare(), prepare()]);
  const outcomes = await Promise.all(runs.map((run) => startRun(client, run)));
  expect(outcomes.map(({ outcome }) => outcome).toSorted()).toEqual([
    'attached',
    'attached',
    'started',
  ]);
});

test('a run that failed is continued', async () => {
  await startRun(client, await prepare());
  await terminate();
  expect((await startRun(client, await prepare())).outcome).toBe('continued');
  const { status } = await getRun(client, id);
  expect(status.name).toBe('RUNNING');
});

test('the same id with other parameters is refused while the run goes on', async () => {
  await startRun(client, await prepare());
  const other = await prepare({ sampling: { temperature: 0.5 } });
  await expect(startRun(client, other)).rejects.toMatchObject({
    type: 'RunMismatch',
    message: expect.stringContaining('sampling.temperature: not set before, 0.5 now'),
  });
});

test('a finished run is found by its store alone, and the same id with another input is refused', async () => {
  const run = await prepare();
  expect(await finishedRun(run)).toBeUndefined();
  finish(run);
  expect((await finishedRun(await prepare()))?.stored).toMatchObject({
    state: 'completed',
    output: { rows: 1 },
  });
  const uri = path.join(folder, 'other.jsonl');
  writeFileSync(uri, '{"prompt":"bye"}\n');
  const other = await prepare({ input: { uri } });
  await expect(finishedRun(other)).rejects.toThrow(/input\.sha256/u);
});

test('a list shows each run once, the newest first, with its store', async () => {
  await startRun(client, await prepare());
  await terminate();
  await startRun(client, await prepare());
  await vi.waitFor(async () => {
    const runs = await listRuns(client, 100);
    expect(runs.filter(({ runId }) => runId === id)).toHaveLength(1);
    expect(runs[0]).toMatchObject({ runId: id, state: 'in_progress', memo: { store: folder } });
  });
  expect(await listRuns(client, 1)).toHaveLength(1);
  await terminate();
  await vi.waitFor(async () => {
    const [newest] = await listRuns(client, 100);
    expect(newest).toMatchObject({ runId: id, state: 'failed' });
  });
});

test('a run is cancelled once; afterwards there is nothing to cancel', async () => {
  await startRun(client, await prepare());
  expect(await cancelRun(client, id)).toBe(true);
  await terminate();
  expect(await cancelRun(client, id)).toBe(false);
  await expect(cancelRun(client, 'no-such-run')).rejects.toMatchObject({ type: 'NotFound' });
});

test('what a run was started with holds no prompt and no template', async () => {
  const template = 'private words {prompt}';
  await startRun(
    client,
    await prepare({ input: { uri: path.join(folder, 'in.jsonl'), template } }),
  );
  const memo = memoOf(await getRun(client, id));
  expect(memo).toMatchObject({ store: folder, cluster: 'local' });
  expect(JSON.stringify(memo)).not.toMatch(/private|hello/u);
});

test('a run that was terminated is shown as failed', async () => {
  await startRun(client, await prepare());
  await terminate();
  const snapshot = await runSnapshot(client, id);
  expect(snapshot).toMatchObject({ state: 'failed', failure: { type: 'Terminated' } });
  await expect(runSnapshot(client, 'no-such-run')).rejects.toMatchObject({ type: 'NotFound' });
});

test('ids are understood in every form that is shown', () => {
  expect(runIdOf('run-1')).toBe('run-1');
  expect(runIdOf('inference/run-1')).toBe('run-1');
  expect(runIdOf('run/run-1/rank-3')).toBe('run-1');
});

test('an address that nobody answers is told in seconds', async () => {
  const port = await getPort({ host: '127.0.0.1' });
  await expect(connect({ address: `127.0.0.1:${port}` })).rejects.toMatchObject({
    type: 'Unreachable',
  });
  const found = await connect({ address });
  await found.connection.close();
}, 15_000);
