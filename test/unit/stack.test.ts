import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { Connection } from '@temporalio/client';
import { msToTs } from '@temporalio/common/lib/time.js';
import { afterAll, afterEach, beforeAll, expect, inject, it, vi } from 'vitest';

import type { ProcessSpec } from '../../src/workers/stack/index.js';

/** A data folder of its own, with the real Temporal CLI in it. */
const home = mkdtempSync(path.join(tmpdir(), 'rankflow-stack-'));
let stack: typeof import('../../src/workers/stack/index.js');
let processes: typeof import('../../src/setup/processes.js');

/** Stands for a worker: it runs until it is told to stop. */
const idle: ProcessSpec = {
  name: 'idle',
  role: 'worker',
  command: process.execPath,
  args: ['-e', 'setInterval(() => {}, 1000)'],
  env: {},
  graceMs: 1000,
};

beforeAll(async () => {
  const { findTemporal } = await import('../../src/setup/temporal.js');
  const command = (await findTemporal())?.command;
  if (command === undefined) throw new Error('run `npm run setup` first');
  const real = path.isAbsolute(command)
    ? command
    : execFileSync('which', [command], { encoding: 'utf8' }).trim();
  mkdirSync(path.join(home, 'bin'));
  symlinkSync(real, path.join(home, 'bin', 'temporal'));
  vi.stubEnv('RANKFLOW_HOME', home);
  vi.stubEnv('TEMPORAL_ADDRESS', undefined);
  vi.resetModules();
  stack = await import('../../src/workers/stack/index.js');
  processes = await import('../../src/setup/processes.js');
});

afterEach(async () => {
  await stack.stopStack({ log });
});

afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(home, { recursive: true, force: true });
});

const log = (): void => {};
const up = () => stack.ensureStack({ log, workers: [idle] });

function processOf(name: string) {
  const found = stack.stackStatus().stack?.processes.find((one) => one.name === name);
  if (found?.process === undefined) throw new Error(`${name} was not started`);
  return { ...found, process: found.process };
}

/** The groups of all processes that the stack has started by now, its supervisor's too. */
function groups() {
  const recorded = stack.stackStatus().stack;
  if (recorded === undefined) throw new Error('no stack');
  return [
    recorded.supervisor,
    ...recorded.processes.flatMap((one) => (one.process ? [one.process] : [])),
  ];
}

const alive = (ids: ReturnType<typeof groups>) => ids.filter((id) => processes.groupIsAlive(id));

async function describeNamespace(address: string, namespace: string): Promise<void> {
  const connection = await Connection.connect({ address });
  await connection.workflowService.describeNamespace({ namespace });
  await connection.close();
}

it('restarts a killed Temporal server in its place, with its state, and leaves no process behind', async () => {
  const first = await up();
  const connection = await Connection.connect({ address: first.address });
  await connection.workflowService.registerNamespace({
    namespace: 'kept',
    workflowExecutionRetentionPeriod: msToTs('1 day'),
  });
  await connection.close();

  const killed = processOf('temporal').process;
  process.kill(killed.pid, 'SIGKILL');
  await vi.waitFor(() => expect(processOf('temporal').process.pid).not.toBe(killed.pid), 10_000);
  expect(processOf('temporal')).toMatchObject({ restarts: 1, lastEnd: 'SIGKILL' });
  const second = await up();
  expect(second).toEqual(first);
  await describeNamespace(second.address, 'kept');

  const started = groups();
  expect(alive(started)).toHaveLength(3);
  expect(await stack.stopStack({ log })).toBe(true);
  expect(alive(started)).toEqual([]);
  expect(stack.stackStatus().status).toBe('stopped');
  expect(await stack.stopStack({ log })).toBe(false);
}, 60_000);

it('is the same stack when it is started twice, also at the same time', async () => {
  const both = await Promise.all([up(), up()]);
  expect(both[0]).toEqual(both[1]);
  const { supervisor } = stack.stackStatus().stack ?? {};
  await up();
  expect(stack.stackStatus().stack?.supervisor).toEqual(supervisor);
}, 60_000);

it('ends what a killed supervisor left, on `down`', async () => {
  await up();
  const started = groups();
  process.kill(started[0]?.pid ?? 0, 'SIGKILL');
  await vi.waitFor(() => expect(stack.stackStatus().status).toBe('broken'), 5000);
  expect(alive(started)).toHaveLength(2);
  expect(await stack.stopStack({ log })).toBe(true);
  expect(alive(started)).toEqual([]);
}, 60_000);

it('replaces a killed supervisor, on `up`, at the same address', async () => {
  const before = await up();
  const started = groups();
  process.kill(started[0]?.pid ?? 0, 'SIGKILL');
  await vi.waitFor(() => expect(stack.stackStatus().status).toBe('broken'), 5000);
  expect(await up()).toEqual(before);
  expect(alive(started)).toEqual([]);
  expect(stack.stackStatus().status).toBe('running');
}, 60_000);

it('starts nothing for a named server that does not answer, or does not know the namespace', async () => {
  vi.stubEnv('TEMPORAL_ADDRESS', '127.0.0.1:1');
  try {
    await expect(up()).rejects.toThrow(/127\.0\.0\.1:1, which TEMPORAL_ADDRESS.*does not answer/u);
    vi.stubEnv('TEMPORAL_ADDRESS', inject('temporalAddress'));
    vi.stubEnv('TEMPORAL_NAMESPACE', 'no-such-namespace');
    await expect(up()).rejects.toThrow(/no-such-namespace/u);
  } finally {
    vi.stubEnv('TEMPORAL_ADDRESS', undefined);
    vi.stubEnv('TEMPORAL_NAMESPACE', undefined);
  }
  expect(stack.stackStatus().status).toBe('stopped');
}, 60_000);

it('says why, with the end of the log, when a process ends again and again', async () => {
  const broken: ProcessSpec = {
    ...idle,
    name: 'broken',
    args: ['-e', 'console.error("no such setting"); process.exit(7)'],
    queue: { name: 'never-polled', kind: 'workflow' },
  };
  await expect(stack.ensureStack({ log, workers: [broken] })).rejects.toThrow(
    /broken: ends again and again \(exit code 7\)[\s\S]*no such setting/u,
  );
}, 60_000);

it("has Rankflow's search attributes, also in a database that was there before", async () => {
  const { startAttributes } = await import('../../src/client/attributes.js');
  const { Client } = await import('@temporalio/client');
  const known = async () => {
    const { address, namespace } = await up();
    const connection = await Connection.connect({ address });
    try {
      return await startAttributes(new Client({ connection, namespace }), { state: 'x' });
    } finally {
      await connection.close();
      await stack.stopStack({ log });
    }
  };
  expect((await known()).typedSearchAttributes).toHaveLength(1);
  expect((await known()).typedSearchAttributes).toHaveLength(1);
}, 60_000);

it('gives each worker an address for its metrics, or none', async () => {
  const { stackConfig } = await import('../../src/workers/stack/config.js');
  const addressesOf = async () =>
    (await stackConfig()).processes.flatMap(({ env }) => env['RANKFLOW_METRICS_ADDRESS'] ?? []);
  const addresses = await addressesOf();
  expect(addresses).toHaveLength(2);
  for (const address of addresses) expect(address).toMatch(/^127\.0\.0\.1:\d+$/u);
  expect(new Set(addresses).size).toBe(2);
  expect((await stackConfig()).metricsUrl).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/metrics$/u);
  vi.stubEnv('RANKFLOW_METRICS_ADDRESS', 'off');
  expect(await addressesOf()).toEqual(['off', 'off']);
  expect((await stackConfig()).metricsUrl).toBeUndefined();
  vi.stubEnv('RANKFLOW_METRICS_ADDRESS', undefined);
});

it('ends the helpers that a crashed process left in its group', async () => {
  const file = path.join(home, 'helper.pid');
  const script = `
    const { spawn } = require('node:child_process');
    const helper = spawn('sleep', ['600']);
    require('node:fs').writeFileSync(${JSON.stringify(file)}, String(helper.pid));
    setInterval(() => {}, 1000);`;
  await stack.ensureStack({ log, workers: [{ ...idle, args: ['-e', script] }] });
  await vi.waitFor(() => expect(existsSync(file)).toBe(true), 5000);
  const helper = Number(readFileSync(file, 'utf8'));
  const identity = processes.identityOf(helper);
  expect(identity).toBeDefined();
  process.kill(processOf('idle').process.pid, 'SIGKILL');
  await vi.waitFor(() => expect(processes.identityOf(helper)).not.toBe(identity), 10_000);
}, 60_000);
