import type { Worker } from '@temporalio/worker';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { fleetStatus, waitingBatches } from '../../src/client/fleets.js';
import type { FleetSpec } from '../../src/contracts/fleet.js';
import {
  CONTROL_QUEUE,
  PYTHON_QUEUE,
  WORKFLOW,
  fleetQueue,
  runWorkflowId,
} from '../../src/contracts/names.js';
import type { FleetStatus, RunWorkflowInput } from '../../src/contracts/workflows.js';
import { ensureFleet } from '../support/ensure-fleet.js';
import { ADDRESS, FakeRay, rayNode } from '../support/fake-cluster.js';
import { FakeRun, SPEC_HASH, fakeModel, fakeSpec } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';

/** Batches that a rank schedules ahead for three engines that take two each. */
const BATCHES = 12;

const spec: FleetSpec = {
  name: 'elastic',
  cluster: ADDRESS,
  model: fakeModel,
  specHash: SPEC_HASH,
  engines: 1,
  maxConcurrentBatches: 2,
  scaling: { minEngines: 0, maxEngines: 3, idleSeconds: 2 },
};
const queue = fleetQueue(spec.name, spec.specHash);

let harness: Harness;
let ray: FakeRay;
let run: FakeRun;

// The queue, the fleet and the run are real; engines are workers that Ray's fake starts.
beforeAll(async () => {
  harness = await Harness.start('autoscale');
  run = new FakeRun([BATCHES]);
  ray = new FakeRay(harness);
  ray.nodes = [rayNode({ cpus: 4 })];
  ray.countBacklog = async () => waitingBatches(harness.client, queue);
  await harness.serve(CONTROL_QUEUE, { observeFleet: ray.observeFleet });
  await harness.serve(PYTHON_QUEUE, { ...run.python, executeFleetPlan: ray.executeFleetPlan });
});
afterAll(async () => {
  await ray.close();
  await harness.close();
});

const statusWhen = async (is: (status: FleetStatus) => boolean): Promise<FleetStatus> =>
  eventually(async () => {
    const status = await fleetStatus(harness.client, spec.name);
    return status !== undefined && is(status) && status;
  }, 60);

it("grows by what waits in the server's queue, and goes down to none when that is done", async () => {
  await ensureFleet(harness.client, spec);
  const input: RunWorkflowInput = {
    spec: fakeSpec('elastic', 1),
    specHash: SPEC_HASH,
    fleet: { name: spec.name, engines: 1, maxConcurrentBatches: 2, maxEngines: 3 },
    affinity: 'pull',
  };
  const handle = await harness.client.workflow.start(WORKFLOW.run, {
    workflowId: runWorkflowId('elastic'),
    taskQueue: CONTROL_QUEUE,
    args: [input],
  });
  const { steps } = await statusWhen(({ ready }) => ready === 3);
  expect(steps?.[0]?.reason).toMatch(/\d+ batches wait/u);

  const engine: Worker = await harness.serve(queue, { generateBatch: run.generateBatch }, 2);
  expect(await handle.result()).toMatchObject({ state: 'completed' });
  const { steps: last } = await statusWhen(({ slots, desired }) => slots.length + desired === 0);
  expect(last?.at(-1)).toMatchObject({
    to: 0,
    reason: expect.stringMatching(/nothing was in work/u),
  });
  expect(ray.actors.size).toBe(0);
  await harness.end(engine);
}, 150_000);
