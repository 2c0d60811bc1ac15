import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { inspect } from 'node:util';

import { ApplicationFailure } from '@temporalio/common';
import { execa } from 'execa';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';

import { sendWebhook, signatureOf } from '../../../src/activities/notify.js';
import { paths } from '../../../src/setup/paths.js';
import { receiverOf } from '../../../src/text.js';
import { blocksOf } from '../../docs/markdown.js';

const message = {
  schedule: 'nightly',
  runId: 'nightly-2030-01-01',
  date: '2030-01-01',
  nominal: '2030-01-01T02:00:00.000Z',
  state: 'completed' as const,
};
const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-notify-'));
afterAll(() => rmSync(folder, { recursive: true }));
const servers: { close: () => void }[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
  vi.unstubAllEnvs();
});

/**
 * Made without the code under test, and the same with Python's hmac:
 * printf %s '1893456000.{"schedule":"nightly","runId":"nightly-2030-01-01"}' |
 *   openssl dgst -sha256 -hmac 'very secret'
 */
const VECTOR = {
  timestamp: '1893456000',
  body: '{"schedule":"nightly","runId":"nightly-2030-01-01"}',
  signature: 'sha256=261604a61885989d5a611db042935f34c0296e58a1fb18341f747280e0152b09',
};

/** What a receiver is told to do, on a message that came; its first line says whether the message is good. */
async function documentedCheck(
  headers: Record<string, unknown>,
  body: string,
  key: string,
): Promise<string> {
  const text = readFileSync(path.join(paths.packageRoot, 'docs/operations.md'), 'utf8');
  const section = text.slice(text.indexOf('**Being told.**'));
  const [snippet] = blocksOf(section).filter(({ language }) => language === 'python');
  const program = [
    'import hashlib, hmac, json, sys, time',
    'signature, timestamp, body, key = json.loads(sys.stdin.read())',
    'body, key = body.encode(), key.encode()',
    snippet?.code,
    'print(ok)',
  ];
  const { 'x-rankflow-signature': signature, 'x-rankflow-timestamp': timestamp } = headers;
  const { stdout } = await execa(paths.python, ['-c', program.join('\n')], {
    input: JSON.stringify([signature, timestamp, body, key]),
  });
  return stdout;
}

/** A receiver that gives one answer, and the headers and bodies that it saw. */
async function receiver(status: number, headers = {}) {
  const seen: Record<string, unknown>[] = [];
  const bodies: string[] = [];
  const server = createServer((request, response) => {
    void request.toArray().then((chunks: Buffer[]) => {
      seen.push(request.headers);
      bodies.push(Buffer.concat(chunks).toString());
      response.writeHead(status, headers).end();
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, seen, bodies };
}

type Secret = { env?: string; file?: string };
const send = async (to: string | Secret, secret?: Secret): Promise<unknown> =>
  sendWebhook({
    notification: {
      kind: 'webhook',
      ...(typeof to === 'string' ? { url: to } : { urlFrom: to }),
      ...(secret && { secret }),
    },
    delivery: 'one',
    message,
  }).catch((error: unknown) => error);

describe('a webhook', () => {
  it.each([
    [400, true],
    [404, true],
    [302, true],
    [408, false],
    [429, false],
    [500, false],
    [503, false],
  ])('that answers %i is given up at once: %s', async (status, final) => {
    const failure = await send((await receiver(status, { location: '/elsewhere' })).url);
    expect(failure).toBeInstanceOf(ApplicationFailure);
    expect((failure as ApplicationFailure).nonRetryable).toBe(final);
  });

  it('is signed as other programs do it', () => {
    expect(signatureOf('very secret', VECTOR.timestamp, VECTOR.body)).toBe(VECTOR.signature);
  });

  it('is checked by what the documentation says, and by nothing that was changed', async () => {
    const { url, seen, bodies } = await receiver(204);
    vi.stubEnv('HOOK_KEY', 'very secret');
    expect(await send(url, { env: 'HOOK_KEY' })).toBeUndefined();
    const [headers = {}] = seen;
    const [body = ''] = bodies;
    expect(JSON.parse(body)).toEqual(message);
    const hour = 3_600;
    const old = String(Number(headers['x-rankflow-timestamp']) - hour);
    expect(await documentedCheck(headers, body, 'very secret')).toBe('True');
    expect(await documentedCheck(headers, `${body} `, 'very secret')).toBe('False');
    expect(await documentedCheck(headers, body, 'another')).toBe('False');
    const replayed = { ...headers, 'x-rankflow-timestamp': old };
    expect(await documentedCheck(replayed, body, 'very secret')).toBe('False');
  });

  it('is not signed without a key', async () => {
    const { url, seen } = await receiver(204);
    expect(await send(url)).toBeUndefined();
    expect(seen[0]).not.toHaveProperty('x-rankflow-signature');
  });

  it('is tried again while its key is missing, and the failure does not hold it', async () => {
    const { url, seen } = await receiver(204);
    const failure = await send(url, { env: 'NO_SUCH_KEY' });
    expect(failure).toMatchObject({ nonRetryable: false });
    vi.stubEnv('NO_SUCH_KEY', 'very secret');
    expect(await send(url, { env: 'NO_SUCH_KEY' })).toBeUndefined();
    const { 'x-rankflow-timestamp': at, 'x-rankflow-signature': signature } = seen[0] ?? {};
    expect(signature).toBe(signatureOf('very secret', String(at), JSON.stringify(message)));
  });

  it('is sent to where a variable or a file says, and waits for it', async () => {
    const { url, seen } = await receiver(204);
    const file = path.join(folder, 'url');
    for (const [reference, name] of [
      [{ env: 'NO_SUCH_URL' }, 'NO_SUCH_URL'],
      [{ file }, file],
    ] as const) {
      const failure = await send(reference);
      expect(failure).toMatchObject({ message: expect.stringContaining(name) });
      expect((failure as ApplicationFailure).nonRetryable).not.toBe(true);
    }
    vi.stubEnv('NO_SUCH_URL', url);
    writeFileSync(file, `${url}\n`);
    expect(await send({ env: 'NO_SUCH_URL' })).toBeUndefined();
    expect(await send({ file })).toBeUndefined();
    expect(seen).toHaveLength(2);
  });

  it.each(['https://someone:canary@example.org', 'canary', 'ftp://example.org/canary'])(
    'fails without telling its URL when that is none: %s',
    async (url) => {
      vi.stubEnv('HOOK_URL', url);
      for (const to of [url, { env: 'HOOK_URL' }]) {
        const failure = await send(to);
        expect(failure).toBeInstanceOf(ApplicationFailure);
        expect((failure as ApplicationFailure).nonRetryable).toBe(to === url);
        expect(inspect(failure, { depth: 9 })).not.toContain('canary');
      }
    },
  );
});

it.each([
  ['https://example.org/services/token?key=1#x', 'https://example.org'],
  ['http://127.0.0.1:8080', 'http://127.0.0.1:8080'],
  ['https://user:p@w@example.org:1/hook', 'https://example.org:1'],
  ['HTTPS://example.org\\token', 'HTTPS://example.org'],
  ['https://[::1]:80?token', 'https://[::1]:80'],
])('of %s only scheme and host are shown', (url, shown) => {
  expect(receiverOf({ kind: 'webhook', url })).toBe(shown);
});

it('whoever is told otherwise is shown by name', () => {
  expect(receiverOf({ kind: 'webhook', urlFrom: { env: 'HOOK_URL' } })).toBe('the URL in HOOK_URL');
  expect(receiverOf({ kind: 'webhook', urlFrom: { file: '/hook' } })).toBe('the URL in /hook');
  expect(receiverOf({ kind: 'command', command: ['mail', 'secret'], env: {} })).toBe('mail');
});
