import { afterEach, expect, test } from 'vitest';

import { ApiServer, CREATE, line, MODEL } from '../../support/api-server.js';

let api: ApiServer;
afterEach(async () => api.close());

const error = (message: string, fields: object = {}) => ({
  error: { message, type: 'invalid_request_error', param: null, code: null, ...fields },
});

test('without a key, with a wrong one or a revoked one nothing is answered', async () => {
  api = await ApiServer.start();
  const none = await api.ask('GET', '/v1/files', { key: '' });
  expect([none.status, none.headers['www-authenticate']]).toEqual([401, 'Bearer']);
  expect(none.json()).toMatchObject({ error: { type: 'invalid_request_error', code: null } });

  const wrong = error('Incorrect API key provided.', { code: 'invalid_api_key' });
  const [known] = await api.keys.list();
  const guesses = ['sk-x', api.key.slice(0, -1), `rf-${known?.id}-${'A'.repeat(43)}`];
  for (const key of guesses) {
    const response = await api.ask('GET', '/v1/files', { key });
    expect([response.status, response.json()]).toEqual([401, wrong]);
  }
  expect((await api.ask('GET', '/v1/files')).status).toBe(200);
  await api.keys.revoke(known?.id ?? '');
  expect((await api.ask('GET', '/v1/files')).status).toBe(401);
});

test('an upload without a good key is refused before it is read', async () => {
  api = await ApiServer.start();
  expect((await api.upload('{}\n', { purpose: 'batch' }, 'nobody')).status).toBe(401);
  expect((await api.get<{ data: unknown[] }>('GET', '/v1/files')).data).toEqual([]);
});

test('a key never sees the files and batches of another; one made to replace it does', async () => {
  api = await ApiServer.start();
  const batch = await api.batchOf([line('a')]);
  const { input_file_id: file } = await api.get<{ input_file_id: string }>(
    'GET',
    `/v1/batches/${batch}`,
  );
  const other = await api.newKey();
  for (const url of [`/v1/files/${file}`, `/v1/files/${file}/content`, `/v1/batches/${batch}`]) {
    expect((await api.ask('GET', url, { key: other })).status, url).toBe(404);
    expect((await api.ask('GET', url)).status, url).toBe(200);
  }
  expect((await api.ask('DELETE', `/v1/files/${file}`, { key: other })).status).toBe(404);
  expect((await api.ask('POST', `/v1/batches/${batch}/cancel`, { key: other })).status).toBe(404);
  for (const url of ['/v1/files', '/v1/batches']) {
    expect(await api.get('GET', url, { key: other })).toMatchObject({ data: [] });
  }
  // A batch for the file of another is as one for a file that is not there.
  const body = { ...CREATE, input_file_id: file };
  const made = await api.get<{ id: string }>('POST', '/v1/batches', { body, key: other });
  expect(await api.get('GET', `/v1/batches/${made.id}`, { key: other })).toMatchObject({
    status: 'failed',
    errors: { object: 'list', data: [{ code: 'invalid_request', param: 'file_id', line: null }] },
  });

  const [first] = await api.keys.list();
  const successor = await api.keys.create('successor', first?.id);
  const key = successor?.key ?? '';
  expect((await api.ask('GET', `/v1/batches/${batch}`, { key })).status).toBe(200);
});

test('a key that asks too often waits; another one does not wait for it', async () => {
  api = await ApiServer.start();
  await api.restart({ requestsPerMinute: 3 });
  const statuses = [];
  for (let n = 0; n < 4; n++) statuses.push((await api.ask('GET', '/v1/models')).status);
  expect(statuses).toEqual([200, 200, 200, 429]);
  const refused = await api.ask('GET', '/v1/batches');
  expect(refused.json()).toMatchObject({
    error: { type: 'requests', param: null, code: 'rate_limit_exceeded' },
  });
  expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0);
  // One that was made to replace it, or is used beside it, asks in its name.
  const [first] = await api.keys.list();
  const successor = await api.keys.create('successor', first?.id);
  const key = successor?.key ?? '';
  expect((await api.ask('GET', '/v1/models', { key })).status).toBe(429);
  const other = await api.newKey();
  expect((await api.ask('GET', '/v1/models', { key: other })).status).toBe(200);
  expect((await api.ask('GET', '/healthz')).status).toBe(200);
});

test('requests without a good key are counted by address', async () => {
  api = await ApiServer.start();
  await api.restart({ requestsPerMinute: 2 });
  const statuses = [];
  for (const key of ['', 'a', 'b', 'c']) {
    statuses.push((await api.ask('GET', '/v1/models', { key })).status);
  }
  expect(statuses).toEqual([401, 401, 429, 429]);
  expect((await api.ask('GET', '/v1/models')).status).toBe(200);
});

test('the models that are served are listed, hub names included', async () => {
  api = await ApiServer.start();
  const model = { id: MODEL, object: 'model', owned_by: 'rankflow' };
  expect(await api.get('GET', '/v1/models')).toMatchObject({ object: 'list', data: [model] });
  expect(await api.get('GET', `/v1/models/${MODEL}`)).toMatchObject(model);
  expect(await api.get('GET', `/v1/models/${encodeURIComponent(MODEL)}`)).toMatchObject(model);
  const unknown = await api.ask('GET', '/v1/models/none');
  expect([unknown.status, unknown.json()]).toMatchObject([
    404,
    { error: { code: 'model_not_found' } },
  ]);
});

test.each([
  [
    { endpoint: '/v1/images' },
    'endpoint',
    'invalid_value',
    /'\/v1\/images'.*Supported values are/u,
  ],
  [{ completion_window: '48h' }, 'completion_window', 'invalid_value', /Supported values/u],
  [{ input_file_id: undefined }, 'input_file_id', 'missing_required_parameter', /Missing/u],
  [{ endpoint: undefined }, 'endpoint', 'missing_required_parameter', /Missing/u],
  [{ metadata: { tags: ['a'] } }, 'metadata.tags', 'invalid_type', /expected string/u],
  [{ metadata: { long: 'x'.repeat(513) } }, 'metadata.long', 'invalid_value', /512/u],
  [{ metadata: manyPairs(17) }, 'metadata', 'invalid_value', /at most 16/u],
  [
    { output_expires_after: { anchor: 'created_at', seconds: 60 } },
    'output_expires_after.seconds',
    'invalid_value',
    /3600/u,
  ],
])('a batch with %j is refused with what is wrong', async (fields, param, code, message) => {
  api = await ApiServer.start();
  const body = { ...CREATE, input_file_id: 'file-x', ...fields };
  const response = await api.ask('POST', '/v1/batches', { body });
  expect([response.status, response.json()]).toMatchObject([
    400,
    { error: { type: 'invalid_request_error', param, code } },
  ]);
  expect(response.json<{ error: { message: string } }>().error.message).toMatch(message);
});

function manyPairs(count: number): Record<string, string> {
  return Object.fromEntries(Array.from({ length: count }, (_, n) => [`key${n}`, 'value']));
}

test('what is no JSON, no route or no object has an error body too, and none quotes the request', async () => {
  api = await ApiServer.start();
  const { server, key } = api;
  const broken = await server.app.inject({
    method: 'POST',
    url: '/v1/batches',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    payload: '{"metadata": "sesame',
  });
  expect(broken.statusCode).toBe(400);
  expect(broken.json()).toMatchObject({ error: { type: 'invalid_request_error' } });
  expect(broken.body).not.toContain('sesame');
  const route = await api.ask('GET', '/v1/nothing?x=1');
  expect([route.status, route.json()]).toEqual([404, error('Invalid URL (GET /v1/nothing)')]);
  const text = await api.ask('POST', '/v1/files', { body: { purpose: 'batch' } });
  expect([text.status, text.json()]).toMatchObject([
    406,
    { error: { message: expect.stringMatching(/multipart/u) } },
  ]);
  expect((await api.ask('GET', '/v1/batches/batch_../../keys')).status).toBe(404);
  expect((await api.ask('GET', '/v1/files/..%2f..%2f..%2fkeys')).status).toBe(404);
});

test.each([
  ['malformed', '/v1/models/%E0%A4%A', 400],
  ['too long', `/v1/files/${'x'.repeat(500)}`, 414],
])('a URL that is %s is answered with an error body, too', async (what, url, status) => {
  api = await ApiServer.start();
  const response = await api.ask('GET', url);
  const message = `The URL of the request is ${what}.`;
  expect([response.status, response.json()]).toEqual([status, error(message)]);
  expect(response.headers['x-request-id']).toMatch(/^req_/u);
});

test('every answer has a request id', async () => {
  api = await ApiServer.start();
  const first = await api.ask('GET', '/healthz');
  const second = await api.ask('GET', '/v1/files', { key: '' });
  expect(first.headers['x-request-id']).toMatch(/^req_[0-9a-f]{24}$/u);
  expect(second.headers['x-request-id']).toMatch(/^req_/u);
  expect(second.headers['x-request-id']).not.toBe(first.headers['x-request-id']);
});

test('it is healthy while it runs, and ready only while Temporal answers', async () => {
  api = await ApiServer.start();
  const ask = async (url: string) => {
    const response = await api.ask('GET', url, { key: '' });
    return [response.status, response.json()];
  };
  expect(await ask('/healthz')).toEqual([200, { status: 'ok' }]);
  expect(await ask('/readyz')).toEqual([
    200,
    { status: 'ready', checks: { temporal: 'ok', store: 'ok' } },
  ]);
  api.runs.away = true;
  expect(await ask('/healthz')).toEqual([200, { status: 'ok' }]);
  expect(await ask('/readyz')).toEqual([
    503,
    { status: 'not_ready', checks: { temporal: 'failed', store: 'ok' } },
  ]);
});

test('the published document names every route, its schemas and how to authenticate', async () => {
  api = await ApiServer.start();
  const document = await api.get<{
    openapi: string;
    info: { version: string };
    paths: Record<
      string,
      Record<string, { requestBody?: { content: object }; responses: Record<string, object> }>
    >;
    components: { schemas: Record<string, { properties: object }>; securitySchemes: object };
  }>('GET', '/openapi.json', { key: '' });
  expect([document.openapi, document.info.version]).toEqual(['3.1.0', '1.2.3']);
  const routes = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method} ${path}`),
  );
  expect(routes.toSorted()).toEqual([
    'delete /v1/files/{file_id}',
    'get /healthz',
    'get /readyz',
    'get /v1/batches',
    'get /v1/batches/{batch_id}',
    'get /v1/files',
    'get /v1/files/{file_id}',
    'get /v1/files/{file_id}/content',
    'get /v1/models',
    'get /v1/models/{model}',
    'post /v1/batches',
    'post /v1/batches/{batch_id}/cancel',
    'post /v1/files',
  ]);
  // What each of them may answer, beside its own.
  for (const [url, methods] of Object.entries(document.paths)) {
    for (const [method, { responses }] of Object.entries(methods)) {
      const told = ['401', '429', '500'].filter((status) => status in responses);
      expect([method, url, told]).toEqual([
        method,
        url,
        url.startsWith('/v1/') ? ['401', '429', '500'] : [],
      ]);
    }
  }
  const { Batch, File, Error: Failure, ...more } = document.components.schemas;
  expect(Object.keys(Batch?.properties ?? {})).toContain('request_counts');
  expect(Object.keys(File?.properties ?? {})).toContain('filename');
  expect(Object.keys(Failure?.properties ?? {})).toEqual(['error']);
  expect(more['CreateFileRequestInput']?.properties).toMatchObject({ file: { format: 'binary' } });
  expect(Object.keys(more).toSorted()).toEqual([
    'BatchError',
    'BatchList',
    'CreateBatchRequestInput',
    'CreateFileRequestInput',
    'DeletedFile',
    'FileList',
    'Model',
    'ModelList',
  ]);
  expect(document.components.securitySchemes).toEqual({ key: { type: 'http', scheme: 'bearer' } });
  expect(Object.keys(document.paths['/v1/files']?.['post']?.requestBody?.content ?? {})).toEqual([
    'multipart/form-data',
  ]);
});

test('no prompt, key or metadata reaches the log, whatever happens to a batch', async () => {
  api = await ApiServer.start();
  const secret = 'open sesame';
  const prompt = { messages: [{ role: 'user', content: secret }] };
  const good = await api.batchOf([line('a', {}, prompt)], { metadata: { about: secret } });
  api.finish(good, `{"custom_id":"a","response":"${secret}"}\n`);
  const bad = await api.batchOf([line('a', {}, prompt), `{"broken": "${secret}`]);
  await api.rounds();
  for (const id of [good, bad]) await api.get('GET', `/v1/batches/${id}`);
  const { output_file_id: output } = await api.get<{ output_file_id: string }>(
    'GET',
    `/v1/batches/${good}`,
  );
  expect((await api.ask('GET', `/v1/files/${output}/content`)).text).toContain(secret);
  api.runs.away = true;
  await api.batchOf([line('b', {}, prompt)]);
  await api.ask('POST', '/v1/batches?note=open%20sesame', { body: { metadata: secret } });
  const log = api.log.join('');
  expect(log).toContain(good);
  expect(log).toContain('POST');
  expect(log).not.toMatch(/sesame/u);
  expect(log).not.toContain(api.key.slice(-20));
});
