import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { Connection } from '@temporalio/client';
import { bundleWorkflowCode, DefaultLogger } from '@temporalio/worker';
import { execa } from 'execa';
import getPort from 'get-port';
import type { TestProject } from 'vitest/node';

import { findTemporal } from '../../src/setup/temporal.js';
import { INTERCEPTORS, workflowsPath } from '../../src/workers/workflow-code.js';

declare module 'vitest' {
  interface ProvidedContext {
    /** Address of a dev server that this run of the tests has for itself. */
    temporalAddress: string;
    /** Bundle of all workflows, made once. */
    workflowBundle: string;
  }
}

/** One for each test file that runs workflows: queues have fixed names. */
export const NAMESPACES = [
  'rank',
  'begun-again',
  'misfits',
  'ahead-of-task',
  'autoscale',
  'run',
  'fleet',
  'cluster',
  'cluster-cli',
  'cluster-ssh',
  'inference',
  'record',
  'client',
  'store-full',
  'fleet-size',
  'metrics',
  'tracing',
  'attributes',
  'hold',
  'priority',
  'schedule',
  'cli',
  'job',
  'job-cluster',
  'job-examples',
  'secure',
  'encrypted',
  'documented',
] as const;

/** Starts Temporal's dev server, in memory, on a free port of the loopback, and bundles the workflows. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const temporal = await findTemporal();
  if (temporal === undefined) throw new Error('No Temporal CLI: run `npm run setup` first.');
  const port = await getPort();
  const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-vitest-'));
  const server = execa(
    temporal.command,
    [
      ...['server', 'start-dev', '--headless', '--ip', '127.0.0.1', '--port', String(port)],
      ...['--log-level', 'error', '--dynamic-config-value', 'matching.enableFairness=true'],
      ...['--dynamic-config-value', 'matching.numTaskqueueWritePartitions=1'],
      ...NAMESPACES.flatMap((name) => ['--namespace', name]),
    ],
    { stdio: ['ignore', 'ignore', 'inherit'], reject: false },
  );
  const temporalAddress = `127.0.0.1:${port}`;
  await answers(temporalAddress);

  const { code } = await bundleWorkflowCode({
    workflowsPath: workflowsPath(false),
    workflowInterceptorModules: [...INTERCEPTORS],
    logger: new DefaultLogger('WARN'),
  });
  const workflowBundle = path.join(folder, 'workflows.js');
  writeFileSync(workflowBundle, code);
  project.provide('temporalAddress', temporalAddress);
  project.provide('workflowBundle', workflowBundle);
  return async () => {
    server.kill('SIGTERM');
    await server;
    rmSync(folder, { recursive: true, force: true });
  };
}

async function answers(address: string): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      const connection = await Connection.connect({ address, connectTimeout: 1000 });
      await connection.close();
      return;
    } catch (error) {
      if (attempt >= 30) throw error;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  }
}
