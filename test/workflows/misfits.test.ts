import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { type WorkflowUpdateFailedError } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { DefaultLogger, type Worker } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

import { refusal } from '../../src/activities/entities.js';
import { fleetStatus, scaleFleet } from '../../src/client/fleets.js';
import type { FleetSpec } from '../../src/contracts/fleet.js';
import { CONTROL_QUEUE, PYTHON_QUEUE, UPDATE, fleetWorkflowId } from '../../src/contracts/names.js';
import type { EnsuredFleet, FleetStatus } from '../../src/contracts/workflows.js';
import { resetMisfits } from '../../src/workers/misfits.js';
import { ADDRESS, FakeRay, rayNode } from '../support/fake-cluster.js';
import { ensureFleet } from '../support/ensure-fleet.js';
import { SPEC_HASH, fakeModel } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';

const NAME = 'misfit';
const spec: FleetSpec = {
  name: NAME,
  cluster: ADDRESS,
  model: fakeModel,
  specHash: SPEC_HASH,
  engines: 1,
  maxConcurrentBatches: 2,
};
const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-test-'));
let harness: Harness;
let ray: FakeRay;

beforeAll(async () => {
  harness = await Harness.start('misfits');
  ray = new FakeRay(harness);
  ray.nodes = [rayNode({ cpus: 4 })];
  await harness.serve(PYTHON_QUEUE, {
    executeFleetPlan: async (input: Parameters<FakeRay['executeFleetPlan']>[0]) =>
      ray.executeFleetPlan(input),
  });
});
afterAll(async () => {
  await ray.close();
  await harness.close();
  rmSync(folder, { recursive: true });
});

const serveControl = async (codePath?: string): Promise<Worker> => {
  const observeFleet = async (input: Parameters<FakeRay['observeFleet']>[0]) =>
    ray.observeFleet(input);
  return harness.serve(CONTROL_QUEUE, { observeFleet }, 20, undefined, codePath);
};

/** Code of a fleet that does not look for room before it grows. */
function otherCode(): string {
  const code = readFileSync(inject('workflowBundle'), 'utf8');
  const other = code.replace('if (wanted > before) {', 'if (wanted > before + 1e3) {');
  expect(other).not.toBe(code);
  const codePath = path.join(folder, 'other.js');
  writeFileSync(codePath, other);
  return codePath;
}

const replaying = () => ({
  client: harness.client,
  code: { workflowBundle: { codePath: inject('workflowBundle') } },
  logger: new DefaultLogger('ERROR', () => {}),
});

const ensure = async (engines: number, user: string): Promise<EnsuredFleet> =>
  ensureFleet(harness.client, { ...spec, engines }, { user });

const statusWhen = async (is: (status: FleetStatus) => boolean): Promise<FleetStatus> => {
  const status = async () => fleetStatus(harness.client, NAME);
  const wanted = async () => {
    const seen = await status();
    return seen !== undefined && is(seen) && seen;
  };
  return eventually(wanted, 60, status);
};

describe('a fleet whose history does not fit its code', { timeout: 120_000 }, () => {
  it('is reset to where it fitted, and knows what it was told since', async () => {
    const other = await serveControl(otherCode());
    await ensure(1, 'inference/night');
    ray.onCanary = async (slot) => {
      if (slot === 2) throw ApplicationFailure.retryable('it loads still');
    };
    await scaleFleet(harness.client, NAME, { engines: 3 });
    const waiting = ensure(3, 'inference/late').catch((error: unknown) => error);
    await statusWhen(({ ready, users }) => ready === 2 && users.length === 2);
    expect(await resetMisfits(replaying())).toEqual([]);
    await harness.end(other);

    await serveControl();
    const reset = await eventually(async () => {
      const ids = await resetMisfits(replaying());
      return ids.length > 0 && ids;
    }, 60);
    expect(reset).toEqual([fleetWorkflowId(NAME)]);
    const status = await statusWhen(({ desired, ready }) => desired === 3 && ready === 2);
    expect(status.users).toEqual(['inference/night', 'inference/late']);
    expect(ray.actors.size).toBe(3);
    expect(await resetMisfits(replaying())).toEqual([]);

    // Who waited for an answer asks again.
    expect(refusal((await waiting) as WorkflowUpdateFailedError)).toMatchObject({
      nonRetryable: false,
    });
    ray.onCanary = async () => {};
    expect(await ensure(3, 'inference/late')).toMatchObject({ engines: 3 });
    const handle = harness.client.workflow.getHandle(fleetWorkflowId(NAME));
    await handle.executeUpdate(UPDATE.stopFleet, { args: [{}] });
  });
});
