import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { paths } from '../../../src/setup/paths.js';
import { type BucketServer, startBucketServer } from '../../support/bucket-server.js';

// Runs that only their store knows: nothing runs here, and Temporal has never heard of them.
const program = path.join(paths.packageRoot, 'dist/cli/main.js');
let home: string;
let bucket: BucketServer;

beforeAll(async () => {
  home = mkdtempSync(path.join(tmpdir(), 'rankflow-stored-'));
  symlinkSync(paths.venv, path.join(home, 'venv'));
  mkdirSync(path.join(home, 'inputs'));
  bucket = await startBucketServer('stored');
  for (const root of [path.join(home, 'store'), bucket.root]) await makeRuns(root);
});
afterAll(async () => {
  await bucket.close();
  rmSync(home, { recursive: true });
});

/** A finished run `run-1` and one with one of six batches done, `half`. */
async function makeRuns(root: string): Promise<void> {
  const script = `
import sys
from pathlib import Path
from rankflow.rows.plan import load_plan
from rankflow.rows.planner import plan_run
from rankflow.store import open_store
from tests.rows.support import chat, finish, jsonl, spec
from tests.rows.test_verify import finished
root, folder = sys.argv[1], Path(sys.argv[2])
finished(root, folder)
rows = jsonl(chat(f"id-{n}") for n in range(20))
plan_run(spec(folder, rows, store=root, runId="half", batch={"maxRows": 4}))
store = open_store(root)
plan = load_plan(store, "half")
finish(store, plan, plan.batch(0, 2))
`;
  await execa(paths.python, ['-c', script, root, path.join(home, 'inputs')], {
    env: { PYTHONPATH: paths.pythonProject, ...bucket.env },
  });
}

const rankflow = (...args: string[]) =>
  execa(process.execPath, [program, ...args], {
    reject: false,
    env: {
      ...bucket.env,
      RANKFLOW_HOME: home,
      TEMPORAL_ADDRESS: undefined,
      TEMPORAL_CONFIG_FILE: path.join(home, 'none.toml'),
    },
  });

describe.each([
  ['the data folder', () => [] as string[]],
  ['a bucket', () => ['--store', bucket.root]],
])('a run that only %s knows', (_name, store) => {
  test('is listed with how far it is', async () => {
    const { exitCode, stdout, stderr } = await rankflow('list', '--json', ...store());
    expect([exitCode, stderr]).toEqual([0, expect.stringContaining('Temporal does not answer')]);
    const runs = JSON.parse(stdout) as { runId: string; state: string }[];
    expect(runs).toHaveLength(2);
    expect(runs).toContainEqual(
      expect.objectContaining({ runId: 'half', onlyStored: true, state: 'in_progress' }),
    );
    expect(runs).toContainEqual(
      expect.objectContaining({ runId: 'run-1', onlyStored: true, state: 'completed' }),
    );
  });

  test('has a status', async () => {
    const done = await rankflow('status', 'run-1', '--json', ...store());
    expect(JSON.parse(done.stdout)).toMatchObject({
      state: 'completed',
      totalRows: 20,
      output: { succeeded: 18, failed: 2, outputUri: expect.stringMatching(/output\.jsonl$/u) },
    });
    const half = await rankflow('status', 'half', ...store());
    expect([half.exitCode, half.stdout]).toEqual([0, expect.stringContaining('4/20 rows')]);
    expect(half.stdout).toContain('half  in_progress, as its store says');
  });

  test('has results when it is finished, and says so when it is not', async () => {
    const { exitCode, stdout } = await rankflow('results', 'run-1', ...store());
    expect([exitCode, stdout.trim().split('\n').length]).toEqual([0, 18]);
    const errors = await rankflow('results', 'run-1', '--errors', ...store());
    expect(errors.stdout.trim().split('\n')).toHaveLength(2);
    const half = await rankflow('results', 'half', ...store());
    expect([half.exitCode, half.stdout]).toEqual([2, '']);
    expect(half.stderr).toContain('is not finished');
  });

  test('can be watched to the end it has, and no further', async () => {
    const out = path.join(home, 'copy.jsonl');
    const done = await rankflow('watch', 'run-1', '--out', out, ...store());
    expect([done.exitCode, done.stderr]).toEqual([1, expect.stringContaining('2 failed')]);
    expect(readFileSync(out, 'utf8').trim().split('\n')).toHaveLength(18);
    const half = await rankflow('watch', 'half', ...store());
    expect([half.exitCode, half.stderr]).toEqual([2, expect.stringContaining('half')]);
  });

  test('is verified, and what is not whole is told with exit code 1', async () => {
    const whole = await rankflow('verify', 'run-1', ...store());
    expect([whole.exitCode, whole.stdout]).toEqual([0, expect.stringContaining('valid:')]);
    const half = await rankflow('verify', 'half', '--json', ...store());
    expect(half.exitCode).toBe(1);
    expect(JSON.parse(half.stdout)).toMatchObject({
      valid: false,
      state: null,
      problems: [{ code: 'manifest_missing' }],
    });
  });
});

test('a run that nobody knows is told to be nowhere, with where was looked', async () => {
  for (const command of ['status', 'results', 'watch', 'verify']) {
    const { exitCode, stdout, stderr } = await rankflow(command, 'never-heard-of');
    expect([exitCode, stdout], command).toEqual([3, '']);
    expect(stderr).toContain(`${path.join(home, 'store')} has no run never-heard-of`);
  }
});

test('the same command finds a finished run in a bucket, whose input is in a bucket, too', async () => {
  const script = `
import sys
from rankflow.rows.finalize import finalize_run
from rankflow.rows.plan import load_plan
from rankflow.store import open_store
from rankflow.rows.planner import plan_run
from rankflow.contracts.models import RunSpec
from tests.rows.support import chat, finish, jsonl
store = open_store(sys.argv[1])
if sys.argv[2:]:
    spec = RunSpec.model_validate_json(sys.argv[2])
    plan_run(spec)
    plan = load_plan(store, spec.run_id)
    for part in plan.batches(0):
        finish(store, plan, part)
    finalize_run(store, spec.run_id)
else:
    store.put("in.jsonl", jsonl([chat("a"), chat("b")]))
`;
  const env = { PYTHONPATH: paths.pythonProject, ...bucket.env };
  await execa(paths.python, ['-c', script, bucket.root], { env });
  const command = [
    ...[`${bucket.root}/in.jsonl`, '--model', 'made-up', '--backend', 'simulated'],
    ...['--store', bucket.root, '--json'],
  ];
  const { stdout } = await rankflow('validate', ...command);
  const { runId } = JSON.parse(stdout) as { runId: string };
  expect(runId).toMatch(/^run-[0-9a-f]{16}$/u);
  const spec = {
    runId,
    input: { uri: `${bucket.root}/in.jsonl` },
    store: bucket.root,
    model: { model: 'made-up', backend: 'simulated' },
    batch: {},
  };
  await execa(paths.python, ['-c', script, bucket.root, JSON.stringify(spec)], { env });
  const again = await rankflow('run', ...command);
  expect([again.exitCode, again.stderr]).toEqual([0, expect.stringContaining('is finished')]);
  expect(again.stdout).toContain(`${bucket.root}/runs/${runId}/output.jsonl`);
});
