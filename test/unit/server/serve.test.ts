import { request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';

import { afterEach, expect, test, vi } from 'vitest';

import type { FileObject } from '../../../src/server/schemas.js';
import { serve } from '../../../src/server/serve.js';
import { ApiServer, line, snapshot } from '../../support/api-server.js';

let api: ApiServer;
afterEach(async () => api.close());

test('a server that is told to end takes no new request and lets an upload end', async () => {
  api = await ApiServer.start();
  const ending = new AbortController();
  let address = '';
  const served = serve(api.server, { host: '127.0.0.1', port: 0 }, ending.signal, (at) => {
    address = at;
  });
  await vi.waitFor(() => expect(address).toMatch(/^http:/u));

  const upload = httpRequest(`${address}/v1/files`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${api.key}`,
      'content-type': 'multipart/form-data; boundary=b',
    },
  });
  const answered = new Promise<FileObject>((resolve, reject) => {
    upload.on('error', reject);
    upload.on('response', (response) => {
      response.setEncoding('utf8');
      let text = '';
      response.on('data', (piece: string) => {
        text += piece;
      });
      response.on('end', () => resolve(JSON.parse(text) as FileObject));
    });
  });
  upload.write('--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n{}\n');
  // The server has the request once it has read its head.
  await new Promise((resolve) => setTimeout(resolve, 200));
  ending.abort();
  await new Promise((resolve) => setTimeout(resolve, 200));
  await expect(fetch(`${address}/healthz`)).rejects.toThrow(/fetch failed/u);

  upload.end('\r\n--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n');
  expect(await answered).toMatchObject({ object: 'file', bytes: 3 });
  await served;
});

test('an address that is taken is told with what to do', async () => {
  api = await ApiServer.start();
  const { app } = api.server;
  await app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = app.server.address() as AddressInfo;
  await api.restart();
  const taken = serve(
    api.server,
    { host: '127.0.0.1', port },
    new AbortController().signal,
    () => {},
  );
  await expect(taken).rejects.toMatchObject({
    type: 'Usage',
    message: expect.stringContaining('EADDRINUSE'),
    wayOut: expect.stringContaining('--port'),
  });
  await app.close();
});

test('open batches are looked after while nobody asks', async () => {
  api = await ApiServer.start();
  const ending = new AbortController();
  const id = await api.batchOf([line('a')]);
  const listening = { host: '127.0.0.1', port: 0 };
  const served = serve(api.server, listening, ending.signal, () => {});
  await vi.waitFor(() => expect(api.runs.started).toHaveLength(1));
  api.runs.known.set(id, snapshot(id, { totalRows: 1 }));
  api.finish(id, '{}\n');
  await vi.waitFor(() => expect(api.log.join('')).toContain('"status":"completed"'), {
    timeout: 10_000,
    interval: 100,
  });
  ending.abort();
  await served;
});
