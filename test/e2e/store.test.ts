import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';

import { execa } from 'execa';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';

import type { RunSnapshot } from '../../src/client/snapshot.js';
import { startBucketServer, type BucketServer } from '../support/bucket-server.js';
import { DataFolder, readLines } from './rankflow.js';

/** Real Temporal, workers and Ray nodes; simulated engines, as nothing here depends on what they answer. */
const TIMEOUT_MS = 300_000;
const FLEET = 'lost';
const ROWS = 100;
const SIZE = [
  ...['--model', 'made-up', '--backend', 'simulated', '--engine-arg', 'tokens_per_second=60'],
  ...['--cpus-per-engine', '1', '--ranks', '2', '--batch-rows', '5', '--fleet', FLEET, '--keep'],
];
/** Rows that are done before the world ends; about a quarter, so that much is left to do. */
const BEFORE = 25;

/** Rows for the bucket: each batch takes a dozen requests to it. */
const FEW = 20;

let folder: DataFolder;
let bucket: BucketServer;

beforeAll(async () => {
  folder = new DataFolder();
  bucket = await startBucketServer('runs');
  // Workers and engines read their bucket's settings from the environment that starts the stack.
  Object.assign(process.env, bucket.env);
});
afterAll(async () => {
  await folder.remove(FLEET);
  await bucket.close();
  for (const name of Object.keys(bucket.env)) delete process.env[name];
}, TIMEOUT_MS);

const ids = (name: string): string[] => Array.from({ length: ROWS }, (_, row) => `${name}-${row}`);

/** A request file whose content is its own, so that every test has a run of its own. */
function requests(name: string): string {
  const file = folder.file(`${name}.jsonl`);
  const line = (id: string): string =>
    JSON.stringify({
      custom_id: id,
      method: 'POST',
      url: '/v1/chat/completions',
      body: { messages: [{ role: 'user', content: `Say something about ${id}.` }], max_tokens: 8 },
    });
  writeFileSync(file, `${ids(name).map(line).join('\n')}\n`);
  return file;
}

/** Starts a run and returns in the middle of it, with the command still watching. */
async function startAndWait(command: readonly string[]) {
  const running = folder.rankflow([...command, '--json'], TIMEOUT_MS);
  let runId = '';
  for await (const line of running.iterable({ from: 'stdout' })) {
    const event = JSON.parse(line) as { event: string } & RunSnapshot;
    ({ runId } = event);
    if (event.event === 'result' || event.event === 'error') throw new Error(line);
    if (event.event === 'progress' && event.doneRows >= BEFORE && commitsOf(runId).length > 2)
      break;
  }
  return runId;
}

const runFolder = (runId: string): string => folder.file(`store/runs/${runId}`);
const commitsOf = (runId: string): string[] => {
  const commits = `${runFolder(runId)}/commits`;
  return existsSync(commits) ? readdirSync(commits).toSorted() : [];
};

/** Attempts of some batches: one more means that rows of it were generated again. */
const attemptsOf = (runId: string, commits: readonly string[]): string[] =>
  commits.flatMap((commit) => {
    const batch = commit.replace('.json', '');
    return readdirSync(`${runFolder(runId)}/attempts/${batch}`).map((name) => `${batch}/${name}`);
  });

/** Every process that was started with this data folder, wherever it hangs in the process tree. */
function processesOfFolder(): number[] {
  const variable = `RANKFLOW_HOME=${folder.home}`;
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 1 && pid !== process.pid && environmentOf(pid).includes(variable));
}

function environmentOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
  } catch {
    return [];
  }
}

function kill(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended with another one.
    }
  }
}

/** Of each process of the folder, whether a Ray node started it. */
const isOfNode = (pid: number): boolean =>
  environmentOf(pid).some((variable) => variable.startsWith('RANKFLOW_NODE='));

function loseDatabase(): void {
  const stack = folder.file('stack');
  for (const file of readdirSync(stack).filter((name) => name.startsWith('temporal.db'))) {
    rmSync(`${stack}/${file}`);
  }
}

async function finishAndCheck(runId: string, name: string, command: readonly string[]) {
  const before = commitsOf(runId);
  const attempts = attemptsOf(runId, before);
  expect(before.length).toBeGreaterThan(2);
  expect(before.length).toBeLessThan(ROWS / 5);
  const out = folder.file(`${name}.out.jsonl`);
  const { exitCode, stdout, stderr } = await folder.rankflow(
    [...command, '--out', out],
    TIMEOUT_MS,
  );
  expect([exitCode, stdout.trim()], stderr).toEqual([0, runId]);
  expect(stderr).toContain('Going on with what an earlier try committed');
  const answered = (readLines(out) as { custom_id: string }[]).map((line) => line.custom_id);
  expect(answered).toEqual(ids(name));
  expect(attemptsOf(runId, before)).toEqual(attempts);
  const verified = await folder.rankflow(['verify', runId, '--json']);
  expect([verified.exitCode, JSON.parse(verified.stdout)]).toMatchObject([
    0,
    { valid: true, rows: ROWS, succeeded: ROWS },
  ]);
}

test(
  'after everything was killed and the database lost, the same command generates only what is missing',
  async () => {
    const command = ['run', requests('all'), ...SIZE];
    const runId = await startAndWait(command);
    kill(processesOfFolder());
    await expect.poll(() => processesOfFolder(), { timeout: 20_000 }).toEqual([]);
    loseDatabase();
    const listed = await folder.rankflow(['list', '--json']);
    expect(JSON.parse(listed.stdout)).toMatchObject([
      { runId, state: 'in_progress', onlyStored: true },
    ]);
    await finishAndCheck(runId, 'all', command);
  },
  TIMEOUT_MS,
);

test(
  'nodes and engines that a lost database left running are ended, and the run goes on with new ones',
  async () => {
    const command = ['run', requests('orphans'), ...SIZE];
    const runId = await startAndWait(command);
    const processes = processesOfFolder();
    const orphans = processes.filter(isOfNode);
    expect(orphans.length).toBeGreaterThan(3);
    kill(processes.filter((pid) => !orphans.includes(pid)));
    loseDatabase();
    await finishAndCheck(runId, 'orphans', command);
    expect(processesOfFolder().filter((pid) => orphans.includes(pid))).toEqual([]);
  },
  TIMEOUT_MS,
);

test.skipIf(process.getuid?.() !== 0)(
  'a run whose disk fills up pauses, says the way out, and goes on by itself when there is room',
  async () => {
    const disk = folder.file('disk');
    mkdirSync(disk);
    await execa('mount', ['-t', 'tmpfs', '-o', 'size=300m', 'none', disk]);
    onTestFinished(async () => {
      await execa('umount', ['--lazy', disk]);
    });
    const store = `${disk}/store`;
    const command = ['run', requests('full'), ...SIZE, '--store', store, '--json'];
    const running = folder.rankflow(command, TIMEOUT_MS);
    const filler = `${disk}/filler`;
    let filled = false;
    let paused: RunSnapshot | undefined;
    for await (const line of running) {
      const event = JSON.parse(line) as { event: string } & RunSnapshot;
      if (event.event !== 'progress') continue;
      if (!filled && event.doneRows >= BEFORE) {
        filled = true;
        await execa('dd', ['if=/dev/zero', `of=${filler}`, 'bs=1M'], { reject: false });
        await execa('dd', ['if=/dev/zero', `of=${filler}-2`, 'bs=4k'], { reject: false });
      }
      if (paused === undefined && event.state === 'paused') {
        paused = event;
        const status = await folder.rankflow(['status', event.runId]);
        expect(status.stdout).toContain(`way out: Free some space on ${store}`);
        for (const file of [filler, `${filler}-2`]) rmSync(file);
      }
    }
    const { exitCode, stderr } = await running;
    expect(exitCode, stderr).toBe(0);
    expect(paused).toMatchObject({ troubles: [{ type: 'StoreFull' }] });
    expect(paused?.doneRows).toBeLessThan(ROWS);
    const runId = paused?.runId ?? '';
    const verified = await folder.rankflow(['verify', runId, '--store', store]);
    expect([verified.exitCode, verified.stdout]).toEqual([0, expect.stringContaining('valid:')]);
  },
  TIMEOUT_MS,
);

test(
  'a run whose store is a bucket is generated, shown, read and checked from there',
  async () => {
    const store = ['--store', `${bucket.root}/some/prefix`];
    const command = ['run', requests('bucket'), ...SIZE, '--limit', String(FEW), ...store];
    const out = folder.file('bucket.out.jsonl');
    const { exitCode, stdout, stderr } = await folder.rankflow(
      [...command, '--out', out],
      TIMEOUT_MS,
    );
    expect(exitCode, stderr).toBe(0);
    const runId = stdout.trim();
    const answered = (readLines(out) as { custom_id: string }[]).map((line) => line.custom_id);
    expect(answered).toEqual(ids('bucket').slice(0, FEW));
    expect(existsSync(runFolder(runId))).toBe(false);

    const again = await folder.rankflow(command);
    expect([again.exitCode, again.stderr]).toEqual([0, expect.stringContaining('is finished')]);
    const status = await folder.rankflow(['status', runId]);
    expect(status.stdout).toContain(`${bucket.root}/some/prefix/runs/${runId}/output.jsonl`);
    // Temporal knows where the run is: neither has to be told.
    const results = await folder.rankflow(['results', runId, '--rank', '1']);
    expect(results.stdout.trim().split('\n')).toHaveLength(FEW / 2);
    const verified = await folder.rankflow(['verify', runId]);
    expect([verified.exitCode, verified.stdout]).toEqual([0, expect.stringContaining('valid:')]);
  },
  TIMEOUT_MS,
);
