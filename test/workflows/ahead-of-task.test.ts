import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { DefaultLogger, Worker, bundleWorkflowCode } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

import { ASK_AGAIN } from '../../src/contracts/names.js';
import { INTERCEPTORS } from '../../src/workers/workflow-code.js';
import { Harness, eventually } from '../support/harness.js';

const NAMESPACE = 'ahead-of-task';
const here = (file: string): string => fileURLToPath(new URL(`ahead/${file}`, import.meta.url));
const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-test-'));
const children: ChildProcess[] = [];
const open = new Map<string, () => void>();
const reached = new Set<string>();
let harness: Harness;

beforeAll(async () => {
  harness = await Harness.start(NAMESPACE);
  const gate = async (name: string): Promise<void> => {
    reached.add(name);
    if (name !== 'after') await new Promise<void>((resolve) => open.set(name, resolve));
  };
  await harness.serve('ahead-of-task-gates', { gate });
});
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL');
  await harness.close();
  rmSync(folder, { recursive: true });
});

async function bundle(name: string, interceptors: readonly string[]): Promise<string> {
  const { code } = await bundleWorkflowCode({
    workflowsPath: here('workflow.ts'),
    workflowInterceptorModules: [...interceptors],
    logger: new DefaultLogger('WARN'),
  });
  const codePath = path.join(folder, `${name}.js`);
  writeFileSync(codePath, code);
  return codePath;
}

async function startWorker(queue: string, codePath: string): Promise<ChildProcess> {
  const address = inject('temporalAddress');
  const child = spawn(process.execPath, [here('worker.js'), address, NAMESPACE, queue, codePath], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  await new Promise((resolve) => child.stdout.once('data', resolve));
  return child;
}

/**
 * A worker is killed; a query waits for it and goes to the next one, with an event whose workflow task is still to come.
 *
 * @returns what became of the query and of the replay
 */
async function queryAheadOfTask(name: string, codePath: string) {
  const queue = `ahead-of-task-${name}`;
  open.clear();
  reached.clear();
  const first = await startWorker(queue, codePath);
  const handle = await harness.client.workflow.start('gatesWorkflow', {
    workflowId: queue,
    taskQueue: queue,
  });
  await eventually(() => open.size === 2);
  await startWorker(queue, codePath);
  first.kill('SIGKILL');
  const query = handle.query<number>('passed').then(
    (passed) => `answered ${passed}`,
    (error: Error) => error.message,
  );
  // The query is handed on after 8 s, the task for this event 8 s after it: between them is time for one event more.
  await new Promise((resolve) => setTimeout(resolve, 6000));
  open.get('far')?.();
  const asked = await query;
  open.get('near')?.();
  await handle.result();
  const history = await handle.fetchHistory();
  const replay = Worker.runReplayHistory({ workflowBundle: { codePath } }, history).then(
    () => 'fits',
    (error: Error) => error.message,
  );
  return { asked, replay: await replay };
}

describe('a query that comes ahead of a workflow task', { timeout: 120_000 }, () => {
  it('fails, and the history fits its code', async () => {
    const { asked, replay } = await queryAheadOfTask('kept', await bundle('kept', INTERCEPTORS));
    expect(asked).toContain(ASK_AGAIN);
    expect(replay).toBe('fits');
  });

  /** When this fails, the SDK does it right, and nothing needs to be kept from workflows any more. */
  it('is answered without our interceptor, and the history does not fit its code', async () => {
    const { asked, replay } = await queryAheadOfTask('given', await bundle('given', []));
    expect(asked).toBe('answered 1');
    expect(replay).toContain('TMPRL1100');
  });
});
