import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';

import { ApplicationFailure } from '@temporalio/common';
import { temporal } from '@temporalio/proto';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

import {
  CONTROL_QUEUE,
  SIGNAL,
  WORKFLOW,
  clusterWorkflowId,
  fleetWorkflowId,
  inferenceWorkflowId,
  jobWorkflowId,
  rankWorkflowId,
  runWorkflowId,
  slotQueue,
} from '../../src/contracts/names.js';
import { JobSpec } from '../../src/contracts/job.js';
import { FakeJobs } from '../support/fake-job.js';
import { FakeRun, SPEC_HASH, fakeModel } from '../support/fake-run.js';
import type { PreemptionNotice } from '../../src/contracts/preemption.js';
import { ADDRESS, rayNode } from '../support/fake-cluster.js';
import { Harness, eventually } from '../support/harness.js';
import { World } from '../support/world.js';

const { History } = temporal.api.history.v1;
const folder = fileURLToPath(new URL('histories', import.meta.url));

/**
 * `history` is the protobuf message, compressed, in base64: the SDK's reader of JSON histories wants the same
 * copy of protobufjs below `@temporalio/common` and `@temporalio/proto`, which npm does not give it.
 */
interface KeptHistory {
  readonly workflowId: string;
  readonly events: number;
  readonly history: string;
}

/**
 * Workflows that run while a new version is deployed go on with it: what they did before must come out of the
 * new code as well. Histories are recorded once and never again; new ones are added beside them.
 */
describe('histories that were kept', () => {
  beforeAll(() => {
    Runtime.install({ logger: new DefaultLogger('ERROR') });
  });

  it.each(readdirSync(folder).filter((file) => file.endsWith('.json')))(
    'replay %s',
    async (file) => {
      const kept = JSON.parse(readFileSync(path.join(folder, file), 'utf8')) as KeptHistory;
      await Worker.runReplayHistory(
        { workflowBundle: { codePath: inject('workflowBundle') } },
        History.decode(gunzipSync(Buffer.from(kept.history, 'base64'))),
        kept.workflowId,
      );
    },
  );

  it('are there for every workflow', () => {
    const types = ['cluster', 'fleet', 'inference', 'job', 'rank', 'run'];
    const kept = readdirSync(folder).map((file) => file.split('-')[0]);
    expect(new Set(kept)).toEqual(new Set(types));
  });
});

/** `RECORD_HISTORIES=1 npx vitest run test/replay` writes those that do not exist. */
describe.runIf(process.env['RECORD_HISTORIES'])('recording', { timeout: 180_000 }, () => {
  let harness: Harness;
  let world: World;
  beforeAll(async () => {
    harness = await Harness.start('record');
    world = await World.start(harness);
  });
  afterAll(async () => {
    await world.reset();
    await harness.close();
  });

  const keep = async (name: string, workflowId: string): Promise<void> =>
    keepHistory(harness, name, workflowId);

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

/** Keeps the first run of a workflow. */
async function keepHistory(harness: Harness, name: string, workflowId: string): Promise<void> {
  const file = path.join(folder, `${name}.json`);
  if (existsSync(file)) return;
  const handle = harness.client.workflow.getHandle(workflowId);
  await handle.result().catch(() => undefined);
  const { raw } = await handle.describe();
  const runId = raw.workflowExecutionInfo?.firstRunId;
  const history = await harness.client.workflow.getHandle(workflowId, runId ?? '').fetchHistory();
  const bytes = History.encode(withoutHost(history)).finish();
  const kept: KeptHistory = {
    workflowId,
    events: history.events?.length ?? 0,
    history: gzipSync(bytes).toString('base64'),
  };
  writeFileSync(file, `${JSON.stringify(kept, null, 2)}\n`);
}

describe.runIf(process.env['RECORD_HISTORIES'])('recording of jobs', { timeout: 60_000 }, () => {
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
    await keepHistory(harness, 'job-whole', jobWorkflowId('whole'));
  });

  it('a job that is stopped', async () => {
    const handle = await start('stopped');
    await eventually(
      async () => (await handle.query<{ state: string }>('status')).state === 'running',
    );
    await handle.signal(SIGNAL.stopJob);
    await handle.result();
    await keepHistory(harness, 'job-stopped', jobWorkflowId('stopped'));
  });
});

/** Names of hosts, processes and folders are of no use in a kept history. Changes `value` in place. */
function withoutHost<T>(value: T): T {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value;
  const fields = value as Record<string, unknown>;
  for (const [key, field] of Object.entries(fields)) {
    if (key === 'identity') fields[key] = 'worker';
    else if (key === 'stackTrace') fields[key] = '';
    else if (typeof field === 'string' && field.includes('@')) fields[key] = 'queue';
    else withoutHost(field);
  }
  return value;
}
