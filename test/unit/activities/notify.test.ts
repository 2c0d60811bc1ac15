import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

import { ApplicationFailure } from '@temporalio/common';
import { afterEach, describe, expect, it, vi } from 'vitest';

import { sendWebhook, signatureOf } from '../../../src/activities/notify.js';

const message = {
  schedule: 'nightly',
  runId: 'nightly-2030-01-01',
  date: '2030-01-01',
  nominal: '2030-01-01T02:00:00.000Z',
  state: 'completed' as const,
};
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

const send = async (url: string, secret?: { env?: string; file?: string }): Promise<unknown> =>
  sendWebhook({
    notification: { kind: 'webhook', url, ...(secret && { secret }) },
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
});
