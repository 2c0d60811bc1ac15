import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { inspect } from 'node:util';

import { ApplicationFailure } from '@temporalio/common';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';

import { sendWebhook, signatureOf } from '../../../src/activities/notify.js';
import { receiverOf } from '../../../src/text.js';

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

/** A receiver that gives one answer, and the headers that it saw. */
async function receiver(status: number, headers = {}) {
  const seen: Record<string, unknown>[] = [];
  const server = createServer((request, response) => {
    seen.push(request.headers);
    response.writeHead(status, headers).end();
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, seen };
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
