import {
  appendFileSync,
  cpSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';

import { Client, Connection } from '@temporalio/client';
import { afterAll, expect, it } from 'vitest';

import type { RunSnapshot } from '../../src/client/snapshot.js';
import { fleetWorkflowId, inferenceWorkflowId, rankWorkflowId } from '../../src/contracts/names.js';
import { paths } from '../../src/setup/paths.js';
import { eventually } from '../support/harness.js';
import { DataFolder, parseLines, type ResultLine } from '../e2e/rankflow.js';

/** Real Temporal, workers and Ray; simulated engines: nothing here depends on answers. */
const FLEET = 'upgraded';
const ENGINES = [
  ...['--model', 'made-up', '--backend', 'simulated', '--engine-arg', 'tokens_per_second=60'],
  ...['--cpus-per-engine', '1', '--fleet', FLEET, '--keep', '--batch-rows', '4'],
];
const ROWS = 240;

const data = new DataFolder();
const next = data.file('next');
afterAll(async () => data.remove(FLEET));

/** Runs a command of this Rankflow, or of the next one. */
const json = async <T>(args: readonly string[], root?: string): Promise<T> => {
  const { stdout, stderr, exitCode } = await data.rankflow([...args, '--json'], 120_000, root);
  if (stdout === '') throw new Error(`exit code ${exitCode}: ${stderr}`);
  return JSON.parse(stdout) as T;
};
const look = async (run: string) => json<RunSnapshot>(['status', run]);

/** Another Rankflow, as a package beside this one: a newer release whose workflows are others. */
function installNext(): void {
  mkdirSync(next);
  cpSync(path.join(paths.packageRoot, 'dist'), path.join(next, 'dist'), { recursive: true });
  for (const name of ['node_modules', 'python-activities']) {
    symlinkSync(path.join(paths.packageRoot, name), path.join(next, name));
  }
  const manifest = JSON.parse(
    readFileSync(path.join(paths.packageRoot, 'package.json'), 'utf8'),
  ) as object;
  writeFileSync(
    path.join(next, 'package.json'),
    JSON.stringify({ ...manifest, version: '99.0.0' }),
  );
  appendFileSync(path.join(next, 'dist/workflows/rank.js'), '\n// Another one.\n');
}

function writeRequests(file: string, rows: number): void {
  const lines = Array.from({ length: rows }, (_, row) =>
    JSON.stringify({
      custom_id: `row-${row}`,
      method: 'POST',
      url: '/v1/chat/completions',
      body: { messages: [{ role: 'user', content: `Name a colour, ${row}.` }], max_tokens: 30 },
    }),
  );
  writeFileSync(file, `${lines.join('\n')}\n`);
}

interface Process {
  readonly name: string;
  readonly build?: string;
  readonly status: string;
  readonly pid?: number;
  readonly restarts?: number;
}

const controlWorkers = async () =>
  (await json<{ processes: Process[] }>(['ps'])).processes.filter(
    ({ name }) => name === 'control-worker',
  );

it(
  'Rankflow is upgraded under a run: each row is answered once, what is new begins with the new build, the old one goes',
  { timeout: 300_000 },
  async () => {
    installNext();
    writeRequests(data.file('requests.jsonl'), ROWS);
    writeRequests(data.file('few.jsonl'), 4);
    const [run, later] = ['in-work', 'later'];
    await json(['submit', data.file('requests.jsonl'), '--run-id', run, ...ENGINES]);
    await eventually(async () => (await look(run)).doneRows > 8, 120);
    const { address, build: before } = await json<{ address: string; build: string }>(['up']);

    const { build } = await json<{ build: string }>(['up'], next);
    expect((await look(run)).state).toBe('in_progress');
    expect(build).toMatch(/^99\.0\.0-/u);
    expect((await controlWorkers()).map((one) => [one.build, one.status])).toEqual([
      [build, 'running'],
      [before, 'draining'],
    ]);
    // It is started again from its copy, as what was installed may be gone.
    const { pid = 0 } = (await controlWorkers())[1] ?? {};
    process.kill(pid, 'SIGKILL');
    await json(['submit', data.file('few.jsonl'), '--run-id', later, ...ENGINES], next);

    for (const id of [later, run]) {
      await eventually(async () => (await look(id)).state === 'completed', 120);
    }
    const { stdout } = await data.rankflow(['results', run]);
    const ids = (parseLines(stdout) as ResultLine[]).map((line) => line.custom_id);
    expect(ids).toEqual(Array.from({ length: ROWS }, (_, row) => `row-${row}`));

    const connection = await Connection.connect({ address });
    const client = new Client({ connection });
    const buildOf = async (id: string) => {
      const { raw } = await client.workflow.getHandle(id).describe();
      return raw.workflowExecutionInfo?.versioningInfo?.deploymentVersion?.buildId;
    };
    expect(await buildOf(inferenceWorkflowId(run))).toBe(before);
    expect(await buildOf(rankWorkflowId(run, 0))).toBe(before);
    expect(await buildOf(rankWorkflowId(later, 0))).toBe(build);
    await eventually(async () => (await buildOf(fleetWorkflowId(FLEET))) === build, 60);
    await connection.close();

    await eventually(async () => (await controlWorkers()).length === 1, 90, controlWorkers);
    expect(await controlWorkers()).toMatchObject([{ build, status: 'running' }]);

    // An older release goes on with the newer one, until somebody says otherwise.
    expect(await json(['up'])).toMatchObject({ build });
    expect(await json(['up', '--rollback'])).toMatchObject({ build: before });
    expect((await controlWorkers())[0]).toMatchObject({ build: before, status: 'running' });
  },
);
