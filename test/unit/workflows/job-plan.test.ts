import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { describe, expect, it, onTestFinished } from 'vitest';

import { JobSpec, type AttemptOutcome } from '../../../src/contracts/job.js';
import {
  backoffSeconds,
  count,
  fenceFile,
  isNetworkTrouble,
  judge,
  MOST_SILENCES,
  packageName,
  planNext,
  nodesToAvoid,
  submissionOf,
  type JobCounts,
} from '../../../src/workflows/job-plan.js';
import { rayNode } from '../../support/fake-cluster.js';

const spec = (change: object = {}): JobSpec =>
  JobSpec.parse({
    jobId: 'train',
    entrypoint: 'python train.py',
    store: '/store',
    cluster: { name: 'local', nodes: { provider: 'local' } },
    ...change,
  });
const judged = (outcome: AttemptOutcome) => judge(spec(), 1, outcome);
const NONE: JobCounts = { failures: 0, losses: 0, silences: 0 };

describe('who is to blame for an attempt that failed', () => {
  it.each([
    ['an exit code', { errorType: 'JOB_ENTRYPOINT_COMMAND_ERROR', exitCode: 1 }],
    [
      'a requirement that does not exist',
      { errorType: 'RUNTIME_ENV_SETUP_FAILURE', reason: 'No matching distribution found' },
    ],
  ])('the script: %s', (_, failure) => {
    const verdict = judged({ status: 'failed', ...failure });
    expect(verdict).toMatchObject({ kind: 'user', problem: { type: 'JobFailed' } });
  });

  it.each<[string, AttemptOutcome]>([
    ['its node died', { status: 'failed', errorType: 'JOB_SUPERVISOR_ACTOR_DIED' }],
    [
      'its supervisor never came up',
      { status: 'failed', errorType: 'JOB_SUPERVISOR_ACTOR_START_TIMEOUT' },
    ],
    [
      'pip could not reach its index',
      { status: 'failed', errorType: 'RUNTIME_ENV_SETUP_FAILURE', networkTrouble: true },
    ],
    ['SIGKILL, as Python says it', { status: 'failed', exitCode: -9 }],
    ['SIGKILL, as a shell says it', { status: 'failed', exitCode: 137 }],
    [
      'nodes with its workers were lost',
      { status: 'failed', exitCode: 1, lostNodes: ['worker-2'] },
    ],
    ['the head forgot it', { status: 'unknown' }],
  ])('the infrastructure: %s', (_, outcome) => {
    expect(judged(outcome)).toMatchObject({ kind: 'infrastructure', problem: { type: 'JobLost' } });
  });

  it('nobody for one that succeeded: its result is known with its file', () => {
    const result = { metrics: { loss: 0.1 } };
    expect(judged({ status: 'succeeded', result })).toEqual({
      kind: 'succeeded',
      result: { ...result, path: '/store/jobs/train/results/train-a1.json' },
    });
    expect(judged({ status: 'succeeded' })).toEqual({ kind: 'succeeded' });
  });

  it('nobody, while the cluster cannot be asked', () => {
    expect(judged({ status: 'unreachable', reason: 'fetch failed' })).toMatchObject({
      kind: 'unreachable',
      problem: { type: 'ClusterUnavailable', message: expect.stringContaining('fetch failed') },
    });
  });

  it.each([
    ['HTTPSConnectionPool: Max retries exceeded with url', true],
    ['Failed to establish a new connection: [Errno 111] Connection refused', true],
    ['Temporary failure in name resolution', true],
    ['error: Request failed: HTTP status 503', true],
    ['Could not find a version that satisfies the requirement nope', false],
    ['invalid requirement: ==', false],
  ])('%s is the network: %s', (reason, network) => {
    expect(isNetworkTrouble(reason)).toBe(network);
  });
});

describe('what comes after an attempt', () => {
  const after = (outcome: AttemptOutcome, counts = NONE, change: object = {}) => {
    const verdict = judged(outcome);
    return planNext(spec(change), verdict, count(counts, verdict, outcome.answered ?? false));
  };
  const failed: AttemptOutcome = { status: 'failed', exitCode: 1 };
  const lost: AttemptOutcome = { status: 'unknown' };

  it('nothing, when it succeeded or was stopped', () => {
    expect(after({ status: 'succeeded' })).toEqual({ next: 'end' });
    expect(after({ status: 'stopped' })).toEqual({ next: 'end' });
  });

  it('the end, when the script failed and no retries are asked for', () => {
    expect(after(failed)).toMatchObject({ next: 'end', problem: { type: 'JobFailed' } });
  });

  it('another attempt for each retry, whatever was lost meanwhile', () => {
    expect(after(failed, NONE, { retries: 1 })).toMatchObject({ next: 'submit' });
    expect(after(failed, { ...NONE, losses: 5 }, { retries: 1 })).toMatchObject({ next: 'submit' });
    expect(after(failed, { ...NONE, failures: 1 }, { retries: 1 })).toMatchObject({ next: 'end' });
  });

  it('another attempt after a loss, with longer and longer waits, and an end of it', () => {
    expect(after(lost)).toEqual({ next: 'submit', delaySeconds: 2 });
    expect(after(lost, { ...NONE, losses: 3 })).toEqual({ next: 'submit', delaySeconds: 16 });
    expect(after(lost, { ...NONE, losses: 20 })).toMatchObject({
      next: 'end',
      problem: { type: 'JobLost' },
    });
    expect(backoffSeconds(50)).toBe(300);
  });

  it('the same attempt again, when nobody knows how it is', () => {
    expect(after({ status: 'unreachable' })).toEqual({ next: 'follow' });
    const silent = { ...NONE, silences: MOST_SILENCES };
    expect(after({ status: 'unreachable' }, silent)).toMatchObject({ next: 'end' });
    expect(after({ status: 'unreachable', answered: true }, silent)).toEqual({ next: 'follow' });
  });
});

describe('what Ray is told', () => {
  it('is the same each time for an attempt, and says where to go on from', () => {
    const told = submissionOf(spec({ env: { LR: '0.1' } }), 2);
    expect(submissionOf(spec({ env: { LR: '0.1' } }), 2)).toEqual(told);
    expect(told.submission_id).toBe('train-a2');
    expect(told.runtime_env['env_vars']).toEqual({
      LR: '0.1',
      RANKFLOW_JOB_ID: 'train',
      RANKFLOW_ATTEMPT: '2',
      RANKFLOW_CHECKPOINT_DIR: '/store/jobs/train/checkpoints',
      RANKFLOW_RESULT_FILE: '/store/jobs/train/results/train-a2.json',
      RAY_JOB_STOP_WAIT_TIME_S: '10',
    });
  });

  it('keeps the entrypoint from cordoned nodes: one that asks for nothing stays on the head while it may', () => {
    const node = (nodeId: string) => rayNode({ nodeId, head: nodeId === 'h' });
    const nodes = [node('h'), node('a'), rayNode({ nodeId: 'gone', alive: false })];
    const asks = [{ numCpus: 1 }, { numGpus: 0.5 }, { memoryBytes: 1 }, { custom: { disk: 1 } }];
    for (const resources of asks) {
      expect(nodesToAvoid(resources, nodes, [])).toEqual([]);
      expect(nodesToAvoid(resources, nodes, ['a'])).toEqual(['a']);
      expect(nodesToAvoid(resources, nodes, ['h', 'a'])).toBeUndefined();
    }
    expect(nodesToAvoid({}, nodes, ['a'])).toEqual([]);
    expect(nodesToAvoid({}, nodes, ['h'])).toEqual(['h']);
    expect(nodesToAvoid({ numCpus: 0 }, nodes, ['a'])).toEqual([]);
    expect(submissionOf(spec(), 1, ['h', 'a']).entrypoint_label_selector).toEqual({
      'ray.io/node-id': '!in(h,a)',
    });
    expect(submissionOf(spec(), 1)).not.toHaveProperty('entrypoint_label_selector');
  });

  it('has the working directory by the hash of its content', () => {
    const sha256 = 'ab'.repeat(32);
    const told = submissionOf(spec({ package: { sha256, files: 1, bytes: 1 } }), 1);
    expect(told.runtime_env['working_dir']).toBe(`gcs://${packageName(sha256)}`);
  });

  /** Runs an entrypoint as Ray's supervisor does. */
  const run = (job: JobSpec, env: Record<string, string> = {}): string =>
    execFileSync('sh', ['-c', submissionOf(job, 1).entrypoint], {
      env: { PATH: process.env['PATH'] ?? '', ...env },
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  const place = (): string => {
    const folder = mkdtempSync(path.join(tmpdir(), "rankflow job's-"));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    return folder;
  };

  it('does nothing when the attempt was given up before it started', () => {
    const job = spec({ store: place(), entrypoint: 'echo one; echo two' });
    expect(run(job)).toBe('one\ntwo\n');
    mkdirSync(path.dirname(fenceFile(job, 1)), { recursive: true });
    writeFileSync(fenceFile(job, 1), '');
    expect(run(job)).toBe('');
  });

  it('names secrets and does not hold them', () => {
    const folder = place();
    const file = path.join(folder, 'key');
    writeFileSync(file, 'hidden\n');
    const secrets = [{ name: 'FROM_FILE', file }, { name: 'FROM_NODE' }];
    const job = spec({
      store: folder,
      secrets,
      entrypoint: 'echo $FROM_FILE $FROM_NODE && echo $0',
    });
    expect(JSON.stringify(submissionOf(job, 1))).not.toContain('hidden');
    expect(run(job, { FROM_NODE: 'there' })).toBe('hidden there\nsh\n');
    expect(() => run(job)).toThrow(/FROM_NODE.*is not set on this node/u);
  });
});
