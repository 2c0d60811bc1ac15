import { gunzipSync } from 'node:zlib';

import { ApplicationFailure } from '@temporalio/common';
import { temporal } from '@temporalio/proto';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

import { planOccurrence } from '../../src/activities/scheduled.js';
import type { PrepareScheduledRunInput } from '../../src/contracts/activities.js';
import {
  CONTROL_QUEUE,
  SIGNAL,
  UPDATE,
  WORKFLOW,
  clusterWorkflowId,
  fleetWorkflowId,
  inferenceWorkflowId,
  notifyWorkflowId,
  jobWorkflowId,
  rankWorkflowId,
  runWorkflowId,
  scheduledWorkflowId,
  slotQueue,
} from '../../src/contracts/names.js';
import { JobSpec } from '../../src/contracts/job.js';
import { ScheduledRun } from '../../src/contracts/schedule.js';
import { ATTRIBUTE } from '../../src/contracts/search-attributes.js';
import { FakeJobs } from '../support/fake-job.js';
import { FakeRun, SPEC_HASH, fakeModel, fakeSpec } from '../support/fake-run.js';
import type { PreemptionNotice } from '../../src/contracts/preemption.js';
import { ADDRESS, rayNode } from '../support/fake-cluster.js';
import { Harness, eventually } from '../support/harness.js';
import {
  RECORDING,
  RELEASE,
  keepHistory,
  keptHistories,
  keptReleases,
  readHistory,
} from '../support/kept-history.js';
import { World } from '../support/world.js';

const { History } = temporal.api.history.v1;

/**
 * Clusters and fleets go on with the next release, unversioned workflows of all kinds do: what they did before must
 * come out of the new code as well. Each release leaves its histories, recorded once and never again.
 */
describe('histories that were kept', () => {
  beforeAll(() => {
    Runtime.install({ logger: new DefaultLogger('ERROR') });
  });

  const all = keptReleases().flatMap((release) =>
    keptHistories(release).map((name) => [release, name] as const),
  );
  it.each(all)('of %s replay: %s', async (release, name) => {
    const kept = readHistory(release, name);
    await Worker.runReplayHistory(
      { workflowBundle: { codePath: inject('workflowBundle') } },
      History.decode(gunzipSync(Buffer.from(kept.history, 'base64'))),
      kept.workflowId,
    );
  });

  it('of a job whose client knew search attributes that its build did not set replay', async () => {
    const kept = readHistory('0.1.0', 'job-whole');
    const history = History.decode(gunzipSync(Buffer.from(kept.history, 'base64')));
    const started = history.events[0]?.workflowExecutionStartedEventAttributes;
    if (!started) throw new Error('it does not begin with a start');
    const metadata = {
      encoding: Buffer.from('json/plain'),
      type: Buffer.from('Keyword'),
    };
    const data = Buffer.from(JSON.stringify('preparing'));
    const indexedFields = { [ATTRIBUTE.state.name]: { metadata, data } };
    started.searchAttributes = { indexedFields };
    await Worker.runReplayHistory(
      { workflowBundle: { codePath: inject('workflowBundle') } },
      history,
      kept.workflowId,
    );
  });

  it.each(keptReleases())('of %s are there for every workflow', (release) => {
    const types = ['cluster', 'fleet', 'inference', 'job', 'notify', 'rank', 'run', 'scheduled'];
    const kept = keptHistories(release).map((name) => name.split('-')[0]);
    expect(new Set(kept)).toEqual(new Set(types));
  });

  it('name no host and no folder', () => {
    for (const [release, name] of all) {
      const bytes = gunzipSync(Buffer.from(readHistory(release, name).history, 'base64'));
      expect(bytes.toString('latin1'), name).not.toMatch(/\/(?:root|home|Users|work|private)\//u);
    }
  });
});

/** `npm run histories` writes those of this release that do not exist. */
describe.runIf(RECORDING)('recording', { timeout: 180_000 }, () => {
  let harness: Harness;
  let world: World;
  beforeAll(async () => {
    harness = await Harness.start('record');
    world = await World.start(harness, scheduled);
  });
  afterAll(async () => {
    await world.reset();
    await harness.close();
  });

  const keep = async (name: string, workflowId: string): Promise<void> =>
    keepHistory(harness.client, name, workflowId);

  /** What a scheduled run needs beside the world of its run. */
  const scheduled = {
    planOccurrence,
    findInput: async () => ({ found: true }),
    prepareScheduledRun: async ({ run, occurrence }: PrepareScheduledRunInput) => {
      const { inference } = run;
      const spec = { ...inference.run, runId: occurrence.runId };
      return { inference: { ...inference, run: spec }, memo: {}, priority: {}, running: false };
    },
    publishResults: async () => ({ publishedUri: 'file:///answers.jsonl' }),
    pruneScheduled: async () => ({ removed: ['old'] }),
    sendWebhook: async () => undefined,
    runNotifyCommand: async () => undefined,
  };

  it('a run that is paused, whose fleet is scaled, and that is drained', async () => {
    await world.reset();
    world.ray.nodes = [rayNode({ cpus: 4 })];
    world.run = new FakeRun([40]);
    let wait = 300;
    world.run.onBatch = async () => new Promise((resolve) => setTimeout(resolve, wait));
    const deadline = new Date(Date.now() + 3_600_000).toISOString();
    const handle = await world.infer('steered', false, { deadline });
    await eventually(() => world.run.committed.size > 2, 40);
    await handle.signal(SIGNAL.pause);
    await eventually(() => world.run.inFlight === 0);
    await handle.executeUpdate(UPDATE.steerRun, { args: [{ action: 'resume' }] });
    await eventually(() => world.run.inFlight > 0);
    wait = 2_000;
    const fleet = harness.client.workflow.getHandle(fleetWorkflowId('models'));
    await fleet.executeUpdate(UPDATE.scaleFleet, { args: [{ engines: 2 }] });
    await eventually(() => world.run.inFlight === 6);
    await handle.signal(SIGNAL.pause, { now: true });
    await eventually(() => world.run.inFlight === 0);
    await handle.signal(SIGNAL.resume);
    await fleet.signal(SIGNAL.scale, 1);
    await eventually(() => world.run.inFlight > 0);
    await handle.signal(SIGNAL.drain);
    await handle.result();
    await keep('inference-steered', inferenceWorkflowId('steered'));
    await keep('run-steered', runWorkflowId('steered'));
    await keep('rank-steered', rankWorkflowId('steered', 0));
    await keep('fleet-scaled', fleetWorkflowId('models'));
  });

  it('a fleet that scales by itself and stops when idle', async () => {
    await world.reset();
    world.run = new FakeRun([2]);
    world.ray.nodes = [rayNode({ cpus: 4 })];
    world.ray.backlog = 3;
    const scaling = { minEngines: 0, maxEngines: 2, idleSeconds: 2 };
    const fleet = { name: 'models', engines: 1, maxConcurrentBatches: 2, scaling };
    const elastic = { fleet: { ...fleet, idleTimeoutSeconds: 5 } };
    world.run.onBatch = async () =>
      eventually(() => world.ray.actors.size === 2, 60).then(() => {});
    await (await world.infer('elastic', true, elastic)).result();
    world.ray.backlog = 0;
    await harness.client.workflow.getHandle(fleetWorkflowId('models')).result();
    await keep('fleet-elastic', fleetWorkflowId('models'));
    await harness.client.workflow
      .getHandle(clusterWorkflowId('ray'))
      .executeUpdate(UPDATE.stopCluster);
  });

  it('a run that expires', async () => {
    await world.reset();
    world.run = new FakeRun([2]);
    world.run.onBatch = async () => new Promise((resolve) => setTimeout(resolve, 60_000));
    const deadline = new Date(Date.now() + 8_000).toISOString();
    await (await world.infer('expired', false, { deadline })).result();
    await keep('inference-expired', inferenceWorkflowId('expired'));
    await keep('run-expired', runWorkflowId('expired'));
  });

  it('a scheduled run and who is told of it', async () => {
    await world.reset();
    world.run = new FakeRun([1]);
    const { data: run } = ScheduledRun.safeParse({
      schedule: 'nightly',
      timing: { cron: ['0 2 * * *'], timeZone: 'UTC' },
      input: '/{date}.jsonl',
      inference: {
        run: fakeSpec('template', 1),
        specHash: SPEC_HASH,
        cluster: { name: 'ray', nodes: { provider: 'local' } },
        fleet: { name: 'models', engines: 1 },
      },
      retention: { keepLast: 1 },
      notify: [
        { kind: 'webhook', url: 'http://127.0.0.1:1/' },
        { kind: 'command', command: ['true'] },
      ],
    });
    const workflowId = scheduledWorkflowId('nightly');
    const handle = await harness.client.workflow.start(WORKFLOW.scheduledRun, {
      workflowId,
      taskQueue: CONTROL_QUEUE,
      args: [run],
    });
    const { runId } = (await handle.result()) as { runId: string };
    await keep('scheduled-run', workflowId);
    await keep('notify-both', notifyWorkflowId('nightly', runId, handle.firstExecutionRunId));
  });

  it('a run with a retry', async () => {
    world.run = new FakeRun([2, 3]);
    world.run.onBatch = async ({ batch }, attempt) => {
      if (batch === 1 && attempt === 1) throw ApplicationFailure.retryable('', 'EngineGone');
    };
    await (await world.infer('whole')).result();
    await keep('inference-whole', inferenceWorkflowId('whole'));
    await keep('run-whole', runWorkflowId('whole'));
    await keep('rank-retry', rankWorkflowId('whole', 1));
    await keep('cluster-up-and-down', clusterWorkflowId('ray'));
    await keep('fleet-up-and-down', fleetWorkflowId('models'));
  });

  it('a rank with a batch that killed engines', async () => {
    world.run = new FakeRun([2]);
    let deaths = 0;
    world.run.onBatch = async ({ batch, alone }) => {
      // Alone it kills one more engine; the fleet has one, so its next life takes the batch again.
      if (batch === 0) return;
      if (alone !== true) throw ApplicationFailure.nonRetryable('engines died', 'SuspectBatch');
      if ((deaths += 1) === 1) throw ApplicationFailure.retryable('ended', 'EngineGone');
    };
    await harness.serve(slotQueue('models', SPEC_HASH, 0), {
      generateBatch: async (input: Parameters<FakeRun['generateBatch']>[0]) =>
        world.run.generateBatch(input),
    });
    await (await world.infer('suspect')).result();
    await keep('rank-suspect', rankWorkflowId('suspect', 0));
  });

  it('a run that is cancelled', async () => {
    world.run = new FakeRun([3]);
    world.run.onBatch = async ({ batch }) =>
      batch === 0 ? undefined : new Promise((resolve) => setTimeout(resolve, 30_000));
    const handle = await world.infer('cancelled');
    await eventually(() => world.run.committed.size === 1 && world.run.inFlight === 2, 40);
    await handle.signal(SIGNAL.cancelRun);
    await handle.result();
    await keep('inference-cancelled', inferenceWorkflowId('cancelled'));
    await keep('run-cancelled', runWorkflowId('cancelled'));
    await keep('rank-cancelled', rankWorkflowId('cancelled', 0));
  });

  it('a run with a bad input, and one that continues as new', async () => {
    world.run = new FakeRun([1]);
    world.run.onPlan = () => {
      throw ApplicationFailure.nonRetryable('bad', 'InvalidInput');
    };
    await (await world.infer('bad')).result().catch(() => undefined);
    await keep('inference-bad-input', inferenceWorkflowId('bad'));
    world.run = new FakeRun([401]);
    await (await world.infer('long')).result();
    await keep('rank-continued', rankWorkflowId('long', 0));
  });

  it('a fleet whose engine is restarted and does not load, then', async () => {
    world.run = new FakeRun([1]);
    await (await world.infer('kept', true)).result();
    const spec = { name: 'models', cluster: ADDRESS, model: fakeModel, specHash: SPEC_HASH };
    let canaries = 0;
    world.ray.onCanary = async () => {
      canaries += 1;
      if (canaries === 1) throw ApplicationFailure.nonRetryable('no memory', 'EngineLoadFailed');
    };
    await world.ray.crash({ ...spec, engines: 1, maxConcurrentBatches: 2 }, 0);
    await eventually(() => canaries === 2, 150);
    for (const [id, update] of [
      [fleetWorkflowId('models'), 'stopFleet'],
      [clusterWorkflowId('ray'), 'stopCluster'],
    ] as const) {
      await harness.client.workflow.getHandle(id).executeUpdate(update);
    }
    await keep('fleet-reloaded', fleetWorkflowId('models'));
  });

  it('a fleet and a cluster with a node that has notice of preemption', async () => {
    await world.reset();
    world.run = new FakeRun([1]);
    const [goes, stays] = ['a'.repeat(56), 'b'.repeat(56)];
    world.ray.nodes = [rayNode({ nodeId: goes }), rayNode({ nodeId: stays, name: 'worker-2' })];
    await (await world.infer('spot', true)).result();
    world.ray.cordoned.add(goes);
    const notice: PreemptionNotice = {
      nodeId: goes,
      source: 'file',
      deadline: Date.now() + 5_000,
    };
    for (const id of [fleetWorkflowId('models'), clusterWorkflowId('ray')]) {
      await harness.client.workflow.getHandle(id).signal(SIGNAL.preemptionNotice, notice);
    }
    await eventually(() => world.ray.executed.includes('stop 0 (drained)'), 60);
    // A second run finds the fleet as it is.
    world.run = new FakeRun([1]);
    await (await world.infer('spot-again', true)).result();
    for (const [id, update] of [
      [fleetWorkflowId('models'), 'stopFleet'],
      [clusterWorkflowId('ray'), 'stopCluster'],
    ] as const) {
      await harness.client.workflow.getHandle(id).executeUpdate(update);
    }
    await keep('fleet-drained', fleetWorkflowId('models'));
    await keep('cluster-notice', clusterWorkflowId('ray'));
  });
});

describe.runIf(RECORDING)('recording of jobs', { timeout: 60_000 }, () => {
  let harness: Harness;
  const jobs = new FakeJobs();
  beforeAll(async () => {
    harness = await Harness.start('job');
    await harness.serve(CONTROL_QUEUE, jobs.activities);
  });
  afterAll(async () => harness.close());

  const start = async (jobId: string) =>
    harness.client.workflow.start(WORKFLOW.job, {
      workflowId: jobWorkflowId(jobId),
      taskQueue: CONTROL_QUEUE,
      args: [
        {
          spec: JobSpec.parse({
            jobId,
            entrypoint: 'python train.py',
            store: '/store',
            cluster: { name: 'ray', nodes: { provider: 'local' } },
            timeoutSeconds: 3600,
            retries: 1,
          }),
        },
      ],
    });

  it('a job that is lost, out of sight, fails and succeeds', async () => {
    jobs.ends = [
      { status: 'failed', errorType: 'JOB_SUPERVISOR_ACTOR_DIED' },
      { status: 'unreachable', reason: 'fetch failed' },
      { status: 'failed', exitCode: 1 },
      { status: 'succeeded', result: { metrics: { loss: 0.5 } } },
    ];
    await (await start('whole')).result();
    await keepHistory(harness.client, 'job-whole', jobWorkflowId('whole'));
  });

  it('a job that is stopped', async () => {
    const handle = await start('stopped');
    await eventually(
      async () => (await handle.query<{ state: string }>('status')).state === 'running',
    );
    await handle.signal(SIGNAL.stopJob);
    await handle.result();
    await keepHistory(harness.client, 'job-stopped', jobWorkflowId('stopped'));
  });
});

/** After the recording. */
it('this release has histories', () => {
  expect(keptReleases(), 'record them: npm run histories').toContain(RELEASE);
});
