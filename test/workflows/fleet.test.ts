import {
  WithStartWorkflowOperation,
  type WorkflowFailedError,
  type WorkflowUpdateFailedError,
} from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import type { FleetSpec } from '../../src/contracts/fleet.js';
import {
  CONTROL_QUEUE,
  PYTHON_QUEUE,
  QUERY,
  UPDATE,
  WORKFLOW,
  fleetWorkflowId,
} from '../../src/contracts/names.js';
import type {
  EnsureFleetRequest,
  EnsuredFleet,
  FleetStatus,
  StopRequest,
  StopResult,
} from '../../src/contracts/workflows.js';
import { ADDRESS, FakeRay } from '../support/fake-cluster.js';
import { SPEC_HASH, fakeModel } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';

let harness: Harness;
let ray: FakeRay;

beforeAll(async () => {
  harness = await Harness.start('fleet');
  await harness.serve(CONTROL_QUEUE, {
    observeFleet: async (input: Parameters<FakeRay['observeFleet']>[0]) => ray.observeFleet(input),
  });
  await harness.serve(PYTHON_QUEUE, {
    executeFleetPlan: async (input: Parameters<FakeRay['executeFleetPlan']>[0]) =>
      ray.executeFleetPlan(input),
  });
});
beforeEach(() => {
  ray = new FakeRay(harness);
});
afterEach(async () => ray.close());
afterAll(async () => harness.close());

const specOf = (name: string, engines: number): FleetSpec => ({
  name,
  cluster: ADDRESS,
  model: fakeModel,
  specHash: SPEC_HASH,
  engines,
  maxConcurrentBatches: 2,
});

const handleOf = (name: string) => harness.client.workflow.getHandle(fleetWorkflowId(name));

const ensure = async (spec: FleetSpec, claim: Omit<EnsureFleetRequest, 'spec'> = {}) =>
  harness.client.workflow.executeUpdateWithStart<never, EnsuredFleet, [EnsureFleetRequest]>(
    UPDATE.ensureFleet,
    {
      args: [{ spec, ...claim }],
      startWorkflowOperation: new WithStartWorkflowOperation<never>(WORKFLOW.fleet, {
        workflowId: fleetWorkflowId(spec.name),
        taskQueue: CONTROL_QUEUE,
        args: [{ spec }],
        workflowIdConflictPolicy: 'USE_EXISTING',
      } as never),
    },
  );

const stop = async (name: string, request: StopRequest = {}) =>
  handleOf(name).executeUpdate<StopResult, [StopRequest]>(UPDATE.stopFleet, { args: [request] });

const statusOf = async (name: string) => handleOf(name).query<FleetStatus>(QUERY.status);

const refusal = async (update: Promise<unknown>): Promise<unknown> =>
  update.then(
    () => 'no refusal',
    (error: WorkflowUpdateFailedError) => error.cause,
  );

describe('a fleet', () => {
  it('is ready when every engine has answered, and stops without leaving one', async () => {
    expect(await ensure(specOf('plain', 2))).toEqual({ startedHere: false, engines: 2 });
    const status = await statusOf('plain');
    expect(status).toMatchObject({ state: 'ready', desired: 2, ready: 2 });
    expect(status.slots.map(({ slot, state }) => [slot, state])).toEqual([
      [0, 'ready'],
      [1, 'ready'],
    ]);
    expect(await stop('plain')).toEqual({ stopped: true });
    expect(ray.actors.size).toBe(0);
    await handleOf('plain').result();
    expect((await statusOf('plain')).state).toBe('stopped');
  });

  it('refuses at once what the cluster can never place, with the numbers, and starts nothing', async () => {
    const spec = specOf('impossible', 3);
    const cause = await refusal(ensure(spec));
    expect(cause).toMatchObject({ type: 'ImpossibleResources' });
    expect((cause as Error).message).toMatch(/3 engines of 1 CPUs.*room for 2.*2 CPUs/u);
    expect(ray.executed).toEqual([]);
    const failed = await handleOf('impossible')
      .result()
      .catch((error: WorkflowFailedError) => error.cause);
    expect(failed).toMatchObject({ type: 'ImpossibleResources' });
  });

  it('keeps the size of the engines that are up, and refuses more of them than have room', async () => {
    const sized = (engines: number, cpusPerEngine: number): FleetSpec => ({
      ...specOf('sized', engines),
      model: { ...fakeModel, cpusPerEngine },
    });
    await ensure(sized(1, 2));
    const cause = await refusal(ensure(sized(2, 1)));
    expect(cause).toMatchObject({ type: 'ImpossibleResources' });
    expect((cause as Error).message).toMatch(/2 engines of 2 CPUs.*room for 1/u);
    expect(await ensure(sized(1, 1))).toMatchObject({ engines: 1 });
    expect(ray.executed).toEqual(['start 0']);
    await stop('sized');
  });

  it('fails with the reason when a model does not load, and kills its engines', async () => {
    ray.onCanary = async () => {
      throw ApplicationFailure.nonRetryable('no such weights', 'EngineLoadFailed');
    };
    const cause = await refusal(ensure(specOf('broken', 1)));
    expect(cause).toMatchObject({ type: 'EngineLoadFailed', message: 'no such weights' });
    await handleOf('broken')
      .result()
      .catch(() => undefined);
    expect(ray.actors.size).toBe(0);
    expect((await statusOf('broken')).state).toBe('failed');
  });

  it('goes when its last user gives it back, and stays for a person', async () => {
    expect(await ensure(specOf('shared', 1), { user: 'a' })).toMatchObject({ startedHere: true });
    expect(await ensure(specOf('shared', 1), { user: 'b' })).toMatchObject({ startedHere: false });
    expect(await stop('shared', { user: 'a' })).toEqual({ stopped: false });
    expect(ray.actors.size).toBe(1);
    expect(await stop('shared', { user: 'b' })).toEqual({ stopped: true });

    await ensure(specOf('kept', 1), { user: 'a' });
    await ensure(specOf('kept', 1));
    expect(await stop('kept', { user: 'a' })).toEqual({ stopped: false });
    expect(await stop('kept')).toEqual({ stopped: true });
  });

  it('is not ready while its cluster does not answer', { timeout: 90_000 }, async () => {
    await ensure(specOf('blind', 1));
    ray.reachable = false;
    const status = await eventually(async () => {
      const seen = await statusOf('blind');
      return seen.state !== 'ready' && seen;
    }, 60);
    expect(status).toMatchObject({ state: 'degraded', problem: { message: 'fetch failed' } });
    ray.reachable = true;
    await stop('blind');
  });

  it('grows for a user and never shrinks under another', async () => {
    await ensure(specOf('sized', 1), { user: 'a' });
    await ensure(specOf('sized', 2), { user: 'b' });
    await ensure(specOf('sized', 1), { user: 'c' });
    expect(await statusOf('sized')).toMatchObject({ desired: 2, ready: 2 });
    await ensure(specOf('sized', 1));
    await eventually(() => ray.actors.size === 1);
    expect(ray.executed).toContain('stop 1');
    await stop('sized');
  });

  it('refuses another model under its name', async () => {
    await ensure(specOf('taken', 1));
    const other = { ...specOf('taken', 1), specHash: 'another' };
    expect(await refusal(ensure(other))).toMatchObject({ type: 'ModelMismatch' });
    await stop('taken');
  });

  it(
    'welcomes an engine that Ray restarted, and replaces one that Ray gave up',
    { timeout: 120_000 },
    async () => {
      const spec = specOf('healing', 2);
      await ensure(spec);
      await ray.crash(spec, 0);
      await ray.die(1);
      const { slots } = await eventually(async () => {
        const status = await statusOf('healing');
        const fresh = status.slots.every((slot) => slot.state === 'ready');
        return fresh && status.slots[0]?.restarts === 1 && ray.executed.length === 3 && status;
      }, 90);
      expect(ray.executed).toEqual(['start 0', 'start 1', 'start 1']);
      expect(slots[0]?.incarnation).toBe(ray.actors.get(0)?.incarnation);
      await stop('healing');
    },
  );
});
