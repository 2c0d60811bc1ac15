import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { Client, Connection } from '@temporalio/client';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest';

import type { Garbage } from '../../../src/client/gc.js';
import { inferenceWorkflowId, runWorkflowId } from '../../../src/contracts/names.js';
import type { Batch } from '../../../src/server/schemas.js';
import { paths } from '../../../src/setup/paths.js';
import { ApiServer, line } from '../../support/api-server.js';
import { startBucketServer } from '../../support/bucket-server.js';

const program = path.join(paths.packageRoot, 'dist/cli/main.js');
const DAY_SECONDS = 86_400;
let home: string;
let store: string;

beforeEach(() => {
  home = mkdtempSync(path.join(tmpdir(), 'rankflow-gc-'));
  store = path.join(home, 'store');
  symlinkSync(paths.venv, path.join(home, 'venv'));
  mkdirSync(path.join(home, 'inputs'));
});
afterEach(() => rmSync(home, { recursive: true }));

/** Finished runs, with what killed processes leave, and some that are only begun. */
async function makeRuns(
  root: string,
  { done = [], begun = [] }: { done?: readonly string[]; begun?: readonly string[] },
  env: Readonly<Record<string, string>> = {},
): Promise<void> {
  const script = `
import json, sys
from pathlib import Path
from tests.rows.support import attempt, finish
from tests.rows.test_gc import finished, planned
root, folder, done, begun = sys.argv[1], Path(sys.argv[2]), *map(json.loads, sys.argv[3:])
for run_id in done:
    finished(root, folder, run_id)
for run_id in begun:
    plan = planned(root, folder, run_id)
    finish(plan.store, plan, plan.batch(0, 0))
`;
  const lists = [done, begun].map((list) => JSON.stringify(list));
  await execa(paths.python, ['-c', script, root, path.join(home, 'inputs'), ...lists], {
    env: { PYTHONPATH: paths.pythonProject, ...env },
  });
}

/** Has everything of a run be so many days old. */
function age(runId: string, days: number, root = store): void {
  const at = Date.now() / 1000 - days * DAY_SECONDS;
  const folder = path.join(root, 'runs', runId);
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    utimesSync(path.join(folder, name), at, at);
  }
}

const rankflow = (args: readonly string[], env: Readonly<Record<string, string>> = {}) =>
  execa(process.execPath, [program, ...args], {
    reject: false,
    env: {
      RANKFLOW_HOME: home,
      TEMPORAL_ADDRESS: undefined,
      TEMPORAL_CONFIG_FILE: path.join(home, 'none.toml'),
      ...env,
    },
  });

async function freed(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Garbage> {
  const { exitCode, stdout, stderr } = await rankflow(['gc', '--json', ...args], env);
  expect(exitCode, stderr).toBe(0);
  return JSON.parse(stdout) as Garbage;
}

const idsOf = (steps: readonly { readonly runId: string }[]): string[] =>
  steps.map(({ runId }) => runId);

test('a store is freed of attempts, and its runs are valid, listed and read as before', async () => {
  await makeRuns(store, { done: ['a'], begun: ['half'] });
  const dry = await rankflow(['gc', '--dry-run']);
  expect([dry.exitCode, dry.stderr]).toEqual([0, '']);
  expect(dry.stdout).toMatch(
    /^a {2}attempts would be collected \(\d.* K?i?B\)\n\S+ K?i?B would be freed/u,
  );
  expect(existsSync(path.join(store, 'runs/a/attempts'))).toBe(true);
  const done = await rankflow(['gc', '--store', store]);
  expect(done.stdout).toBe(
    dry.stdout.replaceAll(/would be |(?<=runs )would then/gu, '').replace('  take', ' now take'),
  );
  expect(readdirSync(path.join(store, 'runs/a'))).not.toContain('attempts');
  expect(readdirSync(path.join(store, 'runs/half'))).toContain('attempts');
  const verified = await rankflow(['verify', 'a']);
  expect(verified.stdout).toMatch(/\nvalid: .*\nits attempts were collected/u);
  expect((await rankflow(['results', 'a'])).stdout.split('\n')).toHaveLength(4);
  const status = await rankflow(['status', 'a', '--json']);
  expect(JSON.parse(status.stdout)).toMatchObject({ state: 'completed', doneRows: 5 });
});

test('a bucket is freed, too', async () => {
  const bucket = await startBucketServer('garbage');
  try {
    await makeRuns(bucket.root, { done: ['a'] }, bucket.env);
    const garbage = await freed(['--store', bucket.root], bucket.env);
    expect(idsOf(garbage.collected)).toEqual(['a']);
    expect(garbage.freedBytes).toBeGreaterThan(100);
    const verified = await rankflow(['verify', 'a', '--json', '--store', bucket.root], bucket.env);
    expect(JSON.parse(verified.stdout)).toMatchObject({ valid: true, attemptsCollected: true });
    // The last hour's runs stay whatever the rules are.
    const kept = await freed(['--store', bucket.root, '--keep-last', '0'], bucket.env);
    expect([kept.removed, idsOf(kept.kept)]).toEqual([[], ['a']]);
  } finally {
    await bucket.close();
  }
});

test('old runs go by age, number and size, and are gone to every command', async () => {
  await makeRuns(store, { done: ['a', 'b', 'c', 'd'] });
  for (const [index, runId] of ['a', 'b', 'c', 'd'].entries()) age(runId, 40 - index * 10);
  expect(idsOf((await freed(['--runs-older-than', '35d'])).removed)).toEqual(['a']);
  expect(idsOf((await freed(['--keep-last', '2'])).removed)).toEqual(['b']);
  const { leftBytes } = await freed([]);
  const smaller = await freed(['--max-size', `${leftBytes - 1}B`]);
  expect(idsOf(smaller.removed)).toEqual(['c']);
  expect(smaller.leftBytes).toBeLessThan(leftBytes);
  const listed = await rankflow(['list', '--json']);
  expect(idsOf(JSON.parse(listed.stdout) as { runId: string }[])).toEqual(['d']);
  for (const command of ['status', 'results', 'verify']) {
    expect((await rankflow([command, 'a'])).stderr, command).toContain('has no run a');
  }
});

test('a run whose removal was broken off is gone, and the next gc ends it', async () => {
  await makeRuns(store, { done: ['a'], begun: ['half'] });
  rmSync(path.join(store, 'runs/a/manifest.json'));
  writeFileSync(path.join(store, 'runs/a/removing.json'), '{}');
  const listed = await rankflow(['list', '--json']);
  expect(idsOf(JSON.parse(listed.stdout) as { runId: string }[])).toEqual(['half']);
  expect((await rankflow(['status', 'a'])).stderr).toContain('has no run a');
  expect(idsOf((await freed([])).removed)).toEqual(['a']);
  expect(readdirSync(path.join(store, 'runs'))).toEqual(['half']);
});

test('a batch of the API goes once its results were deleted; with --batches also before', async () => {
  const api = await ApiServer.start();
  try {
    const [kept, deleted, open] = [
      await api.batchOf([line('a')]),
      await api.batchOf([line('a')]),
      await api.batchOf([line('a')]),
    ];
    const ended = async (id: string) => api.get<Batch>('GET', `/v1/batches/${id}`);
    for (const id of [kept, deleted]) api.finish(id, '{}\n');
    await api.rounds();
    for (const id of [kept, deleted]) age(id, 40, api.store);
    await api.ask('DELETE', `/v1/files/${(await ended(deleted)).output_file_id}`);
    const args = ['--store', api.store, '--runs-older-than', '30d'];
    const garbage = await freed(args);
    expect(idsOf(garbage.removed)).toEqual([deleted]);
    expect(garbage.kept).toMatchObject([
      { runId: kept, why: expect.stringMatching(/still among its files/u) },
    ]);
    expect((await api.ask('GET', `/v1/batches/${deleted}`)).status).toBe(404);
    const { output_file_id: output } = await ended(kept);
    expect((await api.ask('GET', `/v1/files/${output}/content`)).text).toBe('{}\n');

    expect(idsOf((await freed([...args, '--batches'])).removed)).toEqual([kept]);
    expect((await api.ask('GET', `/v1/files/${output}`)).status).toBe(404);
    const listed = await api.get<{ data: Batch[] }>('GET', '/v1/batches');
    expect(listed.data.map(({ id }) => id)).toEqual([open]);
    // What was uploaded is the client's, who deletes it or lets it expire.
    expect(await api.get('GET', '/v1/files')).toMatchObject({ data: [{}, {}, {}] });
    expect(readdirSync(path.join(api.store, 'runs'))).toEqual([]);
  } finally {
    await api.close();
  }
});

test('without Temporal unfinished runs stay, and people are told why', async () => {
  await makeRuns(store, { begun: ['half'] });
  age('half', 40);
  const { stdout, stderr } = await rankflow(['gc', '--unfinished-older-than', '30d']);
  expect(stderr).toContain('Temporal does not answer');
  expect(stdout).toContain('half  kept: Temporal does not answer, so its workflow may be running');
  expect(existsSync(path.join(store, 'runs/half/plan.json'))).toBe(true);
});

describe('with Temporal', () => {
  let client: Client;
  const started: string[] = [];

  beforeEach(async () => {
    client = new Client({
      connection: await Connection.connect({ address: inject('temporalAddress') }),
    });
  });
  afterEach(async () => {
    for (const id of started.splice(0)) await client.workflow.getHandle(id).terminate();
    await client.connection.close();
  });

  test('runs at which a workflow works stay, and others go in their place', async () => {
    const env = { TEMPORAL_ADDRESS: inject('temporalAddress') };
    // Nobody serves these queues here, so that what is started goes on.
    for (const workflowId of [inferenceWorkflowId('gc-open'), runWorkflowId('gc-old')]) {
      await client.workflow.start('none', { workflowId, taskQueue: 'gc-nobody', args: [] });
      started.push(workflowId);
    }
    await makeRuns(store, { done: ['gc-old', 'gc-new'], begun: ['gc-open', 'gc-left'] });
    for (const [runId, days] of Object.entries({ 'gc-old': 50, 'gc-new': 45 })) age(runId, days);
    for (const runId of ['gc-open', 'gc-left']) age(runId, 40);
    const dry = await freed(
      ['--unfinished-older-than', '30d', '--max-size', '1B', '--dry-run'],
      env,
    );
    const garbage = await freed(['--unfinished-older-than', '30d', '--max-size', '1B'], env);
    expect(idsOf(garbage.removed)).toEqual(['gc-new', 'gc-left']);
    expect(garbage.kept).toEqual([{ runId: 'gc-open', why: 'its workflow runs' }]);
    expect({ ...dry, dryRun: false }).toEqual(garbage);
    expect(readdirSync(path.join(store, 'runs')).toSorted()).toEqual(['gc-old', 'gc-open']);
  });
});

test.each([
  ['--runs-older-than', 'soon'],
  ['--max-size', 'much'],
  ['--keep-last', '-1'],
])('%s %s is a usage error', async (...args) => {
  const { exitCode, stderr } = await rankflow(['gc', ...args]);
  expect([exitCode, stderr]).toEqual([2, expect.stringContaining('Expected')]);
});
