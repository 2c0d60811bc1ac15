import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { defaultPayloadConverter, type Payload } from '@temporalio/common';
import type { FastifyInstance } from 'fastify';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { encryption } from '../../../src/encryption/index.js';
import { buildCodecApp } from '../../../src/server/codec.js';
import { KeyStore } from '../../../src/server/keys.js';
import { serverLogger } from '../../../src/server/serve.js';

const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-codec-'));
const keyFile = path.join(folder, 'payload-keys');
writeFileSync(keyFile, `one ${'ab'.repeat(32)}\n`, { mode: 0o600 });
const { codec } = encryption(keyFile);
const UI = 'http://127.0.0.1:8233';
const logged: string[] = [];
const logger = serverLogger({ write: (line: string) => void logged.push(line) });
let app: FastifyInstance;
let open: FastifyInstance;
let key = '';

beforeAll(async () => {
  const keys = new KeyStore(folder);
  key = (await keys.create('ui'))?.key ?? '';
  const options = { codec, origins: [UI], hosts: ['127.0.0.1', 'localhost'], logger };
  app = buildCodecApp({ ...options, keys });
  open = buildCodecApp(options);
});
afterAll(async () => {
  await Promise.all([app.close(), open.close()]);
  rmSync(folder, { recursive: true, force: true });
});

const json = ({ metadata, data }: Payload) => ({
  metadata: Object.fromEntries(
    Object.entries(metadata ?? {}).map(([name, value]) => [
      name,
      Buffer.from(value).toString('base64'),
    ]),
  ),
  data: Buffer.from(data ?? []).toString('base64'),
});
const sealed = async (value: unknown) => {
  const payloads = await codec.encode([defaultPayloadConverter.toPayload(value)]);
  return { payloads: payloads.map(json) };
};
const bearer = () => ({ authorization: `Bearer ${key}` });
const ask = async (
  server: FastifyInstance,
  url: string,
  payload: object,
  headers: Readonly<Record<string, string>> = bearer(),
) => server.inject({ method: 'POST', url, payload, headers });

test('payloads are decoded, and encoded back, in the form of the web interface', async () => {
  const answer = await ask(app, '/decode', await sealed({ canary: 'not to be logged' }));
  expect(answer.statusCode).toBe(200);
  const { payloads } = answer.json<{ payloads: [ReturnType<typeof json>] }>();
  expect(Buffer.from(payloads[0].data, 'base64').toString()).toBe('{"canary":"not to be logged"}');
  const back = await ask(app, '/encode', { payloads });
  const again = await ask(app, '/decode', back.json());
  expect(again.json()).toEqual({ payloads });
  expect(logged.join('')).not.toContain('not to be logged');
  expect(logged.join('')).not.toContain(key);
  // Who asked, and what for: never with what.
  expect(logged.join('')).toContain('"key":');
});

test('without a good key nothing is decoded', async () => {
  const payload = await sealed('secret');
  for (const headers of [{}, { authorization: 'Bearer rf-0000000000000000-wrong' }]) {
    for (const url of ['/decode', '/encode']) {
      const answer = await ask(app, url, payload, headers);
      expect(answer.statusCode).toBe(401);
      expect(answer.body).not.toContain('payloads');
    }
  }
});

test('a revoked key is refused at once', async () => {
  const keys = new KeyStore(folder);
  const made = await keys.create('gone');
  const headers = { authorization: `Bearer ${made?.key}` };
  expect((await ask(app, '/decode', await sealed(1), headers)).statusCode).toBe(200);
  await keys.revoke(made?.record.id ?? '');
  expect((await ask(app, '/decode', await sealed(1), headers)).statusCode).toBe(401);
});

test('pages of the web interface may ask, and those of nobody else', async () => {
  const question = { 'access-control-request-method': 'POST' };
  const preflight = async (origin: string) =>
    app.inject({ method: 'OPTIONS', url: '/decode', headers: { origin, ...question } });
  const answer = await preflight(UI);
  expect(answer.statusCode).toBe(204);
  expect(answer.headers).toMatchObject({
    'access-control-allow-origin': UI,
    'access-control-allow-headers': 'authorization,content-type,x-namespace',
    vary: 'origin',
  });
  for (const origin of ['http://evil.example', `${UI}0`, 'null']) {
    const refused = await preflight(origin);
    expect(refused.statusCode).toBe(403);
    expect(refused.headers).not.toHaveProperty('access-control-allow-origin');
    expect((await ask(app, '/decode', await sealed(1), { ...bearer(), origin })).statusCode).toBe(
      403,
    );
    expect(
      (await ask(open, '/decode', await sealed(1), { host: '127.0.0.1', origin })).statusCode,
    ).toBe(403);
  }
});

test('without keys only names of this host are answered: no page can have its name lead here', async () => {
  const payload = await sealed(1);
  for (const host of ['127.0.0.1:8081', 'localhost:8081'])
    expect((await ask(open, '/decode', payload, { host })).statusCode).toBe(200);
  for (const host of ['evil.example:8081', '127.0.0.1.evil.example'])
    expect((await ask(open, '/decode', payload, { host })).statusCode).toBe(403);
});

test('what cannot be decoded is said, and quotes nothing', async () => {
  for (const body of [{}, { payloads: [{ data: '§' }] }, { payloads: 'canary-body' }]) {
    const answer = await ask(app, '/decode', body);
    expect(answer.statusCode).toBe(400);
    expect(answer.body).not.toContain('canary-body');
  }
  const other = await sealed(1);
  const [payload] = other.payloads;
  const metadata = { ...payload?.metadata, 'encryption-key-id': btoa('another') };
  const answer = await ask(app, '/decode', { payloads: [{ ...payload, metadata }] });
  expect(answer.statusCode).toBe(400);
  expect(answer.json()).toMatchObject({ message: expect.stringContaining('the key another') });
});
