import { existsSync, readFileSync, writeFileSync } from 'node:fs';

import { afterAll, expect, it } from 'vitest';

import type { RunSnapshot } from '../../src/client/snapshot.js';
import type { FleetStatus } from '../../src/contracts/workflows.js';
import { eventually } from '../support/harness.js';
import { DataFolder, parseLines, type ResultLine } from './rankflow.js';

/** Real Temporal, workers and Ray; simulated engines, whose rate is exact: nothing here depends on answers. */
const FLEET = 'steered';
const ENGINES = [
  ...['--model', 'made-up', '--backend', 'simulated', '--engine-arg', 'tokens_per_second=60'],
  ...['--cpus-per-engine', '1', '--fleet', FLEET, '--keep', '--batch-rows', '4'],
];
const ROWS = 480;

const data = new DataFolder();
afterAll(async () => data.remove(FLEET));

const json = async <T>(...args: string[]): Promise<T> => {
  const { stdout, stderr, exitCode } = await data.rankflow([...args, '--json'], 240_000);
  if (stdout === '') throw new Error(`exit code ${exitCode}: ${stderr}`);
  return JSON.parse(stdout) as T;
};
const look = async (run: string) => json<RunSnapshot>('status', run);

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

/** Tokens per second over some seconds, by what is committed and in work. */
async function rateOf(run: string, seconds: number): Promise<number> {
  const first = await look(run);
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const last = await look(run);
  return ((last.completionTokens - first.completionTokens) * 1000) / (last.at - first.at);
}

it(
  'a run is scaled up, paused and drained by hand; its other rows are run again, and a schedule uses its engines',
  { timeout: 900_000 },
  async () => {
    writeRequests(data.file('requests.jsonl'), ROWS);
    const [run, again] = ['by-hand', 'by-hand-retry-1'];
    await json('submit', data.file('requests.jsonl'), '--run-id', run, ...ENGINES);
    await eventually(async () => (await look(run)).doneRows > 8, 180);

    const before = await rateOf(run, 10);
    expect(await json('scale', FLEET, '2')).toMatchObject({ before: 1, engines: 2 });
    await eventually(
      async () => (await json<FleetStatus>('fleet', 'status', FLEET)).ready === 2,
      120,
    );
    const after = await rateOf(run, 10);
    console.log(`${before.toFixed(0)} tokens/s with one engine, ${after.toFixed(0)} with two`);
    expect(after).toBeGreaterThan(before * 1.4);

    await json('pause', run);
    await eventually(async () => (await look(run)).state === 'paused', 30);
    await json('resume', run);
    await json('drain', run);
    await eventually(async () => (await look(run)).state === 'cancelled', 150);
    const drained = await look(run);
    expect(drained.output?.succeeded).toBeGreaterThan(8);
    expect(drained.output?.rows).toBe(ROWS);

    expect(await json('retry-failed', run, '--engines', '2', '--keep')).toMatchObject({
      runId: again,
      retryOf: run,
      rows: drained.output?.failed,
    });
    await eventually(async () => (await look(again)).state === 'completed', 240);
    const { stdout } = await data.rankflow(['results', again, '--combined']);
    const ids = (parseLines(stdout) as ResultLine[]).map((line) => line.custom_id);
    expect(ids).toEqual(Array.from({ length: ROWS }, (_, row) => `row-${row}`));

    const pattern = data.file('{date}.jsonl');
    const output = data.file('answers-{date}.jsonl');
    await json(
      ...['schedule', 'create', 'nightly', '--at', '02:00', '--time-zone', 'UTC', '--paused'],
      ...['--input', pattern, '--output', output, '--keep-last', '1', ...ENGINES],
    );
    const date = new Date().toISOString().slice(0, 10);
    writeRequests(data.file(`${date}.jsonl`), 8);
    const { runId } = await json<{ runId: string }>('schedule', 'trigger', 'nightly');
    expect(runId).toBe(`nightly-${date}`);
    const answers = data.file(`answers-${date}.jsonl`);
    await eventually(() => existsSync(answers), 90);
    expect(parseLines(readFileSync(answers, 'utf8'))).toHaveLength(8);
    expect(await json('schedule', 'delete', 'nightly')).toMatchObject({ deleted: true });
  },
);
