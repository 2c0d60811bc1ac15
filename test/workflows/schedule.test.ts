import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import { existsSync, readFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

import proto from '@temporalio/proto';
import getPort from 'get-port';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';

import { runNotifyCommand, sendWebhook, signatureOf } from '../../src/activities/notify.js';
import {
  awaitRun,
  findInput,
  planOccurrence,
  prepareScheduledRun,
} from '../../src/activities/scheduled.js';
import { ensureCluster, stopCluster } from '../../src/client/clusters.js';
import {
  backfillSchedule,
  checkSchedule,
  createSchedule,
  deleteSchedule,
  describeSchedule,
  listSchedules,
  pauseSchedule,
  resumeSchedule,
  triggerSchedule,
  type ScheduleDefinition,
  type ScheduleView,
  type StartedOccurrence,
  updateSchedule,
} from '../../src/client/schedules.js';
import type { PruneInput, PublishInput } from '../../src/contracts/activities.js';
import {
  clusterWorkflowId,
  inferenceWorkflowId,
  notifyWorkflowId,
} from '../../src/contracts/names.js';
import type { SchedulePolicies, ScheduledRun } from '../../src/contracts/schedule.js';
import type { ScheduledResult } from '../../src/contracts/workflows.js';
import { findTemporal } from '../../src/setup/temporal.js';
import { startBucketServer } from '../support/bucket-server.js';
import { FakeRun, fakeTemplate } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';
import { labelsOf, unlabelled } from '../support/labels.js';
import { World } from '../support/world.js';

let harness: Harness;
let world: World;
let folder: string;
const published: string[] = [];
const pruned: PruneInput[] = [];
const schedules = new Set<string>();

/** Everything as it is, but for the copies of results, which need real ones. */
const activities = {
  planOccurrence,
  findInput,
  prepareScheduledRun,
  awaitRun,
  sendWebhook,
  runNotifyCommand,
  publishResults: async ({ occurrence }: PublishInput) => {
    published.push(occurrence.runId);
    return occurrence.output === undefined ? {} : { publishedUri: occurrence.output };
  },
  pruneScheduled: async (input: PruneInput) => {
    pruned.push(input);
    return { removed: [] };
  },
};

beforeAll(async () => {
  harness = await Harness.start('schedule');
  world = await World.start(harness, activities);
});
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'rankflow-schedule-'));
  newRun();
});
afterEach(async () => {
  for (const name of schedules) await deleteSchedule(harness.client, name).catch(() => undefined);
  schedules.clear();
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});
afterAll(async () => {
  await world.reset();
  await harness.close();
});

/** A run of one batch that leaves a manifest, as a real one does. */
function newRun(): void {
  world.run = new FakeRun([1]);
  world.run.onFinalized = ({ runId, store }, result) => {
    const run = path.join(store, 'runs', runId);
    mkdirSync(run, { recursive: true });
    writeFileSync(
      path.join(run, 'manifest.json'),
      JSON.stringify({ state: 'completed', ...result }),
    );
    // The next run of the test begins from nothing.
    world.run.committed.clear();
    world.run.finalized.length = 0;
  };
}

type Change = Partial<ScheduledRun>;

const definition = (
  name: string,
  change: Change = {},
  policies: Partial<SchedulePolicies> = {},
): ScheduleDefinition => {
  schedules.add(name);
  return checkSchedule({
    run: {
      schedule: name,
      timing: { cron: ['0 2 * * *'], timeZone: 'UTC' },
      input: `${folder}/{date}/requests.jsonl`,
      inference: fakeTemplate(folder),
      ...change,
    },
    policies,
  });
};

const today = (): string => new Date().toISOString().slice(0, 10);
function putInput(date: string): void {
  mkdirSync(path.join(folder, date), { recursive: true });
  writeFileSync(path.join(folder, date, 'requests.jsonl'), '{}\n');
}

/** Waits for the newest start of a schedule to end. */
async function lastResult(view: ScheduleView): Promise<ScheduledResult> {
  const workflowId = view.recent.at(-1)?.workflowId ?? '';
  return (await harness.client.workflow.getHandle(workflowId).result()) as ScheduledResult;
}
const seen = async (name: string, is: (view: ScheduleView) => boolean, seconds = 60) =>
  eventually(async () => {
    const view = await describeSchedule(harness.client, name);
    return is(view) && view;
  }, seconds);
const triggered = async (name: string, starts = 1): Promise<ScheduledResult> => {
  await triggerSchedule(harness.client, name);
  return lastResult(await seen(name, ({ recent }) => recent.length === starts));
};

describe('a schedule', { timeout: 120_000 }, () => {
  it('runs the input of its date when it is triggered; twice is one run', async () => {
    putInput(today());
    const output = `${folder}/{date}.jsonl`;
    await createSchedule(harness.client, definition('nightly', { output }), { paused: true });
    expect(await triggered('nightly')).toMatchObject({
      runId: `nightly-${today()}`,
      date: today(),
      state: 'completed',
      publishedUri: `${folder}/${today()}.jsonl`,
    });
    const handle = harness.client.workflow.getHandle(inferenceWorkflowId(`nightly-${today()}`));
    expect((await handle.describe()).memo).toMatchObject({ run: { store: folder } });
    expect(await triggered('nightly', 2)).toMatchObject({ state: 'completed' });
    expect(world.run.attempts).toHaveLength(1);
  });

  it('says so when a run is due while the last one goes on, and a start for the same date joins it', async () => {
    putInput(today());
    let finish: () => void = () => {};
    world.run.onBatch = async () => new Promise((resolve) => (finish = resolve));
    await createSchedule(harness.client, definition('busy', {}, { overlap: 'skip' }), {
      paused: true,
    });
    await triggerSchedule(harness.client, 'busy');
    await eventually(() => world.run.inFlight === 1, 60);
    expect(await triggerSchedule(harness.client, 'busy')).toEqual({ state: 'skipped' });
    await seen('busy', ({ skipped }) => skipped === 1);
    await triggerSchedule(harness.client, 'busy', 'allow-all');
    const { recent } = await seen('busy', (view) => view.recent.length === 2);
    finish();
    for (const { workflowId } of recent) {
      const result = await harness.client.workflow.getHandle(workflowId).result();
      expect(result).toMatchObject({ state: 'completed', runId: `busy-${today()}` });
    }
    expect(world.run.attempts).toHaveLength(1);
  });

  it('waits for a cluster that it is to find up, and starts none in its place', async () => {
    putInput(today());
    const inference = { ...fakeTemplate(folder), cluster: { ...fakeTemplate(folder).cluster } };
    inference.cluster.name = 'lab';
    const one = { inference, onRunningCluster: true, needsCluster: true };
    await createSchedule(harness.client, definition('on-lab', one), { paused: true });
    await triggerSchedule(harness.client, 'on-lab');
    const view = await seen('on-lab', ({ recent }) => recent.length === 1);
    const handle = harness.client.workflow.getHandle(view.recent[0]?.workflowId ?? '');
    const failure = await eventually(async () => {
      const { pendingActivities } = (await handle.describe()).raw;
      return pendingActivities?.[0]?.lastFailure?.message ?? undefined;
    }, 60);
    expect(failure).toBe('there is no cluster lab up');
    expect(await world.isUp(clusterWorkflowId('lab')).catch(() => false)).toBe(false);
    // It is used as it is, whatever the schedule says.
    const nodes = { provider: 'local' as const, workers: 0, cpusPerNode: 3 };
    await ensureCluster(harness.client, { name: 'lab', nodes });
    expect(await lastResult(view)).toMatchObject({ state: 'completed' });
    expect(await stopCluster(harness.client, 'lab')).toBe(true);
  });

  /** Starts a run whose batch ends only when the run is cancelled, and with the policy `overlap` the next one. */
  const twoOf = async (name: string, overlap: SchedulePolicies['overlap']) => {
    putInput(today());
    const runId = '{schedule}-{date}-{hour}{minute}{second}';
    const output = `${folder}/{runId}.jsonl`;
    const one = definition(name, { runId, output }, { overlap });
    await createSchedule(harness.client, one, { paused: true });
    world.run.onBatch = async () => new Promise(() => {});
    await triggerSchedule(harness.client, name);
    await eventually(() => world.run.inFlight === 1, 60);
    world.run.onBatch = async () => {};
    await triggerSchedule(harness.client, name);
    const { recent } = await seen(name, (view) => view.recent.length === 2);
    const startOf = (start: StartedOccurrence | undefined) => ({
      runId: start?.runId ?? '',
      result: async () => harness.client.workflow.getHandle(start?.workflowId ?? '').result(),
    });
    return [startOf(recent[0]), startOf(recent[1])] as const;
  };

  it('cancels the run before with cancel-other, and publishes what it has', async () => {
    const [before, next] = await twoOf('cancelling', 'cancel-other');
    expect(await before.result()).toMatchObject({
      ...{ runId: before.runId, state: 'cancelled' },
      output: { succeeded: 0, failed: 10 },
      publishedUri: `${folder}/${before.runId}.jsonl`,
    });
    expect(await next.result()).toMatchObject({ runId: next.runId, state: 'completed' });
    expect(published.slice(-2)).toEqual([before.runId, next.runId]);
  });

  it('publishes nothing of the run before with terminate-other, which still assembles what it has', async () => {
    const [before, next] = await twoOf('ending', 'terminate-other');
    await expect(before.result()).rejects.toMatchObject({ cause: { name: 'TerminatedFailure' } });
    const inference = harness.client.workflow.getHandle(inferenceWorkflowId(before.runId));
    expect(await inference.result()).toMatchObject({ state: 'cancelled', output: { failed: 10 } });
    expect(await next.result()).toMatchObject({ runId: next.runId, state: 'completed' });
    expect(published).not.toContain(before.runId);
  });

  it('lets one start wait with buffer-one, and no other', async () => {
    putInput(today());
    let finish: () => void = () => {};
    world.run.onBatch = async () => new Promise((resolve) => (finish = resolve));
    await createSchedule(harness.client, definition('one-waits', {}, { overlap: 'buffer-one' }), {
      paused: true,
    });
    await triggerSchedule(harness.client, 'one-waits');
    await eventually(() => world.run.inFlight === 1, 60);
    expect(await triggerSchedule(harness.client, 'one-waits')).toEqual({ state: 'waiting' });
    expect(await triggerSchedule(harness.client, 'one-waits')).toEqual({ state: 'skipped' });
    finish();
    const { recent } = await seen('one-waits', (view) => view.recent.length === 2);
    for (const { workflowId } of recent) {
      const result = await harness.client.workflow.getHandle(workflowId).result();
      expect(result).toMatchObject({ state: 'completed', runId: `one-waits-${today()}` });
    }
  });

  it('is triggered for the time of the server, to the second', async () => {
    const runId = '{schedule}-{date}-{hour}{minute}{second}';
    await createSchedule(harness.client, definition('exact', { runId, noInput: 'skip' }), {
      paused: true,
    });
    const outcome = await triggerSchedule(harness.client, 'exact');
    if (outcome.state !== 'started') throw new Error(outcome.state);
    const { workflowId, runId: told, nominal } = outcome.started;
    const result = (await harness.client.workflow
      .getHandle(workflowId)
      .result()) as ScheduledResult;
    expect(result).toMatchObject({ runId: told, nominal, state: 'skipped' });
  });

  it('is filled in for three days, each with its own input, one after the other', async () => {
    const dates = ['2026-01-05', '2026-01-06', '2026-01-07'];
    for (const date of dates) putInput(date);
    const inputs: string[] = [];
    world.run.onPlan = () => undefined;
    const retention = { keepLast: 2 };
    await createSchedule(harness.client, definition('filled', { retention }), { paused: true });
    await backfillSchedule(harness.client, 'filled', {
      from: new Date('2026-01-05T00:00:00Z'),
      to: new Date('2026-01-07T23:59:59Z'),
    });
    const { recent } = await seen('filled', (view) => view.recent.length === 3, 90);
    const results: ScheduledResult[] = [];
    for (const { workflowId } of recent) {
      results.push(
        (await harness.client.workflow.getHandle(workflowId).result()) as ScheduledResult,
      );
      const { runId } = results.at(-1) as ScheduledResult;
      const inference = harness.client.workflow.getHandle(inferenceWorkflowId(runId));
      const history = await inference.fetchHistory();
      const payload = history.events?.[0]?.workflowExecutionStartedEventAttributes?.input;
      inputs.push(Buffer.from(payload?.payloads?.[0]?.data ?? []).toString());
    }
    expect(results.map(({ runId }) => runId)).toEqual(dates.map((date) => `filled-${date}`));
    for (const [day, date] of dates.entries()) {
      expect(inputs[day]).toContain(`${folder}/${date}/requests.jsonl`);
    }
    expect(pruned.at(-1)).toMatchObject({ occurrence: { date: '2026-01-07' }, retention });
    expect(world.run.mostInFlight).toBe(1);
  });

  it.each([
    ['2026-01-07T00:00:00Z', '2026-01-05T00:00:00Z', 'the end is before its beginning'],
    ['2026-01-07T00:00:00Z', '9999-01-01T00:00:00Z', 'has yet to come'],
  ])('is not filled in from %s to %s', async (from, to, message) => {
    const range = { from: new Date(from), to: new Date(to) };
    await expect(backfillSchedule(harness.client, 'nobody', range)).rejects.toMatchObject({
      type: 'Usage',
      message: expect.stringContaining(message),
    });
  });

  it('skips a date without input when it is to, and tells so', async () => {
    const told = await receiver([200]);
    const notify = [{ kind: 'webhook' as const, url: told.url }];
    await createSchedule(harness.client, definition('skipping', { noInput: 'skip', notify }), {
      paused: true,
    });
    expect(await triggered('skipping')).toMatchObject({ state: 'skipped', date: today() });
    await eventually(() => told.calls.length === 1);
    expect(JSON.parse(told.calls[0]?.body ?? '')).toMatchObject({ state: 'skipped' });
    expect(world.run.attempts).toEqual([]);
    told.server.close();
  });

  it('finds its input in a bucket, where an empty one is none', async () => {
    const bucket = await startBucketServer('inputs');
    for (const [name, value] of Object.entries(bucket.env)) vi.stubEnv(name, value);
    const change = { input: `${bucket.root}/{date}/requests.jsonl`, noInput: 'skip' as const };
    await createSchedule(harness.client, definition('remote', change), { paused: true });
    try {
      expect(await triggered('remote')).toMatchObject({ state: 'skipped' });
      await bucket.put(`${today()}/requests.jsonl`, '');
      expect(await triggered('remote', 2)).toMatchObject({ state: 'skipped' });
      await bucket.put(`${today()}/requests.jsonl`, '{}\n');
      expect(await triggered('remote', 3)).toMatchObject({ state: 'completed' });
    } finally {
      await bucket.close();
    }
    const handle = harness.client.workflow.getHandle(inferenceWorkflowId(`remote-${today()}`));
    const { run } = (await handle.describe()).memo as { run: { parameters: object } };
    const sha256 = createHash('sha256').update('{}\n').digest('hex');
    expect(JSON.stringify(run.parameters)).toContain(sha256);
  });

  it('waits for an input that comes late', async () => {
    await createSchedule(harness.client, definition('late', { waitForInputSeconds: 90 }), {
      paused: true,
    });
    await triggerSchedule(harness.client, 'late');
    const view = await seen('late', ({ recent }) => recent.length === 1);
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    putInput(today());
    expect(await lastResult(view)).toMatchObject({ state: 'completed' });
  });

  it.each([
    ['fail', 'fails'],
    ['skip', 'skips'],
  ] as const)('whose input does not come in time %ss', async (noInput, name) => {
    const change = { waitForInputSeconds: 3, noInput };
    await createSchedule(harness.client, definition(name, change), { paused: true });
    const ended = await triggered(name).catch((error: Error) => error.cause);
    const missing = `there is no input at ${folder}/${today()}/requests.jsonl`;
    if (noInput === 'skip') expect(ended).toMatchObject({ state: 'skipped' });
    else expect(ended).toMatchObject({ type: 'InputMissing', message: missing });
    expect(world.run.attempts).toEqual([]);
  });

  it('pauses when a run fails, and the failure says why', async () => {
    await createSchedule(harness.client, definition('failing', {}, { pauseOnFailure: true }));
    const failure = await triggered('failing').catch((error: Error) => error.cause);
    expect(failure).toMatchObject({
      type: 'InputMissing',
      message: `there is no input at ${folder}/${today()}/requests.jsonl`,
    });
    const { note } = await seen('failing', ({ paused }) => paused, 40);
    expect(note).toContain('there is no input');
  });

  it('is refused when two of its own runs would be one', async () => {
    const timing = { ...definition('hourly').run.timing, cron: ['0 * * * *'] };
    const hourly = definition('hourly', { timing });
    await expect(createSchedule(harness.client, hourly)).rejects.toMatchObject({ type: 'Usage' });
    await expect(describeSchedule(harness.client, 'hourly')).rejects.toMatchObject({
      type: 'NotFound',
    });
    const runId = '{schedule}-{date}-{hour}';
    expect(
      (await createSchedule(harness.client, definition('hourly', { timing, runId }))).name,
    ).toBe('hourly');
  });

  it('is changed as a whole or not at all', async () => {
    const { client } = harness;
    await createSchedule(client, definition('changing'), { paused: true, note: 'not yet' });
    const change = { ...definition('changing').run.timing, cron: ['30 3 * * *'] };
    const view = await updateSchedule(client, 'changing', ({ run, policies }) => ({
      run: { ...run, timing: change, retention: { keepLast: 3 } },
      policies: { ...policies, overlap: 'skip', pauseOnFailure: true },
    }));
    // Nothing else is changed: it is still paused, with its note.
    expect(view).toMatchObject({
      ...{ paused: true, note: 'not yet', policies: { overlap: 'skip', pauseOnFailure: true } },
      run: { timing: change, retention: { keepLast: 3 } },
    });
    expect(view.next[0]).toMatch(/T03:30:00/u);
    const every = { ...change, cron: ['0 * * * *'] };
    const clash = updateSchedule(client, 'changing', ({ run, policies }) => ({
      run: { ...run, timing: every },
      policies: { ...policies, overlap: 'buffer-all' },
    }));
    await expect(clash).rejects.toMatchObject({
      type: 'Usage',
      wayOut: expect.stringContaining('{hour}'),
    });
    const wrong = { ...change, cron: ['every night'] };
    await expect(
      updateSchedule(client, 'changing', ({ run, policies }) => ({
        run: { ...run, timing: wrong },
        policies,
      })),
    ).rejects.toMatchObject({ type: 'Usage' });
    expect(await describeSchedule(client, 'changing')).toEqual(view);
    await expect(updateSchedule(client, 'nobody', (before) => before)).rejects.toMatchObject({
      type: 'NotFound',
    });
  });

  it('is paused and resumed, each with a reason, and all are listed by name', async () => {
    const { client } = harness;
    for (const name of ['one', 'another']) await createSchedule(client, definition(name));
    await pauseSchedule(client, 'one', 'holidays');
    expect(await describeSchedule(client, 'one')).toMatchObject({ paused: true, note: 'holidays' });
    const views = await eventually(async () => {
      const all = await listSchedules(client);
      return all.length === 2 && all;
    }, 60);
    expect(views.map(({ name, paused }) => [name, paused])).toEqual([
      ['another', false],
      ['one', true],
    ]);
    await resumeSchedule(client, 'one', 'back again');
    expect(await describeSchedule(client, 'one')).toMatchObject({
      ...{ paused: false, note: 'back again' },
    });
    for (const change of [pauseSchedule, resumeSchedule]) {
      await expect(change(client, 'nobody')).rejects.toMatchObject({ type: 'NotFound' });
    }
  });

  it('is refused with a cron line that is none', async () => {
    const timing = { ...definition('wrong').run.timing, cron: ['every night'] };
    await expect(
      createSchedule(harness.client, definition('wrong', { timing })),
    ).rejects.toMatchObject({ type: 'Usage' });
  });
});

interface Call {
  readonly url: string | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** Answers with the given states, the last one again and again. */
async function receiver(
  answers: number[],
): Promise<{ server: Server; url: string; calls: Call[] }> {
  const calls: Call[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      response.statusCode = answers[Math.min(calls.length, answers.length - 1)] ?? 200;
      calls.push({ url: request.url, headers: request.headers, body });
      response.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return { server, url: `http://127.0.0.1:${port}/hook`, calls };
}

describe('who wants to know how a run ended', { timeout: 90_000 }, () => {
  it('gets a signed message, again after an error of the receiver, and a command is run', async () => {
    putInput(today());
    writeFileSync(path.join(folder, 'key'), 'a secret\n', { mode: 0o600 });
    const told = await receiver([500, 200]);
    const out = path.join(folder, 'told');
    const notify: ScheduledRun['notify'] = [
      { kind: 'webhook', url: told.url, secret: { file: path.join(folder, 'key') } },
      {
        kind: 'command',
        command: [
          'sh',
          '-c',
          'echo "$MARK $RANKFLOW_STATE $RANKFLOW_RUN_ID $1" > "$0"',
          out,
          '$HOME',
        ],
        env: { MARK: 'mine' },
      },
    ];
    await createSchedule(harness.client, definition('telling', { notify }), { paused: true });
    const { runId } = await triggered('telling');
    await eventually(() => told.calls.length === 2, 40);
    const [first, second] = told.calls as [Call, Call];
    for (const { headers, body } of told.calls) {
      const timestamp = String(headers['x-rankflow-timestamp']);
      expect(headers['x-rankflow-signature']).toBe(signatureOf('a secret', timestamp, body));
    }
    expect(first.headers['x-rankflow-delivery']).toBe(second.headers['x-rankflow-delivery']);
    expect(JSON.parse(second.body)).toMatchObject({
      schedule: 'telling',
      runId,
      state: 'completed',
      output: { rows: 10, failed: 0 },
    });
    await eventually(() => existsSync(out) && readFileSync(out, 'utf8') !== '');
    const [start] = (await describeSchedule(harness.client, 'telling')).recent;
    const handle = harness.client.workflow.getHandle(start?.workflowId ?? '');
    const notifying = notifyWorkflowId('telling', runId, (await handle.describe()).runId);
    for (const [workflowId, details] of [
      [start?.workflowId ?? '', `Input \`${folder}/{date}/requests.jsonl\``],
      [inferenceWorkflowId(runId), 'Fleet `models` on cluster `ray`'],
      [notifying, `Run \`${runId}\`; 2 receivers`],
    ] as const) {
      const labels = await labelsOf(harness.client.workflow.getHandle(workflowId));
      expect(labels.summary).toContain('telling');
      expect(labels.details).toContain(details);
      expect(unlabelled(labels)).toEqual([]);
    }
    // Arguments are arguments: no shell has seen them.
    expect(readFileSync(out, 'utf8')).toBe(`mine completed ${runId} $HOME\n`);
    told.server.close();
  });
});

describe('an address that is a secret', { timeout: 90_000 }, () => {
  it('is read where it is called, and stands in no history by reference', async () => {
    putInput(today());
    const told = await receiver([200]);
    const out = path.join(folder, 'told');
    vi.stubEnv('HOOK_URL', `${told.url}/canary-reference`);
    const notify: ScheduledRun['notify'] = [
      { kind: 'webhook', urlFrom: { env: 'HOOK_URL' } },
      { kind: 'webhook', url: `${told.url}/canary-literal` },
      // Commands have the environment of the worker.
      { kind: 'command', command: ['sh', '-c', 'echo "$HOOK_URL" > "$0"', out], env: {} },
    ];
    await createSchedule(harness.client, definition('secretive', { notify }), { paused: true });
    const { runId } = await triggered('secretive');
    const { recent } = await describeSchedule(harness.client, 'secretive');
    const scheduled = harness.client.workflow.getHandle(recent.at(-1)?.workflowId ?? '');
    const { runId: start } = await scheduled.describe();
    const id = notifyWorkflowId('secretive', runId, start);
    const handle = harness.client.workflow.getHandle(id);
    const { origin } = new URL(told.url);
    expect(await handle.result()).toEqual({
      outcomes: ['the URL in HOOK_URL', origin, 'sh'].map((where) => ({ where, delivered: true })),
    });
    expect(new Set(told.calls.map(({ url }) => url))).toEqual(
      new Set(['/hook/canary-reference', '/hook/canary-literal']),
    );
    expect(readFileSync(out, 'utf8')).toBe(`${told.url}/canary-reference\n`);
    const { events } = await handle.fetchHistory();
    const textOf = (data: Uint8Array | null | undefined): string =>
      Buffer.from(data ?? []).toString();
    const summaries = (events ?? []).flatMap(({ userMetadata }) =>
      userMetadata?.summary ? [textOf(userMetadata.summary.data)] : [],
    );
    expect(summaries).toContain(`"Call ${origin}"`);
    expect(summaries.join('')).not.toContain('canary');
    for (const one of [handle, scheduled]) {
      const whole = proto.temporal.api.history.v1.History.encode(await one.fetchHistory());
      expect(Buffer.from(whole.finish()).toString('latin1')).not.toContain('canary-reference');
    }
    told.server.close();
  });
});

describe('a night that was missed', { timeout: 180_000 }, () => {
  let server: ChildProcess | undefined;
  let own: Harness | undefined;
  afterEach(async () => {
    await own?.close();
    await end();
  });
  const end = async (): Promise<void> => {
    if (server === undefined) return;
    const ended = once(server, 'exit');
    if (server.kill('SIGTERM')) await ended;
    server = undefined;
  };

  it('is made up for when the server is back', async () => {
    const temporal = await findTemporal();
    const port = await getPort();
    const database = path.join(folder, 'temporal.db');
    const boot = async (): Promise<void> => {
      server = spawn(
        temporal?.command ?? '',
        [
          ...['server', 'start-dev', '--headless', '--ip', '127.0.0.1', '--port', String(port)],
          ...['--log-level', 'error', '--db-filename', database],
        ],
        { stdio: 'ignore' },
      );
    };
    await boot();
    own = await eventually(
      async () => Harness.on(`127.0.0.1:${port}`, 'default').catch(() => undefined),
      30,
    );
    const { client } = own;
    const there = await World.start(own, activities);
    there.run = world.run;
    // Every six seconds is a night here.
    for (const day of [-1, 0, 1])
      putInput(new Date(Date.now() + day * 86_400_000).toISOString().slice(0, 10));
    const timing = { ...definition('missed').run.timing, cron: ['*/6 * * * * * *'] };
    const runId = '{schedule}-{date}-{hour}{minute}{second}';
    await eventually(
      async () =>
        createSchedule(client, definition('missed', { timing, runId })).catch(() => undefined),
      30,
    );
    const started = await eventually(async () => {
      const { recent } = await describeSchedule(client, 'missed');
      return recent.length > 0 && recent;
    }, 60);
    await end();
    const down = Date.now();
    await new Promise((resolve) => setTimeout(resolve, 15_000));
    const back = Date.now();
    await boot();
    const view = await eventually(async () => {
      const now = await describeSchedule(client, 'missed').catch(() => undefined);
      const last = Date.parse(now?.recent.at(-1)?.nominal ?? '');
      return now !== undefined && last > back && now;
    }, 90);
    await deleteSchedule(client, 'missed');
    const missed = view.recent.filter(({ nominal }) => {
      const time = Date.parse(nominal);
      return time > down && time < back;
    });
    expect(started.length).toBeGreaterThan(0);
    expect(missed.length).toBeGreaterThanOrEqual(2);
    expect(view.missed).toBe(0);
    for (const { workflowId, runId: id } of missed) {
      const result = (await client.workflow.getHandle(workflowId).result()) as ScheduledResult;
      expect(result).toMatchObject({ runId: id, state: 'completed' });
    }
    await there.reset();
  });
});
