import { writeFileSync } from 'node:fs';
import path from 'node:path';

import { execa } from 'execa';
import OpenAI from 'openai';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';

import { paths } from '../../src/setup/paths.js';
import { DataFolder, parseLines } from '../e2e/rankflow.js';
import { nodeTour } from './openai-tour.js';
import type { Line, Tour, TourInput } from './tour.js';

/** A real Temporal server, real Ray and a simulated engine behind a server that really runs. */
const TIMEOUT_MS = 300_000;
const MODEL = 'simulated-model';
const FLEET = 'serve';
/** In every prompt, and nowhere else. */
const SECRET = 'open sesame';
const SMALL = 10;
/** At 300 tokens a second, about 9 tokens a row: far from done when it is cancelled. */
const LARGE = 1_000;

let folder: DataFolder;
let server: ReturnType<DataFolder['rankflow']> | undefined;
let baseURL = '';
let log = '';
const keys: string[] = [];

beforeAll(async () => {
  folder = new DataFolder();
  for (const name of ['python', 'node', 'stranger']) {
    keys.push((await folder.rankflow(['serve', 'keys', 'create', name])).stdout);
  }
  writeFileSync(
    folder.file('small.jsonl'),
    [...rows(SMALL), row('long', 'x'.repeat(9_000))].join(''),
  );
  writeFileSync(folder.file('large.jsonl'), rows(LARGE).join(''));
  writeFileSync(folder.file('bad.jsonl'), `${row('a')}{"${SECRET}"\n${row('a')}`);
  writeFileSync(folder.file('huge.jsonl'), 'x'.repeat(1_500_000));
  await startServer();
}, TIMEOUT_MS);

afterAll(async () => {
  server?.kill('SIGKILL');
  await folder.remove(FLEET);
}, TIMEOUT_MS);

const rows = (count: number): string[] =>
  Array.from({ length: count }, (_, n) => row(`row-${n}`, `${n}`));

const row = (id: string, text = ''): string =>
  `${JSON.stringify({
    custom_id: id,
    method: 'POST',
    url: '/v1/chat/completions',
    body: {
      model: MODEL,
      messages: [{ role: 'user', content: `${SECRET} ${text}` }],
      max_tokens: 16,
    },
  })}\n`;

async function startServer(): Promise<void> {
  const started = folder.rankflow(
    [
      ...['serve', '--port', '0', '--model', MODEL, '--backend', 'simulated', '--fleet', FLEET],
      ...['--engine-arg', 'tokens_per_second=300', '--max-model-len', '1024'],
      ...['--batch-rows', '10', '--max-file-mb', '1'],
    ],
    TIMEOUT_MS,
  );
  server = started;
  started.stderr.on('data', (piece: Buffer) => {
    log += piece.toString();
  });
  const address = new Promise<string>((resolve) => {
    started.stdout.once('data', (piece: Buffer) => resolve(piece.toString().trim()));
  });
  baseURL = await Promise.race([address, started.then(({ stderr }) => stderr)]);
  expect(baseURL).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/v1$/u);
}

const inputOf = (key: number): TourInput => ({
  baseURL,
  key: keys[key] ?? '',
  otherKey: keys[2] ?? '',
  small: folder.file('small.jsonl'),
  large: folder.file('large.jsonl'),
  bad: folder.file('bad.jsonl'),
  huge: folder.file('huge.jsonl'),
});

test(
  "the official Python client works as with OpenAI's own service",
  async () => {
    const script = path.join(paths.packageRoot, 'test/server/openai_tour.py');
    const { stdout } = await execa(paths.python, [script, JSON.stringify(inputOf(0))]);
    expectTour(JSON.parse(stdout) as Tour, 'python');
  },
  TIMEOUT_MS,
);

test(
  "the official Node client works as with OpenAI's own service",
  async () => expectTour(await nodeTour(inputOf(1)), 'node'),
  TIMEOUT_MS,
);

const idsOf = (lines: readonly Line[]): string[] => lines.map(({ custom_id: id }) => id);

function expectTour(tour: Tour, client: 'python' | 'node'): void {
  expect(tour.models).toEqual([MODEL]);
  expect(tour.uploaded).toMatchObject({
    object: 'file',
    purpose: 'batch',
    filename: 'small.jsonl',
    status: 'processed',
  });

  // Upload, create, poll, download.
  const { created, completed } = tour;
  expect(created).toMatchObject({
    object: 'batch',
    status: 'validating',
    input_file_id: tour.uploaded.id,
    metadata: { night: '7' },
  });
  const order = ['validating', 'in_progress', 'finalizing', 'completed'];
  expect(order.filter((status) => tour.statuses.includes(status))).toEqual(tour.statuses);
  expect(completed).toMatchObject({
    id: created.id,
    status: 'completed',
    model: MODEL,
    request_counts: { total: SMALL + 1, completed: SMALL, failed: 1 },
  });
  const [from, began, finalized, ended] = [
    ...['created_at', 'in_progress_at', 'finalizing_at', 'completed_at'],
  ].map((name) => Number(completed[name]));
  expect(from).toBeLessThanOrEqual(began ?? NaN);
  expect(began).toBeLessThanOrEqual(finalized ?? NaN);
  expect(finalized).toBeLessThanOrEqual(ended ?? NaN);
  expect(idsOf(tour.output)).toEqual(Array.from({ length: SMALL }, (_, n) => `row-${n}`));
  expect(tour.output.every(({ response }) => response?.status_code === 200)).toBe(true);
  expect(tour.errors).toMatchObject([
    { custom_id: 'long', error: { code: 'context_length_exceeded' } },
  ]);

  // Cancel: what is done is kept, every other row is accounted for.
  expect(tour.cancelling.status).toBe('cancelling');
  expect(tour.cancelled.status).toBe('cancelled');
  const { completed: done, failed: never } = tour.cancelled.request_counts;
  expect(done).toBeGreaterThan(0);
  expect(never).toBeGreaterThan(0);
  expect([done + never, tour.partial.length, tour.never.length]).toEqual([LARGE, done, never]);
  expect(new Set([...idsOf(tour.partial), ...idsOf(tour.never)]).size).toBe(LARGE);
  expect(tour.never[0]?.error?.code).toBe('batch_cancelled');

  // Mistakes in the input.
  expect(tour.failed).toMatchObject({
    status: 'failed',
    errors: {
      object: 'list',
      data: [
        { line: 2, code: 'invalid_json_line' },
        { line: 3, code: 'duplicate_custom_id', param: 'custom_id' },
      ],
    },
  });
  expect(tour.missing).toMatchObject({
    status: 'failed',
    errors: { data: [{ code: 'invalid_request', param: 'file_id' }] },
  });

  // Pages, and who sees what.
  expect(tour.batches).toEqual([tour.missing.id, tour.failed.id, tour.cancelled.id, created.id]);
  expect(tour.inputs).toHaveLength(3);
  const written = [tour.cancelled, completed].flatMap((batch) => [
    batch.output_file_id,
    batch.error_file_id,
  ]);
  expect(new Set(tour.outputs)).toEqual(new Set(written));
  expect(tour.outputs).toHaveLength(4);
  expect(tour.deleted).toEqual({ id: tour.uploaded.id, object: 'file', deleted: true });
  expectRefusals(tour.refused, client);
}

function expectRefusals(refused: Tour['refused'], client: 'python' | 'node'): void {
  const invalid = { type: 'invalid_request_error' };
  const notFound = { class: 'NotFoundError', status: 404, ...invalid };
  expect(refused).toMatchObject({
    key: { class: 'AuthenticationError', status: 401, code: 'invalid_api_key', ...invalid },
    purpose: { class: 'BadRequestError', status: 400, param: 'purpose', ...invalid },
    file: { ...notFound, param: 'id' },
    content: notFound,
    batch: notFound,
    endpoint: { class: 'BadRequestError', status: 400, param: 'endpoint', code: 'invalid_value' },
    ended: { class: 'ConflictError', status: 409, ...invalid },
    // Both clients have a class of their own for this status, or none.
    large: { status: 413, code: 'file_too_large', ...invalid },
    stranger: notFound,
    strangersFile: notFound,
    deleted: notFound,
  });
  expect(refused['large']?.class).toBe(client === 'python' ? 'APIStatusError' : 'APIError');
}

test('batches are ordinary runs: the command line lists them under their ids', async () => {
  const { stdout } = await folder.rankflow(['list', '--json']);
  const runs = (JSON.parse(stdout) as { runId: string; fleet: string }[]).map((run) => run);
  const batches = runs.filter(({ runId }) => runId.startsWith('batch_'));
  // Two of each tour; those that failed at their input never were runs.
  expect(batches).toHaveLength(4);
  expect(batches.every(({ fleet }) => fleet === FLEET)).toBe(true);
});

test(
  'a server that is killed loses nothing: its batch goes on and is found again',
  async () => {
    const api = () => new OpenAI({ baseURL, apiKey: keys[1] });
    const file = await api().files.create({
      file: new File([rows(200).join('')], 'x.jsonl'),
      purpose: 'batch',
    });
    const { id } = await api().batches.create({
      input_file_id: file.id,
      endpoint: '/v1/chat/completions',
      completion_window: '24h',
    });
    await vi.waitFor(
      async () => expect((await api().batches.retrieve(id)).status).toBe('in_progress'),
      { timeout: 60_000, interval: 300 },
    );
    server?.kill('SIGKILL');
    await expect(api().batches.retrieve(id, { maxRetries: 0 })).rejects.toThrow(/onnection/u);
    await startServer();
    const ended = await vi.waitFor(
      async () => {
        const batch = await api().batches.retrieve(id);
        expect(batch.status).toBe('completed');
        return batch;
      },
      { timeout: 60_000, interval: 500 },
    );
    const content = await (await api().files.content(ended.output_file_id ?? '')).text();
    expect(parseLines(content)).toHaveLength(200);
  },
  TIMEOUT_MS,
);

test('the server ends when it is told to, and no prompt has reached its log', async () => {
  server?.kill('SIGTERM');
  const result = await server;
  expect(result?.exitCode).toBe(0);
  expect(log).toContain('started the run of a batch');
  expect(log).not.toContain(SECRET);
  expect(log).not.toContain(keys[0]?.slice(-20));
});
