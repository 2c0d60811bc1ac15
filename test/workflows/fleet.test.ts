import { type WorkflowFailedError, type WorkflowUpdateFailedError } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import type { FleetSpec } from '../../src/contracts/fleet.js';
import {
  CONTROL_QUEUE,
  PYTHON_QUEUE,
  QUERY,
  SIGNAL,
  UPDATE,
  fleetWorkflowId,
} from '../../src/contracts/names.js';
import type {
  EnsureFleetRequest,
  FleetStatus,
  ScaleRequest,
  ScaledFleet,
  StopRequest,
  StopResult,
} from '../../src/contracts/workflows.js';
import type { PreemptionNotice } from '../../src/contracts/preemption.js';
import { ADDRESS, FakeRay, rayNode } from '../support/fake-cluster.js';
import { ensureFleet } from '../support/ensure-fleet.js';
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
  ensureFleet(harness.client, spec, claim);

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
    expect(await ensure(specOf('plain', 2))).toEqual({
      startedHere: false,
      engines: 2,
      desired: 2,
    });
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

  it('waits for nodes that were just lost, before it says that there is no room', async () => {
    const { nodes } = ray;
    ray.nodes = [];
    ray.missingNodes = 1;
    const spec = specOf('between', 2);
    const ensured = ensure(spec);
    await eventually(() => ray.executed.length === 2);
    ray.nodes = nodes;
    ray.missingNodes = 0;
    await ray.placePending(spec);
    expect(await ensured).toMatchObject({ engines: 2 });
    await stop('between');
  });

  it('refuses what has no room when its lost nodes are back', async () => {
    const { nodes } = ray;
    ray.nodes = [];
    ray.missingNodes = 1;
    ray.onCanary = async () => new Promise(() => {});
    const cause = refusal(ensure(specOf('too-many', 3)));
    await eventually(() => ray.executed.length === 3);
    ray.nodes = nodes;
    ray.missingNodes = 0;
    expect(await cause).toMatchObject({ type: 'ImpossibleResources' });
    await expect(handleOf('too-many').result()).rejects.toThrow();
    expect(ray.actors.size).toBe(0);
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

  it('loads an engine again that met a taken port, and fails when it always meets one', async () => {
    const loads: string[] = [];
    const lostOnce = async (_slot: number, incarnation: string): Promise<void> => {
      loads.push(incarnation);
      if (new Set(loads).size > 1) return;
      throw ApplicationFailure.nonRetryable('EADDRINUSE', 'EngineGone');
    };
    ray.onCanary = lostOnce;
    await ensure(specOf('port', 1));
    expect(ray.executed).toContain('restart 0');
    expect(loads).toHaveLength(2);
    await stop('port');

    ray.onCanary = async () => {
      throw ApplicationFailure.nonRetryable('EADDRINUSE', 'EngineGone');
    };
    const cause = await refusal(ensure(specOf('ports', 1)));
    expect(cause).toMatchObject({ type: 'EngineLoadFailed', message: 'EADDRINUSE' });
    expect(ray.executed.filter((step) => step === 'restart 0')).toHaveLength(1 + 4);
  });

  it('restarts an engine that makes no step any more, and leaves the others alone', async () => {
    // Asked every two seconds then, not once a minute.
    const scaling = { minEngines: 2, maxEngines: 2, idleSeconds: 4 };
    await ensure({ ...specOf('hung', 2), scaling });
    const hung = ray.actors.get(0)?.incarnation;
    ray.onCanary = async (_slot, incarnation) => {
      if (incarnation === hung) throw ApplicationFailure.retryable('no step', 'EngineGone');
    };
    await eventually(() => ray.executed.includes('restart 0'), 60);
    const status = await eventually(async () => {
      const seen = await statusOf('hung');
      return seen.state === 'ready' && seen.slots[0]?.incarnation !== hung && seen;
    }, 60);
    expect(status.slots.map(({ slot, restarts }) => [slot, restarts])).toEqual([
      [0, 1],
      [1, 0],
    ]);
    expect(ray.executed.filter((step) => step.startsWith('restart'))).toEqual(['restart 0']);
    await stop('hung');
  });

  it('goes when its last user gives it back, and stays for a person', async () => {
    expect(await ensure(specOf('shared', 1), { user: 'a' })).toMatchObject({ startedHere: true });
    expect(await ensure(specOf('shared', 1), { user: 'b' })).toMatchObject({ startedHere: false });
    expect(await stop('shared', { user: 'a' })).toMatchObject({ stopped: false });
    expect(ray.actors.size).toBe(1);
    expect(await stop('shared', { user: 'b' })).toMatchObject({ stopped: true });

    await ensure(specOf('kept', 1), { user: 'a' });
    await ensure(specOf('kept', 1));
    expect(await stop('kept', { user: 'a' })).toMatchObject({ stopped: false });
    expect(await stop('kept')).toEqual({ stopped: true });
  });

  it('is not ready while its cluster does not answer', { timeout: 90_000 }, async () => {
    await ensure(specOf('blind', 1));
    ray.reachable = false;
    const status = await eventually(async () => {
      const seen = await statusOf('blind');
      return seen.state !== 'ready' && seen;
    }, 60);
    expect(status).toMatchObject({
      state: 'degraded',
      problem: { message: 'fetch failed', at: expect.stringMatching(/^20/u) },
    });
    ray.reachable = true;
    await eventually(async () => (await statusOf('blind')).state === 'ready', 60);
    // What is over is still told, but nobody is to do anything about it.
    const { currentDetails: details } = await handleOf('blind').query<{ currentDetails: string }>(
      '__temporal_workflow_metadata',
    );
    expect(details).toMatch(/Last problem \(20.*\): fetch failed/u);
    expect(details).not.toContain('Way out');
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

describe('a fleet with a node that is going to be taken away', { timeout: 120_000 }, () => {
  const STAYS = 'a'.repeat(56);
  const GOES = 'b'.repeat(56);
  /** Drains under way, and what lets them end. */
  let drains: { slot: number; deadline: number; end: () => void }[];

  beforeEach(() => {
    drains = [];
    ray.onDrain = async (slot, { deadline }) =>
      new Promise((resolve) => {
        drains.push({ slot, deadline, end: resolve });
      });
  });

  /** Two engines, one on each of two nodes; then there is room for `room` on the first. */
  const onTwoNodes = async (
    name: string,
    room: number,
    claim: Omit<EnsureFleetRequest, 'spec'> = {},
  ): Promise<FleetSpec> => {
    const node = (nodeId: string, cpus: number) => rayNode({ nodeId, name: nodeId, cpus });
    ray.nodes = [node(STAYS, 1), node(GOES, 1)];
    const spec = specOf(name, 2);
    await ensure(spec, claim);
    ray.nodes = [node(STAYS, room), node(GOES, 1)];
    return spec;
  };
  /** What the sentinel of the node does. */
  const giveNotice = async (name: string, seconds: number): Promise<PreemptionNotice> => {
    ray.cordoned.add(GOES);
    const deadline = Date.now() + seconds * 1000;
    const notice: PreemptionNotice = { nodeId: GOES, source: 'file', deadline };
    await handleOf(name).signal(SIGNAL.preemptionNotice, notice);
    return notice;
  };
  /** The workflow says that it drains an engine before the activity has begun. */
  const endDrain = async (): Promise<void> => {
    await eventually(() => drains.length > 0);
    drains[0]?.end();
  };
  const slotsOf = async (name: string) =>
    (await statusOf(name)).slots.map(({ slot, state }) => [slot, state]);

  it('counts what engines were held for a user, on which node and how', async () => {
    await onTwoNodes('counted', 2, { user: 'inference/one' });
    ray.onCanary = async (slot) =>
      slot === 2 ? new Promise((resolve) => setTimeout(resolve, 500)) : undefined;
    await giveNotice('counted', 60);
    await eventually(async () => (await statusOf('counted')).ready === 2);
    const seen = (await statusOf('counted')).usage;
    expect(seen).toMatchObject([{ user: 'inference/one', preemptions: 1 }]);
    await endDrain();
    const { usage } = await stop('counted', { user: 'inference/one' });
    expect(usage?.preemptions).toBe(1);
    expect(usage?.nodes.map(({ node }) => node).toSorted()).toEqual([STAYS, GOES]);
    for (const { node, readySeconds, drainingSeconds, ...held } of usage?.nodes ?? []) {
      if (node === GOES) {
        expect(drainingSeconds).toBeGreaterThan(0);
        expect(held.reloadingSeconds).toBeUndefined();
      } else {
        expect([readySeconds > 0, drainingSeconds]).toEqual([true, 0]);
        expect(held.reloadingSeconds).toBeGreaterThan(0.4);
        expect(held.reloadingSeconds).toBeLessThan(held.loadingSeconds);
      }
    }
  });

  it('drains its engine and starts another elsewhere at once, then removes it for good', async () => {
    await onTwoNodes('moving', 2);
    const { deadline } = await giveNotice('moving', 60);
    await eventually(() => drains.length === 1 && ray.executed.includes('start 2'));
    expect(drains[0]).toMatchObject({ slot: 1, deadline });
    await eventually(async () => (await statusOf('moving')).state === 'ready');
    expect(await slotsOf('moving')).toEqual([
      [0, 'ready'],
      [1, 'draining'],
      [2, 'ready'],
    ]);
    expect((await statusOf('moving')).slots[1]?.deadline).toBe(new Date(deadline).toISOString());
    expect(ray.executed).not.toContain('stop 1 (drained)');

    await endDrain();
    await eventually(() => ray.executed.includes('stop 1 (drained)'));
    await eventually(async () => (await statusOf('moving')).slots.length === 2, 45);
    expect(await slotsOf('moving')).toEqual([
      [0, 'ready'],
      [2, 'ready'],
    ]);
    // The ranks of the engine that went are served by the one that came.
    expect(ray.indexes.get(2)).toBe(1);
    expect(ray.executed).toEqual(['start 0', 'start 1', 'start 2', 'stop 1 (drained)']);
    await stop('moving');
    expect(ray.actors.size).toBe(0);
  });

  it('hears a notice once, and a sooner deadline again', async () => {
    await onTwoNodes('hearing', 2);
    const notice = await giveNotice('hearing', 100);
    await handleOf('hearing').signal(SIGNAL.preemptionNotice, notice);
    await eventually(() => ray.executed.includes('start 2'));
    const sooner = await giveNotice('hearing', 5);
    await eventually(() => drains.length === 2);
    expect(drains.map(({ deadline }) => deadline)).toEqual([notice.deadline, sooner.deadline]);
    for (const { end } of drains) end();
    await eventually(() => ray.executed.includes('stop 1 (drained)'));
    expect(ray.executed.filter((step) => step === 'start 2')).toHaveLength(1);
    await stop('hearing');
  });

  it('says that there is no room, and goes on when room comes back', async () => {
    const spec = await onTwoNodes('waiting', 1);
    await giveNotice('waiting', 60);
    const { slots } = await eventually(async () => {
      const status = await statusOf('waiting');
      return status.slots.some(({ slot, problem }) => slot === 2 && problem) && status;
    });
    expect(slots.find(({ slot }) => slot === 2)).toMatchObject({
      state: 'placing',
      problem: { message: expect.stringMatching(/room for 1.*about to be taken away/u) },
    });
    await endDrain();
    await eventually(() => ray.executed.includes('stop 1 (drained)'));
    expect(await statusOf('waiting')).toMatchObject({ ready: 1, desired: 2 });

    ray.nodes = [...ray.nodes.filter(({ nodeId }) => nodeId !== GOES), rayNode({ nodeId: 'c' })];
    await ray.placePending(spec);
    const status = await eventually(async () => {
      const now = await statusOf('waiting');
      return now.state === 'ready' && now;
    }, 45);
    expect(status.slots.map(({ slot, problem }) => [slot, problem])).toEqual([
      [0, undefined],
      [2, undefined],
    ]);
    await stop('waiting');
  });

  it('does not care any more whether the model loads there', async () => {
    const node = (nodeId: string, cpus: number) => rayNode({ nodeId, name: nodeId, cpus });
    ray.nodes = [node(STAYS, 1), node(GOES, 1), node('c'.repeat(56), 1)];
    let fail: () => void = () => {};
    const failed = new Promise<void>((_, reject) => {
      fail = () => reject(ApplicationFailure.nonRetryable('cut short', 'EngineLoadFailed'));
    });
    ray.onCanary = async (slot) => (slot === 1 ? failed : undefined);
    const ensured = ensure(specOf('loading', 2));
    await eventually(async () => (await statusOf('loading').catch(() => undefined))?.ready === 1);
    await giveNotice('loading', 60);
    await eventually(() => drains.length === 1);
    fail();
    expect(await ensured).toMatchObject({ engines: 2 });
    expect(await slotsOf('loading')).toEqual([
      [0, 'ready'],
      [1, 'draining'],
      [2, 'ready'],
    ]);
    await endDrain();
    await stop('loading');
  });

  it('is not refused what it has, and refused more than will stay', async () => {
    await onTwoNodes('asked', 2);
    await giveNotice('asked', 60);
    expect(await ensure(specOf('asked', 2), { user: 'a' })).toMatchObject({ engines: 2 });
    const cause = await refusal(ensure(specOf('asked', 3)));
    expect(cause).toMatchObject({ type: 'ImpossibleResources' });
    expect((cause as Error).message).toMatch(/room for 2.*1 more are about to be taken away/u);
    await stop('asked');
  });

  it('forgets an engine that its node took along before it was drained', async () => {
    const spec = await onTwoNodes('lost', 2);
    await giveNotice('lost', 0);
    await eventually(() => drains.length === 1 && ray.executed.includes('start 2'));
    ray.nodes = ray.nodes.map((node) => ({ ...node, alive: node.nodeId !== GOES }));
    // Ray restarts it where there is room; its replacement is there already.
    await ray.crash(spec, 1);
    await eventually(() => ray.executed.includes('stop 1 (drained)'), 45);
    await expect
      .poll(async () => slotsOf('lost'), { timeout: 45_000 })
      .toEqual([
        [0, 'ready'],
        [2, 'ready'],
      ]);
    await stop('lost');
  });
});

describe('a fleet on a cluster with cordoned nodes', { timeout: 120_000 }, () => {
  const [ONE, TWO] = ['a'.repeat(56), 'b'.repeat(56)];
  /** Two nodes with so many CPUs, each for one engine. */
  const setNodes = (one: number, two: number): void => {
    ray.nodes = [
      rayNode({ nodeId: ONE, name: 'one', cpus: one }),
      rayNode({ nodeId: TWO, name: 'two', cpus: two }),
    ];
  };
  const placesOf = async (name: string) =>
    (await statusOf(name)).slots.map(({ slot, state, nodeId }) => {
      const node = ray.nodes.find((known) => known.nodeId === nodeId)?.name ?? 'nowhere';
      return `${slot} ${state} ${node}`;
    });
  /** To the size that it has: it looks at once. */
  const scale = async (name: string, engines: number) =>
    handleOf(name).executeUpdate<ScaledFleet, [ScaleRequest]>(UPDATE.scaleFleet, {
      args: [{ engines }],
    });

  it('keeps what is there and starts nothing there, until it is uncordoned', async () => {
    setNodes(3, 1);
    await ensure(specOf('kept', 1));
    ray.unschedulable.add(ONE);
    await scale('kept', 2);
    await eventually(async () => (await statusOf('kept')).ready === 2);
    expect(await placesOf('kept')).toEqual(['0 ready one', '1 ready two']);
    const cause = await refusal(scale('kept', 3));
    expect(cause).toMatchObject({
      type: 'ImpossibleResources',
      message: expect.stringMatching(
        /room for 2.*cordoned nodes: one, with 1 engine of the fleet/u,
      ),
      details: [{ wayOut: expect.stringContaining('`rankflow cluster uncordon ray one`') }],
    });
    ray.unschedulable.clear();
    await scale('kept', 3);
    await eventually(async () => (await statusOf('kept')).ready === 3);
    expect(await placesOf('kept')).toEqual(['0 ready one', '1 ready two', '2 ready one']);
    await stop('kept');
  });

  it('refuses a fleet at once for which only cordoned nodes have room', async () => {
    setNodes(2, 2);
    ray.unschedulable.add(ONE).add(TWO);
    expect(await refusal(ensure(specOf('closed', 1)))).toMatchObject({
      type: 'ImpossibleResources',
      message: expect.stringMatching(/room for 0.*cordoned nodes: one, two$/u),
    });
    expect(ray.executed).toEqual([]);
  });

  it('has an engine leave again that Ray restarts on one', async () => {
    setNodes(1, 1);
    const spec = specOf('back', 1);
    await ensure(spec);
    ray.unschedulable.add(ONE);
    await ray.crash(spec, 0);
    expect(ray.actors.get(0)?.nodeId).toBe(ONE);
    await scale('back', 1);
    await eventually(() => ray.executed.includes('stop 0 (drained)'), 45);
    await eventually(async () => (await placesOf('back')).join() === '1 ready two', 45);
    // The ranks that the engine served are served by the one that came.
    expect(ray.indexes.get(1)).toBe(0);
    await stop('back');
  });

  it('leaves nothing when it is stopped just when another engine was asked for', async () => {
    setNodes(1, 1);
    const spec = specOf('just', 1);
    await ensure(spec);
    ray.unschedulable.add(ONE);
    await ray.crash(spec, 0);
    let answer: () => void = () => {};
    const held = new Promise<void>((resolve) => (answer = resolve));
    ray.onLook = async () => (ray.executed.includes('start 1') ? held : undefined);
    await scale('just', 1);
    await eventually(() => ray.executed.includes('start 1'), 45);
    await stop('just');
    answer();
    expect(ray.actors.size).toBe(0);
  });

  it('says why an engine waits, and asks for it anew when the node is back', async () => {
    setNodes(1, 1);
    await ensure(specOf('waits', 2));
    ray.unschedulable.add(TWO);
    await ray.die(1);
    await scale('waits', 2);
    const waiting = await eventually(async () => {
      const { slots } = await statusOf('waits');
      return slots.find(({ state, problem }) => state === 'placing' && problem?.wayOut);
    }, 45);
    expect(waiting).toMatchObject({
      slot: 1,
      problem: {
        message: expect.stringMatching(/room for 1.*cordoned nodes: two$/u),
        wayOut: expect.stringContaining('`rankflow cluster uncordon ray two`'),
      },
    });
    expect(ray.executed).toEqual(['start 0', 'start 1', 'start 1']);
    ray.unschedulable.clear();
    await eventually(async () => (await statusOf('waits')).ready === 2, 45);
    expect(ray.executed.slice(3)).toEqual(['start 2', 'stop 1 (drained)']);
    await eventually(async () => (await statusOf('waits')).slots.length === 2, 45);
    expect(await placesOf('waits')).toEqual(['0 ready one', '2 ready two']);
    await stop('waits');
  });
});
