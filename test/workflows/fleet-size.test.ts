import { type WorkflowFailedError, type WorkflowUpdateFailedError } from '@temporalio/client';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { drainFleet, fleetStatus, scaleFleet } from '../../src/client/fleets.js';
import type { FleetSpec } from '../../src/contracts/fleet.js';
import {
  CONTROL_QUEUE,
  PYTHON_QUEUE,
  SIGNAL,
  UPDATE,
  fleetWorkflowId,
} from '../../src/contracts/names.js';
import type { EnsureFleetRequest, FleetStatus } from '../../src/contracts/workflows.js';
import { ADDRESS, FakeRay, rayNode } from '../support/fake-cluster.js';
import { ensureFleet } from '../support/ensure-fleet.js';
import { SPEC_HASH, fakeModel } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';

let harness: Harness;
let ray: FakeRay;

beforeAll(async () => {
  harness = await Harness.start('fleet-size');
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
  ray.nodes = [rayNode({ cpus: 4 })];
});
afterEach(async () => ray.close());
afterAll(async () => harness.close());

const ensure = async (spec: FleetSpec, claim: Omit<EnsureFleetRequest, 'spec'> = {}) =>
  ensureFleet(harness.client, spec, claim);

const specOf = (name: string, engines: number, change: Partial<FleetSpec> = {}): FleetSpec => ({
  name,
  cluster: ADDRESS,
  model: fakeModel,
  specHash: SPEC_HASH,
  engines,
  maxConcurrentBatches: 2,
  ...change,
});

const handleOf = (name: string) => harness.client.workflow.getHandle(fleetWorkflowId(name));
const stop = async (name: string) => handleOf(name).executeUpdate(UPDATE.stopFleet, { args: [{}] });
const statusWhen = async (name: string, is: (status: FleetStatus) => boolean, seconds = 45) =>
  eventually(async () => {
    const status = await fleetStatus(harness.client, name);
    return status !== undefined && is(status) && status;
  }, seconds);
const refusal = async (update: Promise<unknown>): Promise<unknown> =>
  update.then(
    () => 'no refusal',
    (error: WorkflowUpdateFailedError) => error.cause,
  );

describe('scaling a fleet by hand', { timeout: 90_000 }, () => {
  it('starts more engines, and says why in its status', async () => {
    await ensure(specOf('up', 1));
    expect(await scaleFleet(harness.client, 'up', { engines: 3 })).toEqual({
      before: 1,
      engines: 3,
    });
    const status = await statusWhen('up', ({ ready }) => ready === 3);
    expect(status.steps).toMatchObject([{ from: 1, to: 3, reason: 'by hand' }]);
    await stop('up');
    expect(ray.actors.size).toBe(0);
  });

  it('lets engines that go finish what they have, and keeps the others', async () => {
    let end: () => void = () => {};
    const drains: number[] = [];
    ray.onDrain = async (slot) =>
      new Promise((resolve) => {
        drains.push(slot);
        end = resolve;
      });
    await ensure(specOf('down', 2));
    await scaleFleet(harness.client, 'down', { engines: 1 });
    await eventually(() => drains.length === 1);
    expect(drains).toEqual([1]);
    const { slots, state } = await statusWhen('down', (seen) => seen.slots.length === 2);
    expect(slots.map((slot) => slot.state)).toEqual(['ready', 'draining']);
    expect(state).toBe('ready');
    expect(ray.executed).toEqual(['start 0', 'start 1']);
    end();
    await eventually(() => ray.executed.includes('stop 1 (drained)'), 45);
    await statusWhen('down', (seen) => seen.slots.length === 1);
    await stop('down');
  });

  it('does the same for a plain number as a signal, as one types it into the web interface', async () => {
    await ensure(specOf('typed', 1));
    await handleOf('typed').signal(SIGNAL.scale, 2);
    await statusWhen('typed', ({ ready, desired }) => ready === 2 && desired === 2);
    await handleOf('typed').signal(SIGNAL.scale, 'many');
    const { problem, desired } = await statusWhen('typed', (seen) => seen.problem !== undefined);
    expect(problem).toMatchObject({ type: 'InvalidRequest' });
    expect(desired).toBe(2);
    await stop('typed');
  });

  it('refuses what is no size, and what the cluster can never place', async () => {
    await ensure(specOf('refusing', 1));
    const asked = async (request: object) =>
      refusal(scaleFleet(harness.client, 'refusing', request));
    expect(await asked({ engines: -1 })).toMatchObject({ type: 'InvalidRequest' });
    expect(await asked({ engines: 1.5 })).toMatchObject({ type: 'InvalidRequest' });
    expect(await asked({})).toMatchObject({ type: 'InvalidRequest' });
    const limits = { minEngines: 3, maxEngines: 2, idleSeconds: 60 };
    expect(await asked({ scaling: limits })).toMatchObject({ type: 'InvalidRequest' });
    const cause = await asked({ engines: 9 });
    expect(cause).toMatchObject({ type: 'ImpossibleResources' });
    expect(ray.executed).toEqual(['start 0']);
    await stop('refusing');
    await expect(scaleFleet(harness.client, 'refusing', { engines: 2 })).rejects.toMatchObject({
      type: 'NotFound',
    });
  });

  it('is refused more engines while nobody knows whether there is room, but not fewer', async () => {
    await ensure(specOf('unseen', 2));
    ray.reachable = false;
    const asked = async (request: object) => refusal(scaleFleet(harness.client, 'unseen', request));
    const cause = {
      type: 'ClusterUnavailable',
      message: expect.stringMatching(/^Ray does not answer \(fetch failed\), .* 40 engines$/u),
    };
    expect(await asked({ engines: 40 })).toMatchObject(cause);
    const scaling = { minEngines: 40, maxEngines: 40, idleSeconds: 60 };
    expect(await asked({ scaling })).toMatchObject(cause);
    expect(await scaleFleet(harness.client, 'unseen', { engines: 1 })).toEqual({
      before: 2,
      engines: 1,
    });
    ray.reachable = true;
    await statusWhen('unseen', ({ slots, state }) => slots.length === 1 && state === 'ready');
    await stop('unseen');
  });

  it('goes down to none and comes back', async () => {
    await ensure(specOf('none', 1));
    await scaleFleet(harness.client, 'none', { engines: 0 });
    await eventually(() => ray.actors.size === 0, 45);
    expect((await fleetStatus(harness.client, 'none'))?.state).toBe('ready');
    await scaleFleet(harness.client, 'none', { engines: 1 });
    await statusWhen('none', ({ ready }) => ready === 1);
    await stop('none');
  });
});

describe('what is asked for while a user is let in', { timeout: 90_000 }, () => {
  /** Lets the next user of a fleet wait for the look at its engines until it is told to go on. */
  const holdNext = async (name: string) => {
    const held: (() => void)[] = [];
    const spec = specOf(name, 1, { maxConcurrentBatches: 3 });
    ray.onLook = async ({ maxConcurrentBatches }) =>
      maxConcurrentBatches === 3 ? new Promise((resolve) => held.push(resolve)) : undefined;
    const ensured = ensure(spec, { user: 'b' });
    ensured.catch(() => {});
    await eventually(() => held.length === 1);
    const goOn = (): void => {
      ray.onLook = async () => {};
      for (const each of held) each();
    };
    return { ensured, goOn };
  };

  it('is kept: limits', async () => {
    await ensure(specOf('limited', 1), { user: 'a' });
    const { ensured, goOn } = await holdNext('limited');
    const scaling = { minEngines: 1, maxEngines: 2, idleSeconds: 60 };
    await scaleFleet(harness.client, 'limited', { scaling });
    goOn();
    expect(await ensured).toMatchObject({ engines: 1, maxEngines: 2 });
    expect(await fleetStatus(harness.client, 'limited')).toMatchObject({ scaling });
    await stop('limited');
  });

  it('is kept: an end', async () => {
    await ensure(specOf('ended', 1), { user: 'a' });
    const { ensured, goOn } = await holdNext('ended');
    const drained = drainFleet(harness.client, 'ended');
    await statusWhen('ended', ({ state }) => state === 'stopping' || state === 'stopped');
    goOn();
    expect(await refusal(ensured)).toMatchObject({ type: 'ClusterUnavailable' });
    await drained;
    expect(ray.executed).toEqual(['start 0', 'stop 0 (drained)']);
  });
});

describe('draining a fleet', { timeout: 90_000 }, () => {
  it('ends it when its engines have finished what they have, and refuses new users meanwhile', async () => {
    const ends: (() => void)[] = [];
    ray.onDrain = async () => new Promise((resolve) => ends.push(resolve));
    await ensure(specOf('drained', 2), { user: 'a' });
    const drained = drainFleet(harness.client, 'drained');
    await eventually(() => ends.length === 2);
    expect(await refusal(ensure(specOf('drained', 1), { user: 'b' }))).toMatchObject({
      type: 'ClusterUnavailable',
    });
    expect(ray.actors.size).toBe(2);
    for (const end of ends) end();
    await drained;
    expect(ray.actors.size).toBe(0);
    expect(ray.executed.filter((step) => step.startsWith('stop')).toSorted()).toEqual([
      'stop 0 (drained)',
      'stop 1 (drained)',
    ]);
    await handleOf('drained')
      .result()
      .catch((error: WorkflowFailedError) => error.cause);
  });

  it('refuses at once a grace that is none, and goes on', async () => {
    await ensure(specOf('mistyped', 1));
    // As `--grace 100000000d` is: beyond the last date that there is.
    const beyond = await refusal(drainFleet(harness.client, 'mistyped', 8.64e12));
    expect(beyond).toMatchObject({ type: 'InvalidRequest' });
    const args: [unknown] = [{ graceSeconds: '1h' }];
    const typed = handleOf('mistyped').executeUpdate(UPDATE.drainFleet, { args });
    expect(await refusal(typed)).toMatchObject({
      type: 'InvalidRequest',
      message: expect.stringContaining('graceSeconds'),
    });
    expect(await fleetStatus(harness.client, 'mistyped')).toMatchObject({ state: 'ready' });
    await stop('mistyped');
  });
});

describe('a fleet that scales by itself', { timeout: 120_000 }, () => {
  const scaling = { minEngines: 0, maxEngines: 3, idleSeconds: 2 };

  it('grows with the batches that wait, shrinks to none when idle, and records why', async () => {
    await ensure(specOf('elastic', 1, { scaling }));
    ray.backlog = 5;
    await statusWhen('elastic', ({ ready }) => ready === 3);
    ray.backlog = 0;
    const status = await statusWhen(
      'elastic',
      ({ slots, desired }) => slots.length + desired === 0,
    );
    expect(status.steps?.map(({ from, to }) => [from, to])).toEqual([
      [1, 3],
      [3, 0],
    ]);
    expect(status.steps?.[0]?.reason).toMatch(/5 batches wait/u);
    expect(status.steps?.[1]?.reason).toMatch(/nothing was in work/u);
    expect(ray.actors.size).toBe(0);
    ray.backlog = 1;
    await statusWhen('elastic', ({ ready }) => ready === 1);
    await stop('elastic');
  });

  it('keeps an engine that is at work though no batch waits', async () => {
    ray.busy.set(0, 2);
    await ensure(specOf('working', 1, { scaling }));
    await new Promise((resolve) => setTimeout(resolve, 8_000));
    expect(await fleetStatus(harness.client, 'working')).toMatchObject({ desired: 1, ready: 1 });
    await stop('working');
  });
});

describe('a fleet that stays for a while', { timeout: 120_000 }, () => {
  it('is warm for the next run, and stops when nobody used it for long enough', async () => {
    const spec = specOf('warm', 1, { idleTimeoutSeconds: 3 });
    await ensure(spec, { user: 'a', keep: true });
    await new Promise((resolve) => setTimeout(resolve, 6_000));
    expect((await fleetStatus(harness.client, 'warm'))?.state).toBe('ready');
    await handleOf('warm').executeUpdate(UPDATE.stopFleet, { args: [{ user: 'a' }] });
    expect(await ensure(spec, { user: 'b', keep: true })).toMatchObject({ engines: 1 });
    expect(ray.executed).toEqual(['start 0']);
    await handleOf('warm').executeUpdate(UPDATE.stopFleet, { args: [{ user: 'b' }] });
    await handleOf('warm').result();
    expect(ray.actors.size).toBe(0);
    const { steps } = (await fleetStatus(harness.client, 'warm')) ?? {};
    expect(steps?.at(-1)?.reason).toMatch(/nobody used the fleet for 3 s/u);
  });
});
