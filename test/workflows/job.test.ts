import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import type { WorkflowFailedError } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { logFolder, writeLog } from '../../src/activities/jobs/job-log.js';
import { followJob, type JobListener } from '../../src/cli/job-follow.js';
import { listJobs, startJob } from '../../src/client/jobs.js';
import { JobSpec, type JobResult, type JobStatus } from '../../src/contracts/job.js';
import {
  CONTROL_QUEUE,
  PYTHON_QUEUE,
  QUERY,
  SIGNAL,
  WORKFLOW,
  jobWorkflowId,
  submissionIdOf,
} from '../../src/contracts/names.js';
import { FakeJobs } from '../support/fake-job.js';
import { Harness, eventually } from '../support/harness.js';
import { labelsOf, unlabelled } from '../support/labels.js';

let harness: Harness;
let jobs: FakeJobs;

beforeAll(async () => {
  harness = await Harness.start('job');
  const forward = (name: string) => async (input: unknown) =>
    (jobs.activities as unknown as Record<string, (input: unknown) => unknown>)[name]?.(input);
  await harness.serve(PYTHON_QUEUE, { checkStoreShared: forward('checkStoreShared') });
  const names = ['openJob', 'submitJob', 'followJob', 'endJob', 'ensureCluster', 'stopCluster'];
  await harness.serve(
    CONTROL_QUEUE,
    Object.fromEntries(names.map((name) => [name, forward(name)])),
  );
});
beforeEach(() => {
  jobs = new FakeJobs();
});
afterAll(async () => harness.close());

const start = async (jobId: string, change: object = {}) => {
  const spec = JobSpec.parse({
    jobId,
    entrypoint: 'python train.py',
    store: '/store',
    cluster: { name: 'ray', nodes: { provider: 'local' } },
    ...change,
  });
  return harness.client.workflow.start(WORKFLOW.job, {
    workflowId: jobWorkflowId(jobId),
    taskQueue: CONTROL_QUEUE,
    args: [{ spec }],
  });
};
type Handle = Awaited<ReturnType<typeof start>>;
const failureOf = async (handle: Handle): Promise<ApplicationFailure> => {
  const error = await handle.result().catch((caught: WorkflowFailedError) => caught.cause);
  if (!(error instanceof ApplicationFailure)) throw new Error(`no failure: ${String(error)}`);
  return error;
};

describe('a job', () => {
  it('gives back what its script reported, and the cluster', async () => {
    const result = { metrics: { loss: 0.5 }, checkpoint: '/store/best' };
    jobs.ends = [{ status: 'succeeded', result }];
    const handle = await start('good');
    expect(await handle.result()).toEqual({
      jobId: 'good',
      state: 'succeeded',
      attempts: 1,
      ...result,
      path: '/store/jobs/good/results/good-a1.json',
    } satisfies JobResult);
    expect(jobs.released).toBe(1);
    const status = await handle.query<JobStatus>(QUERY.status);
    expect(status).toMatchObject({
      state: 'succeeded',
      result,
      attempts: [{ state: 'succeeded' }],
    });
  });

  it('is not submitted where hosts do not share the store', async () => {
    jobs.apart = true;
    const nodes = {
      provider: 'existing',
      address: '10.0.0.1:6379',
      dashboardUrl: 'http://10.0.0.1:8265',
    };
    const failure = await failureOf(await start('apart', { cluster: { name: 'theirs', nodes } }));
    expect(failure).toMatchObject({ type: 'StoreNotShared' });
    expect(jobs.submitted).toEqual([]);
    expect(jobs.released).toBe(1);
  });

  it('fails with the reason when its script does, without another try', async () => {
    jobs.ends = [{ status: 'failed', errorType: 'JOB_ENTRYPOINT_COMMAND_ERROR', exitCode: 3 }];
    const failure = await failureOf(await start('bad'));
    expect(failure).toMatchObject({
      type: 'JobFailed',
      details: [{ state: 'failed', attempts: 1 }],
    });
    expect(failure.message).toContain('exit code 3');
    expect(jobs.submitted).toEqual([1]);
    expect(jobs.released).toBe(1);
  });

  it('is tried again as often as retries say', async () => {
    const failed = { status: 'failed', exitCode: 1 } as const;
    jobs.ends = [failed, failed, { status: 'succeeded' }];
    const handle = await start('retried', { retries: 2 });
    expect(await handle.result()).toMatchObject({ state: 'succeeded', attempts: 3 });
    expect(jobs.submitted).toEqual([1, 2, 3]);
    const labels = await labelsOf(handle);
    expect(unlabelled(labels)).toEqual([]);
    const waited = labels.steps.filter(({ what }) => what === 'timer');
    expect(waited.map(({ summary }) => summary)).toEqual([
      'Wait to try again after attempt 1: JobFailed',
      'Wait to try again after attempt 2: JobFailed',
    ]);
  });

  it('is submitted again on the repaired cluster when something below it was lost', async () => {
    jobs.ends = [
      { status: 'failed', errorType: 'JOB_SUPERVISOR_ACTOR_DIED' },
      { status: 'unknown' },
      { status: 'succeeded' },
    ];
    const handle = await start('lost');
    expect(await handle.result()).toMatchObject({ state: 'succeeded', attempts: 3 });
    // Once for each attempt, and what may be left of the lost ones is ended before the next begins.
    expect(jobs.ensured).toBe(3);
    expect(jobs.ended).toEqual([1, 2]);
    const { attempts } = await handle.query<JobStatus>(QUERY.status);
    expect(attempts.map(({ state, submissionId }) => [submissionId, state])).toEqual([
      ['lost-a1', 'lost'],
      ['lost-a2', 'lost'],
      ['lost-a3', 'succeeded'],
    ]);
  });

  it('waits for a cluster that does not come up after a loss, and goes on', async () => {
    jobs.ends = [{ status: 'unknown' }, { status: 'succeeded' }];
    jobs.onEnsure = () => {
      if (jobs.ensured === 2 || jobs.ensured === 3) {
        throw ApplicationFailure.nonRetryable('a: no route to host', 'ClusterStartFailed');
      }
    };
    const handle = await start('rebooting');
    await eventually(() => jobs.ensured === 2);
    await eventually(async () => {
      const { state, problem } = await handle.query<JobStatus>(QUERY.status);
      return state === 'waiting' && problem?.message === 'a: no route to host';
    });
    expect(await handle.result()).toMatchObject({ state: 'succeeded', attempts: 2 });
    expect(jobs.ensured).toBe(4);
    const { steps } = await labelsOf(handle);
    expect(steps.filter(({ what }) => what === 'timer').map(({ summary }) => summary)).toEqual([
      'Wait to try again after attempt 1: JobLost',
      ...['Wait for the nodes of ray', 'Wait for the nodes of ray'],
    ]);
  });

  it('waits for such a cluster no more often than restarts say, and not when it is new', async () => {
    jobs.ends = [{ status: 'unknown' }];
    jobs.onEnsure = () => {
      if (jobs.ensured > 1) throw ApplicationFailure.nonRetryable('gone', 'ClusterStartFailed');
    };
    const lost = await failureOf(await start('hostless', { restarts: 2 }));
    expect(lost).toMatchObject({ type: 'ClusterStartFailed', message: 'gone' });
    expect(jobs.ensured).toBe(3);
    expect(jobs.released).toBe(1);

    jobs = new FakeJobs();
    jobs.onEnsure = () => {
      throw ApplicationFailure.nonRetryable('a: has no Ray', 'ClusterStartFailed');
    };
    const refused = await failureOf(await start('unfit'));
    expect(refused).toMatchObject({ type: 'ClusterStartFailed', message: 'a: has no Ray' });
    expect(jobs.ensured).toBe(1);
  });

  it('is not submitted again while nobody knows whether it runs', async () => {
    jobs.ends = [{ status: 'unreachable', reason: 'fetch failed' }, { status: 'succeeded' }];
    const handle = await start('unreachable');
    expect(await handle.result()).toMatchObject({ state: 'succeeded', attempts: 1 });
    expect(jobs.submitted).toEqual([1]);
    expect(jobs.ensured).toBe(2);
  });

  it('counts on from the attempts of an earlier start', async () => {
    jobs.earlierAttempts = 4;
    jobs.ends = [{ status: 'succeeded' }];
    expect(await (await start('continued')).result()).toMatchObject({ attempts: 5 });
    expect(jobs.submitted).toEqual([5]);
  });

  it('is stopped in good order, and its cluster given back', async () => {
    const handle = await start('stopped');
    await eventually(() => jobs.submitted.length === 1);
    await eventually(async () => (await handle.query<JobStatus>(QUERY.status)).state === 'running');
    await handle.signal(SIGNAL.stopJob);
    expect(await handle.result()).toEqual({ jobId: 'stopped', state: 'stopped', attempts: 1 });
    expect(jobs.ended).toEqual([1]);
    expect(jobs.released).toBe(1);
  });

  it('is followed to its last line when it is stopped just as it starts', async () => {
    jobs.startsOnlyWhenEnded = true;
    const handle = await start('just-started');
    await eventually(() => jobs.followed.length === 1);
    await handle.signal(SIGNAL.stopJob);
    expect(await handle.result()).toMatchObject({ state: 'stopped' });
    expect(jobs.followed).toEqual(['start', 'end']);
  });

  it('is stopped by a cancellation as well', async () => {
    const handle = await start('cancelled');
    await eventually(async () => (await handle.query<JobStatus>(QUERY.status)).state === 'running');
    await handle.cancel();
    expect(await handle.result()).toMatchObject({ state: 'stopped' });
    expect(jobs.ended).toEqual([1]);
  });

  it('can be stopped before its cluster is there', async () => {
    let asked = false;
    jobs.onEnsure = async () => {
      asked = true;
      await new Promise((resolve) => setTimeout(resolve, 1_000));
    };
    const handle = await start('early');
    await eventually(() => asked);
    await handle.signal(SIGNAL.stopJob);
    expect(await handle.result()).toEqual({ jobId: 'early', state: 'stopped', attempts: 0 });
    expect(jobs.submitted).toEqual([]);
    expect(jobs.released).toBe(1);
  });

  it('is ended when its time is over', async () => {
    const failure = await failureOf(await start('slow', { timeoutSeconds: 2 }));
    expect(failure).toMatchObject({ type: 'JobTimedOut', details: [{ state: 'timed_out' }] });
    expect(jobs.ended).toEqual([1]);
    expect(jobs.released).toBe(1);
  });

  it('fails at once when Ray refuses it', async () => {
    jobs.onSubmit = () => {
      throw ApplicationFailure.nonRetryable('Ray refuses the job: bad field', 'JobRefused');
    };
    expect(await failureOf(await start('refused'))).toMatchObject({ type: 'JobRefused' });
    expect(jobs.released).toBe(1);
  });

  it('gives up when it is lost again and again', async () => {
    jobs.ends = [{ status: 'unknown' }, { status: 'unknown' }];
    const failure = await failureOf(await start('hopeless', { restarts: 1 }));
    expect(failure).toMatchObject({ type: 'JobLost', details: [{ attempts: 2 }] });
  });
});

describe('jobs as the command line shows them', () => {
  const entrypoint = 'python train.py';
  const listed = async (limit: number) => listJobs(harness.client, limit);

  it('are followed to their end, each byte of the log of each attempt once', async () => {
    const store = mkdtempSync(path.join(tmpdir(), 'rankflow-job-'));
    const spec = JobSpec.parse({
      ...{ jobId: 'followed', entrypoint, store },
      cluster: { name: 'ray', nodes: { provider: 'local' } },
    });
    const write = async (attempt: number, at: number, text: string) => {
      const place = logFolder(spec, submissionIdOf('followed', attempt));
      await writeLog(place, at, Buffer.from(text));
    };
    const told: string[] = [];
    jobs.ends = [
      async () => {
        await write(1, 0, 'epoch 0\n');
        await eventually(() => told.includes('1 epoch 0\n'));
        await write(1, 8, 'epoch 1\n');
        return { status: 'unknown' };
      },
      async () => {
        await write(2, 0, 'from epoch 1\n');
        return { status: 'succeeded', result: { metrics: { loss: 0.5 } } };
      },
    ];
    expect(await startJob(harness.client, { spec, parameters: 'p' })).toMatchObject({
      outcome: 'started',
    });
    const states: string[] = [];
    const listener: JobListener = {
      changed: ({ state, attempts }) => states.push(`${state} ${attempts.length}`),
      log: (data, attempt) => told.push(`${attempt} ${data.toString('utf8')}`),
    };
    const last = await followJob(harness.client, 'followed', listener, 1);
    expect(last).toMatchObject({ state: 'succeeded', metrics: { loss: 0.5 }, store });
    expect(told).toEqual(['1 epoch 0\n', '1 epoch 1\n', '2 from epoch 1\n']);
    expect(states.at(0)).toMatch(/^(?:preparing|pending|running) /u);
    expect(states.at(-1)).toBe('succeeded 2');
    rmSync(store, { recursive: true });

    const found = await eventually(async () => {
      const all = await listed(100);
      return all[0]?.jobId === 'followed' && all[0].state === 'succeeded' && all;
    });
    expect(found[0]).toMatchObject({ entrypoint, cluster: 'ray' });
    // How those of the tests before have ended, each once.
    const ends = Object.fromEntries(found.map(({ jobId, state }) => [jobId, state]));
    expect(ends).toMatchObject({
      ...{ good: 'succeeded', bad: 'failed', stopped: 'stopped', slow: 'timed_out' },
    });
    expect(await listed(2)).toHaveLength(2);
  });
});
