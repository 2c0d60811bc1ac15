import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { execa } from 'execa';
import getPort from 'get-port';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

import { observeCluster } from '../../src/activities/observe.js';
import { findInput, planOccurrence } from '../../src/activities/scheduled.js';
import { startRun } from '../../src/client/runs.js';
import { describeSchedule, type ScheduleView } from '../../src/client/schedules.js';
import type { ObserveClusterInput } from '../../src/contracts/activities.js';
import { InferenceInput } from '../../src/contracts/inference.js';
import { inferenceWorkflowId } from '../../src/contracts/names.js';
import { paths } from '../../src/setup/paths.js';
import { ADDRESS } from '../support/fake-cluster.js';
import { FakeRun, SPEC_HASH, fakeSpec } from '../support/fake-run.js';
import { Harness, eventually } from '../support/harness.js';
import { World } from '../support/world.js';

// The command as it is installed (`npm test` builds it), on a server of Temporal's and a data folder of its own.
const program = path.join(paths.packageRoot, 'dist/cli/main.js');
const home = mkdtempSync(path.join(tmpdir(), 'rankflow-cli-'));
let harness: Harness;
let world: World;

beforeAll(async () => {
  symlinkSync(paths.venv, path.join(home, 'venv'));
  harness = await Harness.start('cli');
  // Nobody listens there.
  const dashboardUrl = `http://127.0.0.1:${await getPort()}`;
  world = await World.start(harness, {
    planOccurrence,
    findInput,
    sendWebhook: async () => {},
    observeCluster: async (input: ObserveClusterInput) =>
      input.spec.nodes.provider === 'existing'
        ? observeCluster(input)
        : {
            ...world.observeCluster(),
            ...(world.headRuns && { address: { ...ADDRESS, dashboardUrl } }),
          },
  });
});
afterAll(async () => {
  await world.reset();
  await harness.close();
  rmSync(home, { recursive: true });
});

const rankflow = (...args: readonly string[]) =>
  execa(process.execPath, [program, ...args], {
    reject: false,
    env: {
      RANKFLOW_HOME: home,
      TEMPORAL_ADDRESS: inject('temporalAddress'),
      TEMPORAL_NAMESPACE: 'cli',
      TEMPORAL_CONFIG_FILE: path.join(home, 'none.toml'),
      // Where a CI job runs it, too, what goes into a pipe is plain.
      CI: 'true',
    },
  });
/** What a command prints, which has to work. */
const printed = async (...args: readonly string[]): Promise<string> => {
  const { exitCode, stdout, stderr } = await rankflow(...args);
  expect([args, exitCode, exitCode === 0 ? '' : stderr]).toEqual([args, 0, '']);
  return stdout;
};
const json = async <T>(...args: readonly string[]): Promise<T> =>
  JSON.parse(await printed(...args, '--json')) as T;

describe('the commands of a schedule', { timeout: 240_000 }, () => {
  const create = ['schedule', 'create', 'nightly', '--input', '/data/{date}.jsonl'];
  const model = ['--model', 'org/model', '--backend', 'simulated', '--engines', '2'];
  const when = ['--at', '02:00', '--on', 'mon-fri', '--time-zone', 'Europe/Berlin'];

  it('create, show, list and change it', async () => {
    const id = ['--run-id', '{schedule}-{date}-{second}', '--skip-if-no-input'];
    const first = await printed(...create, ...model, ...when, ...id, '--paused', '--note', 'soon');
    expect(first).toBe('nightly');
    const shown = await printed('schedule', 'show', 'nightly');
    for (const text of [
      'nightly: paused (soon)',
      'at 02:00 on mon,tue,wed,thu,fri (Europe/Berlin)',
      'buffer-all, catches up 3d',
      '/data/{date}.jsonl',
      'org/model',
    ]) {
      expect(shown).toContain(text);
    }
    const row = await eventually(async () => {
      const lines = (await printed('schedule', 'list')).split('\n');
      return lines.find((line) => line.startsWith('nightly '));
    }, 60);
    expect(row).toMatch(/^nightly +paused +at 02:00 .* none while paused/u);
    expect(await json<ScheduleView[]>('schedule', 'list')).toMatchObject([{ name: 'nightly' }]);

    const change = ['--at', '03:30', '--engines', '3', '--keep-last', '7'];
    const told = ['--notify-url', 'https://example.org/token', '--notify-url-env', 'HOOK_URL'];
    const changed = await json<ScheduleView>('schedule', 'update', 'nightly', ...change, ...told);
    expect(changed).toMatchObject({
      paused: true,
      run: {
        timing: { at: ['03:30'], on: [], timeZone: 'Europe/Berlin' },
        input: '/data/{date}.jsonl',
        retention: { keepLast: 7 },
        inference: { fleet: { engines: 3 } },
      },
    });
    const after = await printed('schedule', 'show', 'nightly');
    expect(after).toContain('keeps       the newest 7');
    expect(after).toMatch(/tells +https:\/\/example\.org\n +tells +the URL in HOOK_URL/u);
    const signed = ['schedule', 'update', 'nightly', '--notify-secret-env', 'HOOK_KEY'];
    await printed(...signed);
    const secret = { env: 'HOOK_KEY' };
    expect(await describeSchedule(harness.client, 'nightly')).toMatchObject({
      run: { notify: [{ secret }, { secret }], retention: { keepLast: 7 } },
    });
  });

  it('resume and pause it', async () => {
    const on = await rankflow('schedule', 'resume', 'nightly', '--note', 'from now on');
    expect(on).toMatchObject({
      exitCode: 0,
      stdout: 'nightly',
      stderr: expect.stringContaining('starts runs again'),
    });
    const view = await json<ScheduleView>('schedule', 'show', 'nightly');
    expect(view).toMatchObject({ paused: false, note: 'from now on' });
    expect(await json('schedule', 'pause', 'nightly')).toEqual({ name: 'nightly', paused: true });
    expect((await describeSchedule(harness.client, 'nightly')).paused).toBe(true);
  });

  it('start what was due, and a run now under the id that it really gets', async () => {
    const days = ['--from', '2026-01-05', '--to', '2026-01-06', '--overlap', 'allow-all'];
    const range = await json('schedule', 'backfill', 'nightly', ...days);
    // All of both days, in the time zone of the schedule.
    const [from, to] = ['2026-01-04T23:00:00.000Z', '2026-01-06T22:59:59.999Z'];
    expect(range).toEqual({ name: 'nightly', from, to });
    const filled = await eventually(async () => {
      const { recent } = await describeSchedule(harness.client, 'nightly');
      return recent.length === 2 && recent;
    }, 60);
    expect(filled.map(({ nominal }) => nominal)).toEqual([
      '2026-01-05T02:30:00.000Z',
      '2026-01-06T02:30:00.000Z',
    ]);
    const told = await json('schedule', 'trigger', 'nightly', '--overlap', 'allow-all');
    const { recent } = await describeSchedule(harness.client, 'nightly');
    const { workflowId = '', runId } = recent.at(-1) ?? {};
    expect(told).toEqual({ name: 'nightly', runId, state: 'started' });
    const handle = harness.client.workflow.getHandle(workflowId);
    expect(await handle.result()).toMatchObject({ runId, state: 'skipped' });
  });

  it('say how what was due is started, and of today start what was due so far', async () => {
    const fill = ['schedule', 'backfill', 'nightly', '--from'];
    // An hour in which nothing is due.
    const quiet = ['2026-01-04T10:00:00Z', '--to', '2026-01-04T11:00:00Z'];
    expect(await rankflow(...fill, ...quiet)).toMatchObject({
      exitCode: 0,
      stderr: expect.stringMatching(/T11:00:00.000Z will be run, one after the other\.$/u),
    });
    const today = new Date().toLocaleDateString('sv', { timeZone: 'Europe/Berlin' });
    const { to } = await json<{ to: string }>(...fill, today, '--to', today);
    expect(Math.abs(Date.parse(to) - Date.now())).toBeLessThan(60_000);
  });

  it.each([
    [['update', 'nightly', '--at', '25:00'], 2, '--at'],
    [['update', 'nightly', '--notify-env', 'A=b'], 2, '--notify-command'],
    [['backfill', 'nightly', '--from', 'yesterday', '--to', '2026-01-05'], 2, '--from: yesterday'],
    [
      ['backfill', 'nightly', '--from', '2026-02-31', '--to', '2026-03-05'],
      2,
      '--from: 2026-02-31 is neither a day',
    ],
    [['backfill', 'nightly', '--from', '2026-01-07', '--to', '2026-01-05'], 2, 'is no range'],
    [['backfill', 'nightly', '--from', '2026-01-07', '--to', '9999-01-05'], 2, 'has yet to come'],
    [['update', 'nightly', '--input', '/x/{date'], 2, '--input: a brace of /x/{date has no other'],
    [['trigger', 'nightly', '--overlap', 'wait'], 2, '--overlap: wait'],
    [['show', 'nobody'], 2, 'There is no schedule nobody'],
    [['pause', 'nobody'], 2, 'There is no schedule nobody'],
  ] as const)('say what is wrong with %j', async (args, code, message) => {
    const { exitCode, stdout, stderr } = await rankflow('schedule', ...args);
    expect([exitCode, stdout]).toEqual([code, '']);
    expect(stderr).toContain(message);
  });

  it('remove it', async () => {
    expect(await printed('schedule', 'delete', 'nightly')).toBe('nightly');
    expect((await rankflow('schedule', 'show', 'nightly')).exitCode).toBe(2);
  });
});

describe('logs of a run', { timeout: 240_000 }, () => {
  it('are those of the workers when Ray does not answer, and it says so', async () => {
    world.run = new FakeRun([1]);
    let finish: () => void = () => {};
    world.run.onBatch = async () => new Promise((resolve) => (finish = resolve));
    const inference = InferenceInput.parse({
      run: { ...fakeSpec('r1', 1), store: path.join(home, 'store') },
      specHash: SPEC_HASH,
      cluster: { name: 'ray', nodes: { provider: 'local', workers: 0 } },
      fleet: { name: 'models', engines: 1, maxConcurrentBatches: 2 },
    });
    await startRun(harness.client, { inference, named: true, inputSha256: 'a'.repeat(64) });
    await eventually(() => world.run.inFlight === 1, 60);
    mkdirSync(path.join(home, 'logs'));
    const line = { level: 30, time: 1_767_225_600_000, name: 'control-worker', run: 'r1' };
    const text = `${JSON.stringify({ ...line, msg: 'a rank waits' })}\n`;
    writeFileSync(path.join(home, 'logs/control-worker.log'), text);
    const { exitCode, stdout, stderr } = await rankflow('logs', 'r1');
    expect([exitCode, stdout]).toEqual([
      0,
      '2026-01-01T00:00:00.000Z INFO control-worker: a rank waits',
    ]);
    expect(stderr).toMatch(/^No logs of engines: .*ECONNREFUSED/u);
    // Of an engine there is nothing else.
    const engine = await rankflow('logs', 'models/0');
    expect([engine.exitCode === 0, engine.stdout]).toEqual([false, '']);
    // On a busy machine the batch may be tried again.
    world.run.onBatch = async () => {};
    finish();
    await harness.client.workflow.getHandle(inferenceWorkflowId('r1')).result();
  });
});

describe('a cluster of somebody else', { timeout: 240_000 }, () => {
  let dashboard: Server;
  let at: string[];
  const token = path.join(home, 'token');
  const input = path.join(home, 'requests.jsonl');
  beforeAll(async () => {
    const head = {
      ...{ node_id: 'h', node_ip: '10.0.0.1', node_name: 'h', is_head_node: true },
      ...{ state: 'ALIVE', resources_total: { CPU: 2 } },
    };
    dashboard = createServer((request, response) => {
      const known = request.headers.authorization === 'Bearer right';
      const result = request.url?.startsWith('/api/v0/nodes') ? [head] : [];
      response.writeHead(known ? 200 : 401, { 'content-type': 'application/json' });
      response.end(JSON.stringify(known ? { result: true, data: { result: { result } } } : {}));
    });
    await new Promise<void>((resolve) => dashboard.listen(0, '127.0.0.1', resolve));
    const { port } = dashboard.address() as AddressInfo;
    at = ['--address', '127.0.0.1:6379', '--dashboard-url', `http://127.0.0.1:${port}`];
    writeFileSync(input, `${JSON.stringify({ prompt: 'hello' })}\n`);
  });
  afterAll(() => dashboard.close());

  const up = async (...more: readonly string[]) =>
    rankflow('cluster', 'up', 'theirs', '--no-start', ...at, ...more);

  it('is refused at once with a wrong token, with none, and with a file that is not there', async () => {
    const since = Date.now();
    writeFileSync(token, 'wrong');
    const wrong = await up('--ray-token-file', token);
    expect(wrong.exitCode).toBe(3);
    expect(wrong.stderr).toMatch(/cluster theirs cannot be used: .* refuses the token in .*token/u);
    expect(wrong.stderr).toMatch(/way out: Check its address, .*--ray-token-file/u);
    expect((await up()).stderr).toMatch(/refuses no token/u);
    const absent = path.join(home, 'absent');
    expect((await up('--ray-token-file', absent)).stderr).toMatch(
      /the token file .*absent cannot be read: ENOENT/u,
    );

    world.run = new FakeRun([1]);
    const model = ['--model', 'org/model', '--backend', 'simulated', '--run-id', 'refused'];
    const run = await rankflow(
      ...['run', input, '--no-start', '--cluster', 'guarded', ...at, ...model],
      ...['--ray-token-file', token, '--store', path.join(home, 'store')],
    );
    expect([run.exitCode, run.stderr]).toEqual([
      3,
      expect.stringMatching(/cluster guarded cannot be used: .* refuses the token in/u),
    ]);
    // Not after the two minutes that one which does not answer is waited for.
    expect(Date.now() - since).toBeLessThan(90_000);
  });

  it('is attached to with its token', async () => {
    writeFileSync(token, 'right\n');
    const { exitCode, stdout } = await up('--ray-token-file', token);
    expect([exitCode, stdout]).toEqual([0, 'theirs']);
    await printed('cluster', 'down', 'theirs');
  });

  it('has to be named by an address and a URL', async () => {
    const bad = ['--address', 'ray-head', '--dashboard-url', 'ray-head:8265'];
    const { exitCode, stderr } = await rankflow('cluster', 'up', 'theirs', '--no-start', ...bad);
    expect(exitCode).toBe(2);
    expect(stderr).toMatch(/--address: expected HOST:PORT/u);
    expect(stderr).toMatch(/--dashboard-url: expected http:\/\/HOST:PORT/u);
  });
});

describe('a cluster that is named and is not up', { timeout: 240_000 }, () => {
  it('is not started on this host in its place', async () => {
    const input = path.join(home, 'few.jsonl');
    writeFileSync(input, `${JSON.stringify({ prompt: 'hello' })}\n`);
    const here = ['--cluster', 'labb', '--store', path.join(home, 'store')];
    const where = ['--no-start', ...here];
    const model = ['--model', 'org/model', '--backend', 'simulated'];
    for (const command of [
      ['run', input, ...model, ...where],
      ['submit', input, ...model, ...where],
      ['job', 'submit', ...where, '--', 'true'],
      ['schedule', 'create', 'on-labb', '--input', '/{date}', '--at', '02:00', ...model, ...here],
      ['serve', '--port', '0', ...model, ...where],
    ]) {
      const { exitCode, stdout, stderr } = await rankflow(...command);
      expect([command, exitCode, stdout]).toEqual([command, 2, '']);
      expect(stderr).toMatch(/There is no cluster labb up\./u);
      expect(stderr).toMatch(/way out: .*--nodes N starts a local one of this name/u);
    }
    expect(await json('cluster', 'status')).not.toContainEqual(
      expect.objectContaining({ name: 'labb' }),
    );
    expect(await json('job', 'list')).toEqual([]);
    expect(await json('schedule', 'list')).not.toContainEqual(
      expect.objectContaining({ name: 'on-labb' }),
    );
  });

  it('is started on this host when its nodes are said', async () => {
    world.run = new FakeRun([1]);
    const input = path.join(home, 'few.jsonl');
    const where = ['--no-start', '--cluster', 'mine', '--nodes', '0', '--run-id', 'mine'];
    const store = ['--store', path.join(home, 'store')];
    const model = ['--model', 'org/model', '--backend', 'simulated'];
    expect(await printed('submit', input, ...model, ...where, ...store)).toBe('mine');
    await eventually(() => world.headRuns);
    await printed('cancel', 'mine');
  });
});
