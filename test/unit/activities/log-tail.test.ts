import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { logFolder } from '../../../src/activities/jobs/job-log.js';
import { LogTail } from '../../../src/activities/jobs/log-tail.js';
import { afterLog, readAttemptLog } from '../../../src/client/job-logs.js';
import { submissionIdOf } from '../../../src/contracts/names.js';

/** Answers a question for a log; the default holds its stream open. */
let answer: (response: ServerResponse, follow: boolean) => void;
const server = createServer((request, response) =>
  answer(response, request.url?.startsWith('/api/v0/logs/stream') === true),
);
const refuse = (response: ServerResponse): void => void response.writeHead(401).end('no token');
const place = { store: '', jobId: 'train' };
const id = submissionIdOf('train', 1);
const told: string[] = [];
const operators = {
  warn: (message: string, { reason }: { reason?: string }) => told.push(`${message}: ${reason}`),
  info: (message: string) => told.push(message),
};

beforeEach(async () => {
  place.store = mkdtempSync(path.join(tmpdir(), 'rankflow-tail-'));
  told.length = 0;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});
afterEach(async () => {
  vi.restoreAllMocks();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  rmSync(place.store, { recursive: true });
});

const open = async (): Promise<LogTail> => {
  const { port } = server.address() as AddressInfo;
  const dashboardUrl = `http://127.0.0.1:${port}`;
  const cluster = { name: 'ray', address: '127.0.0.1:6379', dashboardUrl };
  return LogTail.open(cluster, id, logFolder(place, id), operators);
};
const shown = async (): Promise<string> => {
  const parts: Buffer[] = [];
  const end = await readAttemptLog(place, 1, 0, (data) => parts.push(Buffer.from(data)));
  return `${Buffer.concat(parts).toString()}${(await afterLog(place, 1, end)) ?? ''}`;
};

test('a log that cannot be read is told once an outage, and when it can be read again', async () => {
  let now = Date.now();
  vi.spyOn(Date, 'now').mockImplementation(() => now);
  const tail = await open();
  const looks = async (count: number): Promise<void> => {
    for (let look = 0; look < count; look += 1) {
      tail.keepUp('node');
      await new Promise((resolve) => setTimeout(resolve, 30));
      now += 5_000;
    }
  };
  answer = refuse;
  await looks(3);
  // Its job may not have begun it yet.
  expect(told).toEqual([]);
  await looks(5);
  const outage = expect.stringMatching(/cannot be read; it is tried again: .*401.*no token/u);
  expect(told).toEqual([outage]);
  answer = (response) => response.writeHead(200).write('one\n');
  await looks(2);
  expect(told).toEqual([outage, 'the log of a job is read again']);
  await tail.stop();
  expect(await shown()).toBe('one\n');
  expect(told).toHaveLength(2);
});

test('a log says that its end may be missing, until the end is there', async () => {
  answer = (response, follow) => {
    if (follow) response.writeHead(200).write('one\n');
    else refuse(response);
  };
  const tail = await open();
  tail.keepUp('node');
  await vi.waitUntil(() => tail.size === 4);
  await tail.finish('node');
  expect(await shown()).toMatch(/^one\n\n\[lines may be missing from here on: .*401.*\]\n$/u);
  expect(told).toEqual([
    expect.stringMatching(/the end of the log of a job was not copied: .*401/u),
  ]);
  answer = (response) => response.writeHead(200).end('one\ntwo\n');
  await (await open()).finish('node');
  expect(await shown()).toBe('one\ntwo\n');
});
