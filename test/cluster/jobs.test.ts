import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { ApplicationFailure } from '@temporalio/common';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { ClusterAddress } from '../../src/contracts/cluster.js';
import { CONTROL_QUEUE } from '../../src/contracts/names.js';
import { Harness, eventually } from '../support/harness.js';

// A data folder of its own, with the Python environment of the real one.
const home = mkdtempSync(path.join(tmpdir(), 'rankflow-jobs-'));
const { paths } = await import('../../src/setup/paths.js');
Object.assign(paths, {
  home,
  clusters: path.join(home, 'clusters'),
  store: path.join(home, 'store'),
});

const { controlActivities } = await import('../../src/activities/index.js');
const { jobInfo } = await import('../../src/activities/jobs/ray-jobs.js');
const { removeLocalCluster } = await import('../../src/activities/local-cluster.js');
const { readNode } = await import('../../src/activities/local/node-state.js');
const { cordonNodes, ensureCluster, stopCluster } = await import('../../src/client/clusters.js');
const { afterLog, rayMessage, readAttemptLog } = await import('../../src/client/job-logs.js');
const { prepareJob } = await import('../../src/client/job-spec.js');
const { jobResult, jobView, startJob, stopJob } = await import('../../src/client/jobs.js');
const { checkpointFolder, resultFile } = await import('../../src/workflows/job-plan.js');

const CLUSTER = {
  name: 'jobs',
  nodes: { provider: 'local', workers: 2, cpusPerNode: 1 },
} as const;
const workingDir = path.join(home, 'work');

/** Loses the answer of a submission that Ray has taken, as a killed worker does. */
let loseAnswers = 0;
const activities = {
  ...controlActivities,
  submitJob: async (input: Parameters<typeof controlActivities.submitJob>[0]) => {
    await controlActivities.submitJob(input);
    if (loseAnswers === 0) return;
    loseAnswers -= 1;
    throw ApplicationFailure.retryable('the answer is lost');
  },
};

let harness: Harness;
let address: ClusterAddress;

const start = async (name: string, entrypoint: string, options: object = {}): Promise<void> => {
  const job = await prepareJob({
    name,
    entrypoint: [entrypoint],
    cluster: CLUSTER,
    workingDir,
    ...options,
  });
  await startJob(harness.client, job);
};
const resultOf = async (name: string) => jobResult(harness.client, name);
const place = (jobId: string) => ({ jobId, store: paths.store });
const logOf = async (name: string, attempt = 1): Promise<string> => {
  const parts: Buffer[] = [];
  await readAttemptLog(place(name), attempt, 0, (data) => parts.push(data));
  return Buffer.concat(parts).toString('utf8');
};
const checkpointOf = (name: string, file: string): string => {
  const found = path.join(checkpointFolder(place(name)), file);
  return existsSync(found) ? readFileSync(found, 'utf8') : '';
};
/** Waits until the script has counted so far. */
const counted = async (name: string, step: number): Promise<true> =>
  eventually(() => Number(checkpointOf(name, 'step')) >= step, 60);
const kill = (node: string): void => {
  process.kill(-(readNode(CLUSTER.name, node)?.process.pid ?? 0), 'SIGKILL');
};

/** Real raylets and Ray's real job API; the scripts are small, so that most of the time is Ray's. */
describe('a job on a real cluster', { timeout: 240_000 }, () => {
  beforeAll(async () => {
    cpSync(path.join(paths.packageRoot, 'test/cluster/jobs'), workingDir, { recursive: true });
    writeFileSync(path.join(workingDir, '.gitignore'), 'ignored.txt\n');
    writeFileSync(path.join(workingDir, 'ignored.txt'), 'not to be sent');
    harness = await Harness.start('job-cluster');
    await harness.serve(CONTROL_QUEUE, activities);
    ({ address } = await ensureCluster(harness.client, CLUSTER));
  }, 300_000);
  afterAll(async () => {
    await harness.close();
    await removeLocalCluster({ name: CLUSTER.name });
    rmSync(home, { recursive: true, force: true });
  }, 60_000);

  it('succeeds with what its script reports, and its whole log', async () => {
    await start('good', 'python resume.py', { resources: { numCpus: 1 } });
    expect(await resultOf('good')).toEqual({
      jobId: 'good',
      state: 'succeeded',
      attempts: 1,
      metrics: { steps: 3, first: 0 },
      checkpoint: path.join(checkpointFolder(place('good')), 'step'),
      path: resultFile(place('good'), 1),
    });
    expect(await logOf('good')).toMatch(/from step 0\n[^]*é{10}\n$/u);
    expect(await afterLog(place('good'), 1, 1)).toBeUndefined();
    // The same job again is the one that has succeeded.
    const again = await prepareJob({
      name: 'good',
      entrypoint: ['python resume.py'],
      cluster: CLUSTER,
      workingDir,
      resources: { numCpus: 1 },
    });
    expect(await startJob(harness.client, again)).toMatchObject({ outcome: 'finished' });
  });

  it('has its working directory without what is ignored, and its variables', async () => {
    const options = { env: { GREETING: 'hello' }, excludes: ['resume.*'] };
    await start('package', 'python package.py', options);
    await resultOf('package');
    expect(await logOf('package')).toContain("['.gitignore', 'package.py']\nhello\n");
  });

  it('is not run again when its script fails, and says why in its log', async () => {
    await start('bad', 'python -c "def"');
    await expect(resultOf('bad')).rejects.toMatchObject({ cause: { type: 'JobFailed' } });
    expect(await jobView(harness.client, 'bad')).toMatchObject({
      state: 'failed',
      failure: { message: expect.stringContaining('exit code 1') },
      logEnd: expect.stringMatching(/^SyntaxError/u),
      attempts: [{ attempt: 1, state: 'failed' }],
    });
    expect(await logOf('bad')).toContain('SyntaxError');
    expect(await jobInfo(address, 'bad-a2')).toBeUndefined();
  });

  it('starts on no cordoned node, and not at all where all are', async () => {
    const cordon = async (unschedulable: boolean, ...nodes: readonly string[]) =>
      cordonNodes(harness.client, CLUSTER.name, { nodes, unschedulable });
    // Without resources it would run on the head.
    await cordon(true, 'head', 'worker-1');
    await start('kept-off', 'sleep 5');
    expect(await resultOf('kept-off')).toMatchObject({ state: 'succeeded' });
    expect((await jobView(harness.client, 'kept-off')).attempts[0]?.node).toBe('worker-2');
    await cordon(true, 'worker-2');
    await start('nowhere', 'true');
    await expect(resultOf('nowhere')).rejects.toMatchObject({
      cause: {
        type: 'JobRefused',
        message: expect.stringContaining('all nodes of cluster jobs are cordoned'),
      },
    });
    expect(await jobInfo(address, 'nowhere-a1')).toBeUndefined();
    await cordon(false, 'head', 'worker-1', 'worker-2');
  });

  it('runs once when the answer to its submission is lost', async () => {
    loseAnswers = 1;
    await start('adopted', 'python resume.py');
    expect(await resultOf('adopted')).toMatchObject({ state: 'succeeded', attempts: 1 });
    expect(loseAnswers).toBe(0);
    expect(checkpointOf('adopted', 'starts')).toBe('1\n');
  });

  it('is told to end when it is stopped, and killed when it does not', async () => {
    const env = { STEPS: '1000' };
    await start('polite', 'python resume.py', { env });
    await start('stubborn', 'python resume.py', {
      env: { ...env, STUBBORN: '1' },
      stopGraceSeconds: 2,
    });
    await Promise.all([counted('polite', 1), counted('stubborn', 1)]);
    await Promise.all([stopJob(harness.client, 'polite'), stopJob(harness.client, 'stubborn')]);
    expect(await resultOf('polite')).toMatchObject({ state: 'stopped' });
    expect(await resultOf('stubborn')).toMatchObject({ state: 'stopped' });
    expect(await logOf('polite')).toContain('told to end');
    expect(await logOf('stubborn')).toContain('told to end');
    const steps = checkpointOf('stubborn', 'step');
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(checkpointOf('stubborn', 'step')).toBe(steps);
  });

  it('is ended when its time is over', async () => {
    await start('slow', 'python resume.py', { env: { STEPS: '1000' }, timeoutSeconds: 8 });
    await expect(resultOf('slow')).rejects.toMatchObject({ cause: { type: 'JobTimedOut' } });
    expect(await logOf('slow')).toContain('told to end');
  });

  it('never starts when it was stopped while it waited for resources', async () => {
    await start('waiting', 'python resume.py', { resources: { numCpus: 64 } });
    await eventually(async () => (await jobInfo(address, 'waiting-a1'))?.status === 'PENDING', 30);
    await stopJob(harness.client, 'waiting');
    expect(await resultOf('waiting')).toMatchObject({ state: 'stopped' });
    expect(checkpointOf('waiting', 'starts')).toBe('');
  });

  it('tells a server that is away from a script that fails', async () => {
    const file = path.join(home, 'runtime-env.json');
    writeFileSync(file, JSON.stringify({ working_dir: 'https://127.0.0.1:9/code.zip' }));
    await start('network', 'true', { runtimeEnv: file, workingDir: undefined, restarts: 0 });
    await expect(resultOf('network')).rejects.toMatchObject({ cause: { type: 'JobLost' } });
    expect(await rayMessage(place('network'), 1)).toContain('127.0.0.1');
  });

  it('goes on from its checkpoint on another node when its node is killed', async () => {
    await start('moved', 'python resume.py', {
      resources: { numCpus: 1 },
      env: { STEPS: '40' },
    });
    await counted('moved', 8);
    const [attempt] = (await jobView(harness.client, 'moved')).attempts;
    expect(attempt?.node).toMatch(/^worker-[12]$/u);
    kill(attempt?.node ?? '');
    const result = await resultOf('moved');
    expect(result).toMatchObject({ state: 'succeeded', attempts: 2, metrics: { steps: 40 } });
    const first = Number(result.metrics?.['first']);
    expect(first).toBeGreaterThanOrEqual(8);
    expect(await logOf('moved', 1)).toContain('from step 0');
    expect(await afterLog(place('moved'), 1, 1)).toMatch(/lines may be missing from here on: /u);
    expect(await logOf('moved', 2)).toContain(`from step ${first}`);
    const { attempts } = await jobView(harness.client, 'moved');
    expect(attempts.map(({ state }) => state)).toEqual(['lost', 'succeeded']);
  });

  it('goes on when the head is lost, and keeps its logs when the cluster is gone', async () => {
    await start('rebuilt', 'python resume.py', { env: { STEPS: '40' } });
    await counted('rebuilt', 4);
    kill('head');
    expect(await resultOf('rebuilt')).toMatchObject({ state: 'succeeded', attempts: 2 });
    expect(await stopCluster(harness.client, CLUSTER.name)).toBe(true);
    expect(await logOf('rebuilt', 1)).toContain('from step 0');
    expect(await logOf('rebuilt', 2)).toMatch(/from step [1-9]/u);
  });
});
