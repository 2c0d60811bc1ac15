import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import type { FleetStatus } from '../../src/contracts/workflows.js';
import { DataFolder, readLines, type ResultLine } from './rankflow.js';

/** Each death of an engine is noticed when its heartbeat is missing: up to a minute, five times. */
const TIMEOUT_MS = 900_000;
const FLEET = 'poison';
const TEXT = 'arsenic';
/** Real Ray nodes, actors and workers; the engines are simulated, and their processes really die. */
const SIZE = [
  ...['--model', 'made-up', '--backend', 'simulated', '--engines', '2', '--nodes', '2'],
  ...['--cpus-per-engine', '1', '--ranks', '2', '--fleet', FLEET, '--keep'],
];

/**
 * Two deaths make the batch suspect, one finds the 16 rows among which the poison is, and two convict it. The
 * batches beside it may be suspected too, and then run alone without a death.
 */
const MOST_DEATHS = 5;

let folder: DataFolder;
beforeAll(() => {
  folder = new DataFolder({ RANKFLOW_FAULTS: JSON.stringify({ poison: TEXT }) });
});
afterAll(async () => folder.remove(FLEET), TIMEOUT_MS);

test(
  'an engine that is asked to end gives its batches back at once, with the rows that it finished',
  async () => {
    const rows = 600;
    // Half a minute of work for both engines together.
    const requests = write('long.jsonl', (row) => request(row, 'question', 200), rows);
    const out = folder.file('out/long.jsonl');
    const running = folder.rankflow(
      ['run', requests, ...SIZE, '--batch-rows', '100', '--out', out, '--json'],
      TIMEOUT_MS,
    );
    let ended: { pid: number; at: number } | undefined;
    let runId = '';
    for await (const line of running) {
      const event = JSON.parse(line) as { event: string; doneRows: number; runId: string };
      if (ended !== undefined || event.event !== 'progress' || event.doneRows < 50) continue;
      const incarnation = (await fleet()).slots[0]?.incarnation;
      ended = { pid: Number(incarnation?.split('-').at(-1)), at: Date.now() };
      expect(ended.pid).toBeGreaterThan(1);
      process.kill(ended.pid, 'SIGTERM');
      runId = event.runId;
    }
    const { exitCode, stderr } = await running;
    expect(exitCode, stderr).toBe(0);
    expect(readLines(out)).toHaveLength(rows);

    // Every attempt that it had to leave says so: none is taken for a death later.
    const left = read(runId, 'journals').filter(({ end }) => end === 'released');
    expect(left.some(({ engine }) => engine?.endsWith(`-${ended?.pid}`))).toBe(true);
    expect(deadEngines(runId)).toEqual([]);
  },
  TIMEOUT_MS,
);

test(
  'a request that kills its engine each time is one error row, and every other one is answered',
  async () => {
    const rows = 240;
    const poison = 137;
    const requests = write(
      'poison.jsonl',
      (row) => request(row, row === poison ? `a spoon of ${TEXT}` : 'question', 8),
      rows,
    );
    const out = folder.file('out/poison.jsonl');
    const { exitCode, stdout, stderr } = await folder.rankflow(
      ['run', requests, ...SIZE, '--batch-rows', '60', '--out', out],
      TIMEOUT_MS,
    );
    // A row failed, the run did not.
    expect(exitCode, stderr).toBe(1);
    expect(stderr).toContain(`${rows} rows: ${rows - 1} succeeded, 1 failed`);
    expect(stderr).toMatch(/\d in quarantine/u);

    const answered = (readLines(out) as ResultLine[]).map(({ custom_id: id }) => id);
    const ids = Array.from({ length: rows }, (_, row) => `row-${row}`);
    expect(answered).toEqual(ids.toSpliced(poison, 1));
    const errors = await folder.rankflow(['results', stdout.trim(), '--errors']);
    expect(JSON.parse(errors.stdout)).toMatchObject({
      custom_id: `row-${poison}`,
      response: null,
      error: { code: 'engine_died' },
    });
    expect(errors.stdout).not.toContain(TEXT);

    const deaths = deadEngines(stdout.trim()).length;
    console.log(`${deaths} engines died until the poison stood alone, of at most ${MOST_DEATHS}`);
    expect(deaths).toBeGreaterThan(2);
    expect(deaths).toBeLessThanOrEqual(MOST_DEATHS);
  },
  TIMEOUT_MS,
);

function request(row: number, content: string, maxTokens: number): object {
  const messages = [{ role: 'user', content: `${content} ${row}` }];
  const body = { messages, max_tokens: maxTokens };
  return { custom_id: `row-${row}`, method: 'POST', url: '/v1/chat/completions', body };
}

function write(name: string, line: (row: number) => object, rows: number): string {
  const file = folder.file(name);
  const lines = Array.from({ length: rows }, (_, row) => `${JSON.stringify(line(row))}\n`);
  writeFileSync(file, lines.join(''));
  return file;
}

async function fleet(): Promise<FleetStatus> {
  const { stdout } = await folder.rankflow(['fleet', 'status', FLEET, '--json']);
  return JSON.parse(stdout) as FleetStatus;
}

/** Lives of engines that ended under an attempt, which neither committed nor wrote how it ended. */
function deadEngines(runId: string): string[] {
  const journals = read(runId, 'journals');
  const ended = journals.filter(({ end }) => end !== undefined);
  const over = new Set([...ended, ...read(runId, 'commits')].map(({ token }) => token));
  const dead = journals.filter(({ token }) => !over.has(token));
  return [...new Set(dead.map(({ engine }) => engine ?? ''))];
}

interface Stored {
  readonly token: string;
  readonly engine?: string;
  readonly end?: string;
}

/** The JSON objects below a folder of a run; entries of a journal get the token from their name. */
function read(runId: string, what: 'commits' | 'journals'): Stored[] {
  const root = folder.file(path.join('store/runs', runId, what));
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.json'))
    .map((name) => ({
      token: path.basename(name).split('.')[0] ?? '',
      ...(JSON.parse(readFileSync(path.join(root, name), 'utf8')) as object),
    }));
}
