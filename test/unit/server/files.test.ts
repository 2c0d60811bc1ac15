import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';

import { afterEach, expect, test, vi } from 'vitest';
import type { z } from 'zod';

import { derivedId, newId } from '../../../src/server/ids.js';
import type { FileList, FileObject } from '../../../src/server/schemas.js';
import { Spaces } from '../../../src/server/spaces.js';
import { recordsFolder } from '../../../src/server/serve.js';
import { ApiServer, CREATE, line } from '../../support/api-server.js';

let api: ApiServer;
afterEach(async () => api.close());

type List = z.infer<typeof FileList>;

/** Everything that is on disk for uploads, of all namespaces. */
const onDisk = (): string[] =>
  readdirSync(recordsFolder(api.store), { recursive: true, encoding: 'utf8' }).filter((name) =>
    /(?:files|contents)\/./u.test(name),
  );

test('what is uploaded is found, read and deleted', async () => {
  api = await ApiServer.start();
  const text = `${line('a')}\n`;
  const uploaded = (await api.upload(text)).json<FileObject>();
  expect(uploaded).toEqual({
    id: uploaded.id,
    object: 'file',
    bytes: Buffer.byteLength(text),
    created_at: uploaded.created_at,
    expires_at: uploaded.created_at + 30 * 86_400,
    filename: 'requests.jsonl',
    purpose: 'batch',
    status: 'processed',
    status_details: null,
  });
  expect(Math.abs(uploaded.created_at - Date.now() / 1000)).toBeLessThan(10);
  expect(await api.get('GET', `/v1/files/${uploaded.id}`)).toEqual(uploaded);
  const content = await api.ask('GET', `/v1/files/${uploaded.id}/content`);
  expect([content.text, content.headers['content-length']]).toEqual([text, `${text.length}`]);

  await api.restart();
  expect(await api.get('GET', `/v1/files/${uploaded.id}`)).toEqual(uploaded);
  const deleted = { id: uploaded.id, object: 'file', deleted: true };
  expect(await api.get('DELETE', `/v1/files/${uploaded.id}`)).toEqual(deleted);
  const gone = await api.ask('DELETE', `/v1/files/${uploaded.id}`);
  expect([gone.status, gone.json()]).toEqual([
    404,
    {
      error: {
        message: `No such File object: ${uploaded.id}`,
        type: 'invalid_request_error',
        param: 'id',
        code: null,
      },
    },
  ]);
  expect(onDisk()).toEqual([]);
});

test.each([
  [{}, 'purpose', /Missing/u],
  [{ purpose: 'fine-tune' }, 'purpose', /'batch' only/u],
  [{ purpose: 'batch', 'expires_after[seconds]': '60' }, 'expires_after.anchor', /./u],
])(
  'an upload with the fields %j is refused, and nothing of it is kept',
  async (fields, param, message) => {
    api = await ApiServer.start();
    const refused = await api.upload(`${line('a')}\n`, fields);
    expect([refused.status, refused.json()]).toMatchObject([
      400,
      { error: { type: 'invalid_request_error', param, message: expect.stringMatching(message) } },
    ]);
    expect(onDisk()).toEqual([]);
  },
);

test.each(['', '; filename=""'])(
  'a file without a name (%j) is refused, and the list goes on',
  async (name) => {
    api = await ApiServer.start();
    const part = (head: string, text: string) => `--b\r\n${head}\r\n\r\n${text}\r\n`;
    const purpose = part('Content-Disposition: form-data; name="purpose"', 'batch');
    const head = `Content-Disposition: form-data; name="file"${name}`;
    const file = part(`${head}\r\nContent-Type: application/octet-stream`, line('a'));
    const response = await api.server.app.inject({
      ...{ method: 'POST', url: '/v1/files', payload: `${purpose}${file}--b--\r\n` },
      headers: {
        authorization: `Bearer ${api.key}`,
        'content-type': 'multipart/form-data; boundary=b',
      },
    });
    expect([response.statusCode, response.json()]).toMatchObject([
      400,
      { error: { param: 'file', message: expect.stringMatching(/no file name/u) } },
    ]);
    expect((await api.get<List>('GET', '/v1/files')).data).toEqual([]);
    expect(onDisk()).toEqual([]);
  },
);

test('a damaged record hides no other file, can be deleted, and holds up no sweep', async () => {
  api = await ApiServer.start();
  const fields = { 'expires_after[anchor]': 'created_at', 'expires_after[seconds]': '3600' };
  const good = (await api.upload('x', { purpose: 'batch', ...fields })).json<FileObject>();
  const damaged = [(await api.upload('y')).json().id, (await api.upload('z')).json().id];
  const [key] = await api.keys.list();
  const files = path.join(recordsFolder(api.store), 'spaces', key?.namespace ?? '', 'files');
  const [nameless = '', torn = ''] = damaged.map((id) => path.join(files, `${id}.json`));
  const { filename: _, ...rest } = JSON.parse(readFileSync(nameless, 'utf8')) as FileObject;
  writeFileSync(nameless, JSON.stringify(rest));
  writeFileSync(torn, '{"id');

  const listed = await api.get<List>('GET', '/v1/files');
  expect(listed.data.map(({ id }) => id)).toEqual([good.id]);
  expect((await api.ask('GET', `/v1/files/${damaged[0]}`)).status).toBe(404);
  expect(api.log.join('')).toContain('not readable');
  const later = () => (good.created_at + 3_601) * 1000;
  await new Spaces(api.store, recordsFolder(api.store), later).sweep();
  expect(onDisk().filter((name) => name.includes(good.id))).toEqual([]);
  for (const id of damaged) await api.get('DELETE', `/v1/files/${id}`);
  expect(onDisk()).toEqual([]);
});

test('a namespace that cannot be swept holds up no other', async () => {
  api = await ApiServer.start();
  const spaces = path.join(recordsFolder(api.store), 'spaces');
  // A file where a folder belongs, and before all others.
  mkdirSync(path.join(spaces, '0'), { recursive: true });
  writeFileSync(path.join(spaces, '0', 'files'), '');
  const { id } = (await api.upload('x')).json();
  await new Spaces(api.store, recordsFolder(api.store), () => Date.now() + 31 * 86_400_000).sweep();
  expect(onDisk().filter((name) => name.includes(id))).toEqual([]);
});

test('the purpose may come after the file, and the file has to be there', async () => {
  api = await ApiServer.start();
  const after = new FormData();
  after.set('file', new Blob(['{}\n']), 'x.jsonl');
  after.set('purpose', 'batch');
  expect((await api.ask('POST', '/v1/files', { body: after })).status).toBe(200);
  const none = new FormData();
  none.set('purpose', 'batch');
  const missing = await api.ask('POST', '/v1/files', { body: none });
  expect([missing.status, missing.json()]).toMatchObject([400, { error: { param: 'file' } }]);
});

test('a file that is too large, has too many rows or none is refused, and nothing of it is kept', async () => {
  api = await ApiServer.start();
  await api.restart({ bytes: 100_000, rows: 3 });
  const refused = async (text: string) => {
    const response = await api.upload(text);
    return [response.status, response.json()];
  };
  // More than the limit and what a form may add: seen by its length, before it is read.
  expect(await refused('x'.repeat(200_000))).toMatchObject([413, { error: { param: 'file' } }]);
  expect(await refused('x'.repeat(100_001))).toMatchObject([
    413,
    { error: { code: 'file_too_large' } },
  ]);
  expect(await refused('{}\n'.repeat(4))).toMatchObject([
    400,
    { error: { code: 'too_many_tasks' } },
  ]);
  expect(await refused('')).toMatchObject([
    400,
    { error: { message: expect.stringMatching(/empty/u) } },
  ]);
  expect(onDisk()).toEqual([]);
  expect((await api.upload('x'.repeat(100_000))).status).toBe(200);
  expect((await api.upload('{}\n\n{}\n\n{}')).status).toBe(200);
});

test('a flood of files ends at what a namespace may store, results included', async () => {
  api = await ApiServer.start();
  await api.restart({ storedBytes: 150_000 });
  const full = async (text: string, key = api.key) => {
    const response = await api.upload(text, { purpose: 'batch' }, key);
    return [response.status, response.json()];
  };
  const refused = [403, { error: { code: 'storage_limit_exceeded' } }];
  const before = await api.batchOf([line('a')]);
  // Seen by its length, before it is read; and what is within the slack of the form, when it is there.
  expect(await full('x'.repeat(300_000))).toMatchObject(refused);
  expect(await full('x'.repeat(160_000))).toMatchObject(refused);
  expect(onDisk()).toHaveLength(2);
  const kept = await Promise.all(['a', 'b', 'c'].map(async (text) => full(text.repeat(70_000))));
  expect(kept.filter(([status]) => status === 200).length).toBeLessThanOrEqual(2);
  // Others have their own room, and who deletes has room again.
  expect(await full('x'.repeat(100_000), await api.newKey())).toMatchObject([200, {}]);
  const { data } = await api.get<List>('GET', '/v1/files');
  for (const { id } of data) await api.get('DELETE', `/v1/files/${id}`);
  expect(await full('x'.repeat(140_000))).toMatchObject([200, {}]);

  // Results of a batch count, and no other begins while there are too many.
  api.finish(before, `${'x'.repeat(20_000)}\n`);
  await api.rounds();
  const body = { ...CREATE, input_file_id: data[0]?.id };
  const batch = await api.ask('POST', '/v1/batches', { body });
  expect([batch.status, batch.json()]).toMatchObject(refused);
});

test('an upload is on disk while it comes: it is never held whole', async () => {
  api = await ApiServer.start();
  const { address, port } = await listen();
  const boundary = 'b';
  const upload = httpRequest({
    ...{ host: address, port, method: 'POST', path: '/v1/files' },
    headers: {
      authorization: `Bearer ${api.key}`,
      'content-type': `multipart/form-data; boundary=${boundary}`,
    },
  });
  upload.on('error', () => {});
  upload.write(
    `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n{"a": 1}\n`,
  );
  upload.write('x'.repeat(200_000));
  await vi.waitFor(() => expect(onDisk()).toHaveLength(1));
  expect((await api.get<List>('GET', '/v1/files')).data).toEqual([]);
  // And nothing is left of one that breaks off.
  upload.destroy();
  await vi.waitFor(() => expect(onDisk()).toEqual([]));
});

async function listen(): Promise<AddressInfo> {
  await api.server.app.listen({ host: '127.0.0.1', port: 0 });
  return api.server.app.server.address() as AddressInfo;
}

test('a client that sends too much gets the answer when it has sent it', async () => {
  api = await ApiServer.start();
  await api.restart({ bytes: 1_000, rows: 10 });
  const { address, port } = await listen();
  const form = new FormData();
  form.set('file', new Blob(['x'.repeat(5_000_000)]), 'f');
  form.set('purpose', 'batch');
  const response = await fetch(`http://${address}:${port}/v1/files`, {
    method: 'POST',
    headers: { authorization: `Bearer ${api.key}` },
    body: form,
  });
  expect([response.status, await response.json()]).toMatchObject([
    413,
    { error: { code: 'file_too_large' } },
  ]);
});

test('files are listed newest first or oldest first, page by page', async () => {
  api = await ApiServer.start();
  const ids: string[] = [];
  for (const name of ['a', 'b', 'c', 'd', 'e']) ids.push((await api.upload(name)).json().id);
  const list = async (query: string) => api.get<List>('GET', `/v1/files?${query}`);
  const newest = ids.toReversed();
  expect(await list('')).toMatchObject({ object: 'list', has_more: false });
  expect((await list('')).data.map(({ id }) => id)).toEqual(newest);
  expect((await list('order=asc')).data.map(({ id }) => id)).toEqual(ids);

  const first = await list('limit=2');
  expect([first.has_more, first.first_id, first.last_id]).toEqual([true, newest[0], newest[1]]);
  // A cursor keeps its place when what it names is deleted.
  await api.get('DELETE', `/v1/files/${first.last_id}`);
  const second = await list(`limit=2&after=${first.last_id}`);
  expect(second.data.map(({ id }) => id)).toEqual(newest.slice(2, 4));
  const third = await list(`limit=2&after=${second.last_id}`);
  expect([third.data.map(({ id }) => id), third.has_more]).toEqual([newest.slice(4), false]);
  expect(await list(`after=${newest.at(-1)}`)).toMatchObject({
    data: [],
    first_id: null,
    last_id: null,
    has_more: false,
  });
  expect(await list('purpose=batch_output')).toMatchObject({ data: [] });
  expect((await list('purpose=batch')).data).toHaveLength(4);
});

test.each(['limit=0', 'limit=10001', 'limit=x', 'order=up', 'after=nonsense'])(
  'a list of files with %s is refused',
  async (query) => {
    api = await ApiServer.start();
    const response = await api.ask('GET', `/v1/files?${query}`);
    const param = query.split('=')[0];
    expect([response.status, response.json()]).toMatchObject([400, { error: { param } }]);
  },
);

test('a file is gone when its time is over, and then swept from the disk', async () => {
  api = await ApiServer.start();
  const fields = { 'expires_after[anchor]': 'created_at', 'expires_after[seconds]': '3600' };
  const { id } = (await api.upload('x', { purpose: 'batch', ...fields })).json();
  const kept = (await api.upload('y')).json().id;
  const { expires_at, created_at } = await api.get<FileObject>('GET', `/v1/files/${id}`);
  expect((expires_at ?? 0) - created_at).toBe(3_600);

  const [key] = await api.keys.list();
  const at = (seconds: number) =>
    new Spaces(api.store, recordsFolder(api.store), () => (created_at + seconds) * 1000);
  await expect(
    at(3_599)
      .of(key?.namespace ?? '')
      .files.get(id),
  ).resolves.toMatchObject({ id });
  await expect(
    at(3_601)
      .of(key?.namespace ?? '')
      .files.get(id),
  ).rejects.toThrow(/No such File/u);
  await at(3_601).sweep();
  expect(onDisk().filter((name) => name.includes(id))).toEqual([]);
  expect(onDisk().filter((name) => name.includes(kept))).toHaveLength(2);
});

test('what a killed server left of an upload is swept after a day', async () => {
  api = await ApiServer.start();
  const { id } = (await api.upload('x')).json();
  const [key] = await api.keys.list();
  const contents = path.join(recordsFolder(api.store), 'spaces', key?.namespace ?? '', 'contents');
  const abandoned = path.join(
    contents,
    derivedId('file', Date.now() - 25 * 3_600_000, 'abandoned'),
  );
  const young = path.join(contents, newId('file', Date.now()));
  for (const file of [abandoned, young]) writeFileSync(file, 'half');
  await new Spaces(api.store, recordsFolder(api.store)).sweep();
  expect(readdirSync(contents).toSorted()).toEqual([id, path.basename(young)].toSorted());
});
