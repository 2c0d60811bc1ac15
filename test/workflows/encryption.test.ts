import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { Client, Connection } from '@temporalio/client';
import proto from '@temporalio/proto';
import { DefaultLogger, NativeConnection, Runtime, type Worker } from '@temporalio/worker';
import { afterAll, afterEach, beforeAll, expect, inject, it, vi } from 'vitest';

import { connect } from '../../src/client/connection.js';
import { queryWorkflow } from '../../src/client/entities.js';
import { describeFailure } from '../../src/client/errors.js';
import { CONTROL_QUEUE, WORKFLOW } from '../../src/contracts/names.js';
import { encryption } from '../../src/encryption/index.js';
import { buildCodecApp } from '../../src/server/codec.js';
import { serverLogger } from '../../src/server/serve.js';
import { createControlWorker } from '../../src/workers/control.js';
import { eventually } from '../support/harness.js';

/** The control worker as it is, with keys, on a real server. */
const NAMESPACE = 'encrypted';
const CANARY = 'canary-9f3e71';
const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-encrypted-'));
const keyFile = (name: string, id: string, byte: string): string => {
  const file = path.join(folder, name);
  writeFileSync(file, `${id} ${byte.repeat(32)}\n`, { mode: 0o600 });
  return file;
};
const keys = keyFile('keys', 'one', 'ab');
let native: NativeConnection;
let worker: Worker;
let served: Promise<void>;
let raw: Client;

beforeAll(async () => {
  Runtime.install({ logger: new DefaultLogger('ERROR') });
  const address = inject('temporalAddress');
  native = await NativeConnection.connect({ address });
  raw = new Client({ connection: await Connection.connect({ address }), namespace: NAMESPACE });
  worker = await createControlWorker(native, NAMESPACE, undefined, undefined, encryption(keys));
  served = worker.run();
}, 120_000);
afterEach(() => vi.unstubAllEnvs());
afterAll(async () => {
  worker.shutdown();
  await served;
  await native.close();
  await raw.connection.close();
  rmSync(folder, { recursive: true, force: true });
});

/** A client as a user's command has it. */
async function client(file?: string): Promise<Client> {
  vi.stubEnv('TEMPORAL_CONFIG_FILE', path.join(folder, 'none.toml'));
  vi.stubEnv('TEMPORAL_ADDRESS', inject('temporalAddress'));
  vi.stubEnv('TEMPORAL_NAMESPACE', NAMESPACE);
  vi.stubEnv('RANKFLOW_ENCRYPTION_KEY_FILE', file ?? '');
  return connect();
}

/** What tells of a run, with a canary in everything that could be told. */
const notice = (program: string) => ({
  schedule: CANARY,
  delivery: CANARY,
  notify: [{ kind: 'command', command: [program], env: { CANARY } }],
  result: {
    runId: CANARY,
    date: '2030-01-01',
    nominal: '2030-01-01T02:00:00.000Z',
    state: 'completed',
  },
});

async function history(workflowId: string): Promise<proto.temporal.api.history.v1.IHistory> {
  return raw.workflow.getHandle(workflowId).fetchHistory();
}

/** A history as bytes, in which nothing is decoded. */
const bytesOf = (events: proto.temporal.api.history.v1.IHistory): string =>
  Buffer.from(proto.temporal.api.history.v1.History.encode(events).finish()).toString('latin1');

it('nothing of a workflow stands in its history in the clear, and the codec server reads it', async () => {
  const user = await client(keys);
  // The command is refused, and what is said of it goes into the failure of the activity.
  vi.stubEnv('RANKFLOW_ALLOWED_ROOTS', folder);
  const handle = await user.workflow.start(WORKFLOW.notify, {
    workflowId: 'encrypted-notice',
    taskQueue: CONTROL_QUEUE,
    args: [notice(`/nowhere/${CANARY}`)],
    memo: { what: CANARY },
    staticSummary: `Summary ${CANARY}`,
    staticDetails: `Details ${CANARY}`,
  });
  expect(await handle.result()).toMatchObject({
    outcomes: [{ delivered: false, problem: { message: expect.stringContaining(CANARY) } }],
  });
  const events = await history(handle.workflowId);
  expect(bytesOf(events)).not.toContain(CANARY);
  expect(bytesOf(events)).toContain('binary/encrypted');
  const { DescribeWorkflowExecutionResponse } = proto.temporal.api.workflowservice.v1;
  const described = DescribeWorkflowExecutionResponse.encode((await handle.describe()).raw);
  expect(Buffer.from(described.finish()).toString('latin1')).not.toContain(CANARY);
  // With the key all of it is there.
  expect((await handle.describe()).memo).toEqual({ what: CANARY });

  const { codec } = encryption(keys);
  const app = buildCodecApp({
    codec,
    origins: [],
    hosts: ['localhost'],
    logger: serverLogger(undefined, 'silent'),
  });
  const sealed = (events.events ?? []).flatMap(
    ({ workflowExecutionStartedEventAttributes: started }) => started?.input?.payloads ?? [],
  );
  const base64 = (value: Uint8Array | null | undefined): string =>
    Buffer.from(value ?? []).toString('base64');
  const answer = await app.inject({
    method: 'POST',
    url: '/decode',
    headers: { host: 'localhost' },
    payload: {
      payloads: sealed.map(({ metadata, data }) => ({
        metadata: Object.fromEntries(
          Object.entries(metadata ?? {}).map(([name, value]) => [name, base64(value)]),
        ),
        data: base64(data),
      })),
    },
  });
  const { payloads } = answer.json<{ payloads: { data: string }[] }>();
  expect(Buffer.from(payloads[0]?.data ?? '', 'base64').toString()).toContain(CANARY);
  await app.close();
  await user.connection.close();
}, 120_000);

it('who does not encrypt is refused before anything is sent to workers that do', async () => {
  const error = await client().catch((error: unknown) => error);
  expect(describeFailure(error)).toMatchObject({
    type: 'KeyMismatch',
    message: expect.stringContaining('this process has no keys'),
    wayOut: expect.stringContaining('RANKFLOW_ENCRYPTION_KEY_FILE'),
  });
});

it('a workflow whose key the worker does not have waits for it, and says so to whoever asks', async () => {
  const stranger = await client(keyFile('strange', 'two', 'cd'));
  const workflowId = 'strange-notice';
  const handle = await stranger.workflow.start(WORKFLOW.notify, {
    workflowId,
    taskQueue: CONTROL_QUEUE,
    args: [notice('/bin/true')],
  });
  const failure = await eventually(async () => {
    const error = await queryWorkflow(stranger, workflowId).catch((error: unknown) => error);
    const described = describeFailure(error);
    return described.type === 'KeyMismatch' && described;
  }, 60);
  expect(failure.message).toContain('does not have the key');
  expect((await handle.describe()).status.name).toBe('RUNNING');

  // The key is given to the worker, which goes on by itself. Its result is encrypted with the worker's first key.
  writeFileSync(keys, `one ${'ab'.repeat(32)}\ntwo ${'cd'.repeat(32)}\n`);
  await eventually(async () => (await handle.describe()).status.name === 'COMPLETED', 60);
  await stranger.connection.close();
}, 120_000);
