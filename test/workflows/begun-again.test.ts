import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import type { Worker } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

import {
  CONTROL_QUEUE,
  PYTHON_QUEUE,
  WORKFLOW,
  fleetQueue,
  rankWorkflowId,
  runWorkflowId,
} from '../../src/contracts/names.js';
import type { RunWorkflowInput } from '../../src/contracts/workflows.js';
import { FakeRun, SPEC_HASH, fakeSpec } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';

const FLEET = { name: 'fleet', engines: 2, maxConcurrentBatches: 2 };
const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-test-'));
let harness: Harness;
let run: FakeRun;
let control: Worker;

beforeAll(async () => {
  harness = await Harness.start('begun-again');
  const python = {
    rankProgress: async (input: never) => run.python.rankProgress(input),
    /** What the rank of another build calls. */
    otherProgress: async (input: never) => run.python.rankProgress(input),
    planRun: async (input: never) => run.python.planRun(input),
    finalizeRun: async (input: never) => run.python.finalizeRun(input),
  };
  await harness.serve(PYTHON_QUEUE, python);
  const generateBatch = async (input: never) => run.generateBatch(input);
  await harness.serve(fleetQueue('fleet', SPEC_HASH), { generateBatch });
});
afterAll(async () => {
  await harness.close();
  rmSync(folder, { recursive: true });
});

/** A control worker in which ranks begin with another activity. */
async function anotherBuild(): Promise<Worker> {
  const code = readFileSync(inject('workflowBundle'), 'utf8');
  const other = code.replaceAll(
    '.rankProgress.executeWithOptions',
    '.otherProgress.executeWithOptions',
  );
  expect(other).not.toBe(code);
  const codePath = path.join(folder, 'other.js');
  writeFileSync(codePath, other);
  return harness.serve(CONTROL_QUEUE, {}, 20, undefined, codePath);
}

describe('a rank whose history does not fit its code', { timeout: 120_000 }, () => {
  it('begins again, and goes on with what is committed', async () => {
    run = new FakeRun([4]);
    const open = run.holdBatches();
    control = await anotherBuild();
    const input: RunWorkflowInput = {
      spec: fakeSpec('misfit', 1),
      specHash: SPEC_HASH,
      fleet: FLEET,
      affinity: 'pull',
    };
    const handle = await harness.client.workflow.start(WORKFLOW.run, {
      workflowId: runWorkflowId('misfit'),
      taskQueue: CONTROL_QUEUE,
      args: [input],
    });
    await eventually(() => run.inFlight === 4);
    await harness.end(control);
    open();
    control = await harness.serve(CONTROL_QUEUE, {});
    expect(await handle.result()).toMatchObject({ state: 'completed', output: { succeeded: 40 } });
    const ended: string[] = [];
    const query = `WorkflowId = '${rankWorkflowId('misfit', 0)}'`;
    for await (const { status } of harness.client.workflow.list({ query })) ended.push(status.name);
    expect(ended.toSorted()).toEqual(['COMPLETED', 'FAILED']);
    await harness.end(control);
  });
});
