import { readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { afterEach, expect, test, vi } from 'vitest';

import { ClientError } from '../../../src/client/errors.js';
import type { Batch } from '../../../src/server/schemas.js';
import { recordsFolder } from '../../../src/server/serve.js';
import { ApiServer, CREATE, line, MODEL, snapshot } from '../../support/api-server.js';

let api: ApiServer;
afterEach(async () => {
  vi.useRealTimers();
  await api.close();
});

const get = (id: string): Promise<Batch> => api.get<Batch>('GET', `/v1/batches/${id}`);
const cancel = (id: string) => api.ask('POST', `/v1/batches/${id}/cancel`);
/** Batches that a fresh server would take up. */
const open = (): string[] =>
  readdirSync(path.join(recordsFolder(api.store), 'open')).filter((name) => name.endsWith('.json'));

test('a batch is a run with its id, from the upload to its results', async () => {
  api = await ApiServer.start();
  const { id: input } = (await api.upload(`${line('a')}\n${line('b')}\n`)).json();
  const body = { ...CREATE, input_file_id: input, metadata: { night: '7' } };
  const created = await api.get<Batch>('POST', '/v1/batches', { body });
  const { id } = created;
  expect(created).toMatchObject({
    object: 'batch',
    status: 'validating',
    input_file_id: input,
    endpoint: CREATE.endpoint,
    completion_window: '24h',
    metadata: { night: '7' },
    errors: null,
    output_file_id: null,
    request_counts: { total: 0, completed: 0, failed: 0 },
  });
  expect(created.expires_at - created.created_at).toBe(86_400);

  await api.rounds();
  expect(api.runs.started).toMatchObject([{ id, model: MODEL, expiresAt: created.expires_at }]);
  const running = { totalRows: 2, doneRows: 1, failedRows: 0 };
  api.runs.known.set(id, snapshot(id, running));
  await api.rounds();
  expect(await get(id)).toMatchObject({
    status: 'in_progress',
    model: MODEL,
    request_counts: { total: 2, completed: 1, failed: 0 },
    in_progress_at: expect.any(Number),
  });

  api.finish(id, '{"custom_id":"a"}\n', '{"custom_id":"b"}\n');
  await api.rounds();
  const ended = await get(id);
  expect(ended).toMatchObject({
    status: 'completed',
    request_counts: { total: 2, completed: 1, failed: 1 },
    usage: { input_tokens: 30, output_tokens: 12, total_tokens: 42 },
    completed_at: expect.any(Number),
  });
  const content = async (file: string | null) =>
    (await api.ask('GET', `/v1/files/${file}/content`)).text;
  expect(await content(ended.output_file_id)).toBe('{"custom_id":"a"}\n');
  expect(await content(ended.error_file_id)).toBe('{"custom_id":"b"}\n');
  expect(await api.get('GET', `/v1/files/${ended.output_file_id}`)).toMatchObject({
    filename: `${id}_output.jsonl`,
    purpose: 'batch_output',
    bytes: 18,
    expires_at: null,
  });
  expect(open()).toEqual([]);
  // Its results are out of the list when they are deleted, and still the run's.
  await api.get('DELETE', `/v1/files/${ended.output_file_id}`);
  expect((await api.ask('GET', `/v1/files/${ended.output_file_id}/content`)).status).toBe(404);
  expect(readdirSync(path.join(api.store, 'runs', id, 'final'))).toContain('output.jsonl');
});

test('the same batch made twice is two batches', async () => {
  api = await ApiServer.start();
  const { id: input } = (await api.upload(`${line('a')}\n`)).json();
  const body = { ...CREATE, input_file_id: input };
  const first = await api.get<Batch>('POST', '/v1/batches', { body });
  const second = await api.get<Batch>('POST', '/v1/batches', { body });
  expect(first.id).not.toBe(second.id);
  await api.rounds();
  expect(api.runs.started.map(({ id }) => id).toSorted()).toEqual([first.id, second.id]);
});

test('a batch without failed requests has no error file, and one without good ones no output file', async () => {
  api = await ApiServer.start();
  const [good, bad] = [await api.batchOf([line('a')]), await api.batchOf([line('a')])];
  api.finish(good, '{}\n');
  api.finish(bad, '', '{}\n');
  await api.rounds();
  expect(await get(good)).toMatchObject({ output_file_id: expect.any(String) });
  expect((await get(good)).error_file_id).toBeNull();
  expect((await get(bad)).output_file_id).toBeNull();
  expect((await get(bad)).error_file_id).toEqual(expect.any(String));
});

test('an input with mistakes fails its batch with every line, and no run is started', async () => {
  api = await ApiServer.start();
  const id = await api.batchOf([line('a'), '{broken', line('a')]);
  await api.rounds();
  const batch = await get(id);
  expect(batch).toMatchObject({
    status: 'failed',
    failed_at: expect.any(Number),
    errors: {
      object: 'list',
      data: [
        { line: 2, code: 'invalid_json_line', param: null, message: expect.any(String) },
        { line: 3, code: 'duplicate_custom_id', param: 'custom_id', message: expect.any(String) },
      ],
    },
  });
  expect(api.runs.started).toEqual([]);
  expect(open()).toEqual([]);
});

test('a batch whose file is not there fails, as with the original', async () => {
  api = await ApiServer.start();
  const body = { ...CREATE, input_file_id: 'file-none' };
  const { id, status } = await api.get<Batch>('POST', '/v1/batches', { body });
  expect(status).toBe('validating');
  await api.rounds();
  expect(await get(id)).toMatchObject({
    status: 'failed',
    errors: { data: [{ code: 'invalid_request', param: 'file_id', line: null }] },
  });
});

test('a cancelled batch stops, and keeps what is done', async () => {
  api = await ApiServer.start();
  const id = await api.batchOf([line('a'), line('b')]);
  await api.rounds();
  api.runs.known.set(id, snapshot(id, { totalRows: 2 }));
  const cancelling = await cancel(id);
  expect([cancelling.status, cancelling.json()]).toMatchObject([
    200,
    { status: 'cancelling', cancelling_at: expect.any(Number), cancelled_at: null },
  ]);
  expect((await cancel(id)).json()).toMatchObject({ status: 'cancelling' });
  await api.rounds(3);
  expect(api.runs.stopped).toEqual([id]);

  api.finish(id, '{"custom_id":"a"}\n', '{"custom_id":"b"}\n', 'cancelled');
  await api.rounds();
  expect(await get(id)).toMatchObject({
    status: 'cancelled',
    cancelled_at: expect.any(Number),
    completed_at: null,
    output_file_id: expect.any(String),
    request_counts: { total: 2, completed: 1, failed: 1 },
  });
  // Once more changes nothing.
  expect((await cancel(id)).json()).toMatchObject({ status: 'cancelled' });
});

test('a cancellation may name a content type and have no body, as the Python client does', async () => {
  api = await ApiServer.start();
  const id = await api.batchOf([line('a')]);
  const response = await api.server.app.inject({
    method: 'POST',
    url: `/v1/batches/${id}/cancel`,
    headers: { authorization: `Bearer ${api.key}`, 'content-type': 'application/json' },
    payload: '',
  });
  expect([response.statusCode, response.json()]).toMatchObject([200, { id }]);
});

test('a batch that has ended cannot be cancelled', async () => {
  api = await ApiServer.start();
  const id = await api.batchOf([line('a')]);
  api.finish(id, '{}\n');
  await api.rounds();
  const refused = await cancel(id);
  expect([refused.status, refused.json()]).toEqual([
    409,
    {
      error: {
        message: "Cannot cancel a batch with status 'completed'.",
        type: 'invalid_request_error',
        param: null,
        code: null,
      },
    },
  ]);
  const none = await cancel(id.replace(/.$/u, (last) => (last === '0' ? '1' : '0')));
  expect(none.status).toBe(404);
});

test('a batch is listed after those that are newer, page by page', async () => {
  api = await ApiServer.start();
  const ids: string[] = [];
  for (let n = 0; n < 5; n++) ids.unshift(await api.batchOf([line('a')]));
  type List = { data: Batch[]; has_more: boolean; first_id: string; last_id: string };
  const list = async (query: string) => api.get<List>('GET', `/v1/batches${query}`);
  const idsOf = ({ data }: List) => data.map(({ id }) => id);
  expect(idsOf(await list(''))).toEqual(ids);
  const first = await list('?limit=2');
  expect([idsOf(first), first.has_more]).toEqual([ids.slice(0, 2), true]);
  const rest = await list(`?limit=3&after=${first.last_id}`);
  expect([idsOf(rest), rest.has_more, rest.first_id]).toEqual([ids.slice(2), false, ids[2]]);
  for (const query of ['?limit=101', '?limit=0', '?after=x']) {
    expect((await api.ask('GET', `/v1/batches${query}`)).status, query).toBe(400);
  }
});

test('a damaged record hides no other batch, and holds up none', async () => {
  api = await ApiServer.start();
  api.runs.away = true;
  const damaged = await api.batchOf([line('a')]);
  const marked = await api.batchOf([line('a')]);
  const good = await api.batchOf([line('a')]);
  api.runs.away = false;
  const [key] = await api.keys.list();
  const root = recordsFolder(api.store);
  const folder = path.join(root, 'spaces', key?.namespace ?? '', 'batches');
  writeFileSync(path.join(folder, damaged, 'request.json'), '{}');
  writeFileSync(path.join(root, 'open', `${marked}.json`), '{');
  await api.rounds();
  expect(api.runs.started.map(({ id }) => id)).toEqual([good]);
  const { data } = await api.get<{ data: Batch[] }>('GET', '/v1/batches');
  expect(data.map(({ id }) => id)).toEqual([good, marked]);
});

test('while Temporal is away batches are made and asked for, and start when it is back', async () => {
  api = await ApiServer.start();
  api.runs.away = true;
  const id = await api.batchOf([line('a')]);
  await api.rounds();
  expect(await get(id)).toMatchObject({ status: 'validating' });
  expect(api.log.filter((text) => text.includes('waits for another try'))).toHaveLength(1);

  api.runs.away = false;
  await api.rounds(1);
  api.runs.known.set(id, snapshot(id, { totalRows: 1 }));
  await api.rounds(1);
  expect(await get(id)).toMatchObject({ status: 'in_progress' });
  // What was seen before stays true while nobody answers, and results are read without Temporal.
  api.runs.away = true;
  await api.rounds();
  expect(await get(id)).toMatchObject({ status: 'in_progress' });
  api.finish(id, '{}\n');
  await api.rounds();
  expect(await get(id)).toMatchObject({ status: 'completed' });
});

test('a cancellation that Temporal could not be told is told when it is back', async () => {
  api = await ApiServer.start();
  const id = await api.batchOf([line('a')]);
  await api.rounds();
  api.runs.away = true;
  expect((await cancel(id)).json()).toMatchObject({ status: 'cancelling' });
  await api.restart();
  api.runs.away = false;
  await api.rounds();
  expect(api.runs.stopped).toEqual([id]);
});

test('a server that is started again goes on with every batch, and starts none twice', async () => {
  api = await ApiServer.start();
  api.runs.away = true;
  const waiting = await api.batchOf([line('a')]);
  api.runs.away = false;
  const running = await api.batchOf([line('a')]);
  await api.rounds();
  api.runs.known.set(running, snapshot(running, { totalRows: 1 }));
  await api.rounds();
  const before = await get(running);

  await api.restart();
  expect(await get(running)).toEqual(before);
  await api.rounds();
  expect(api.runs.started.map(({ id }) => id).toSorted()).toEqual([waiting, running].toSorted());
  api.finish(running, '{}\n');
  await api.restart();
  await api.rounds();
  const ended = await get(running);
  expect(ended).toMatchObject({ status: 'completed' });
  await api.restart();
  expect(await get(running)).toEqual(ended);
});

test('a run that was started just before the server was killed is found, not started again', async () => {
  api = await ApiServer.start();
  api.runs.away = true;
  const id = await api.batchOf([line('a')]);
  await api.rounds();
  api.runs.away = false;
  // As Temporal would have it after a kill between the start and its record.
  api.runs.known.set(id, snapshot(id, { totalRows: 1 }));
  await api.restart();
  await api.rounds();
  expect(api.runs.started).toEqual([]);
  expect(await get(id)).toMatchObject({ status: 'in_progress', model: MODEL });
});

test('such a run is stopped as well when its batch was cancelled in between', async () => {
  api = await ApiServer.start();
  api.runs.away = true;
  const id = await api.batchOf([line('a')]);
  await cancel(id);
  api.runs.away = false;
  api.runs.known.set(id, snapshot(id, { totalRows: 1 }));
  await api.restart();
  await api.rounds();
  expect(api.runs.stopped).toEqual([id]);
  expect(await get(id)).toMatchObject({ status: 'cancelled' });
});

test('a run that cannot be started fails its batch, and says why only to the operator', async () => {
  api = await ApiServer.start();
  api.runs.refusal = new ClientError('Usage', '--nodes: the cluster on host-9 is another');
  const id = await api.batchOf([line('a')]);
  await api.rounds();
  const batch = await get(id);
  expect(batch).toMatchObject({ status: 'failed', errors: { data: [{ code: 'server_error' }] } });
  expect(JSON.stringify(batch)).not.toContain('host-9');
  expect(api.log.join('')).toContain('host-9');
});

test('a run that Temporal lost with its database is started again under its id', async () => {
  api = await ApiServer.start();
  const id = await api.batchOf([line('a')]);
  await api.rounds();
  api.runs.known.clear();
  await api.rounds(1);
  expect(api.runs.started.map((run) => run.id)).toEqual([id, id]);
  api.finish(id, '{}\n');
  await api.rounds();
  expect(await get(id)).toMatchObject({ status: 'completed' });
});

test('a batch expires at the end of its window as its run does, and keeps what is done', async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  api = await ApiServer.start();
  const id = await api.batchOf([line('a'), line('b')]);
  await api.rounds();
  api.runs.known.set(id, snapshot(id, { totalRows: 2 }));
  vi.setSystemTime(Date.now() + 86_400_000);
  await api.rounds();
  expect(await get(id)).toMatchObject({ status: 'finalizing', expired_at: null });
  // It would end as cancelled, with other error lines.
  expect(api.runs.stopped).toEqual([]);
  const code = 'batch_expired';
  api.finish(id, '{}\n', `{"custom_id":"b","error":{"code":"${code}"}}\n`, 'expired');
  await api.rounds();
  const batch = await get(id);
  expect(batch).toMatchObject({
    status: 'expired',
    expired_at: expect.any(Number),
    cancelled_at: null,
    output_file_id: expect.any(String),
  });
  const { text } = await api.ask('GET', `/v1/files/${batch.error_file_id}/content`);
  expect(JSON.parse(text)).toMatchObject({ error: { code } });
});

test('a run that does not expire by itself is stopped, and its batch has expired', async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  api = await ApiServer.start();
  const id = await api.batchOf([line('a'), line('b')]);
  await api.rounds();
  api.runs.known.set(id, snapshot(id, { totalRows: 2 }));
  vi.setSystemTime(Date.now() + 86_400_000 + 60_000);
  await api.rounds();
  expect(api.runs.stopped).toEqual([id]);
  api.finish(id, '{}\n', '{}\n', 'cancelled');
  await api.rounds();
  expect(await get(id)).toMatchObject({ status: 'expired', cancelled_at: null });
});

test('a batch that never started expires without a run', async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  api = await ApiServer.start();
  api.runs.away = true;
  const id = await api.batchOf([line('a')]);
  vi.setSystemTime(Date.now() + 86_400_000);
  api.runs.away = false;
  await api.restart();
  await api.rounds();
  expect(api.runs.started).toEqual([]);
  expect(await get(id)).toMatchObject({ status: 'expired', output_file_id: null });
});

test('results are kept as long as the batch asked for', async () => {
  api = await ApiServer.start();
  const id = await api.batchOf([line('a')], {
    output_expires_after: { anchor: 'created_at', seconds: 7_200 },
  });
  api.finish(id, '{}\n');
  await api.rounds();
  const { output_file_id: output } = await get(id);
  const file = await api.get<{ created_at: number; expires_at: number }>(
    'GET',
    `/v1/files/${output}`,
  );
  expect(file.expires_at - file.created_at).toBe(7_200);
});
