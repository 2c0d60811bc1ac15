import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { toRunOptions } from '../../../src/cli/run-options.js';
import { prepareRun } from '../../../src/client/inference.js';
import { paths } from '../../../src/setup/paths.js';
import { identityOf } from '../../../src/setup/processes.js';

// The command as it is installed (`npm test` builds it), in a data folder in which nothing runs.
const program = path.join(paths.packageRoot, 'dist/cli/main.js');
let home: string;
let input: string;

beforeAll(() => {
  home = mkdtempSync(path.join(tmpdir(), 'rankflow-cli-'));
  input = path.join(home, 'in.jsonl');
  writeFileSync(input, '{"prompt":"hello"}\n');
  symlinkSync(paths.venv, path.join(home, 'venv'));
});
afterAll(() => rmSync(home, { recursive: true }));

const rankflow = (...args: string[]) =>
  execa(process.execPath, [program, ...args], {
    reject: false,
    env: {
      RANKFLOW_HOME: home,
      TEMPORAL_ADDRESS: undefined,
      TEMPORAL_CONFIG_FILE: path.join(home, 'none.toml'),
    },
  });

test('help and version are no errors', async () => {
  const help = await rankflow('--help');
  expect(help.exitCode).toBe(0);
  for (const name of ['setup', 'up', 'run', 'submit', 'watch', 'results', 'cluster', 'fleet']) {
    expect(help.stdout).toContain(`  ${name}`);
  }
  expect((await rankflow('--version')).stdout).toMatch(/^\d+\.\d+\.\d+$/u);
});

test.each([
  [['nonsense']],
  [['run']],
  [['run', 'in.jsonl']],
  [['run', 'in.jsonl', '--model', 'm', '--no-such-option']],
  [['results', 'r', '--rank', '-1']],
  [['list', '--limit', '0']],
])('%j is a usage error', async (args) => {
  const { exitCode, stdout, stderr } = await rankflow(...args);
  expect([exitCode, stdout]).toEqual([2, '']);
  expect(stderr).toMatch(/error/iu);
});

test('bad options and a missing file are told together, before anything is started', async () => {
  const { exitCode, stdout, stderr } = await rankflow(
    ...['run', path.join(home, 'none.jsonl'), '--model', 'org/model'],
    ...['--dtype', 'int3', '--ranks', 'four'],
  );
  expect([exitCode, stdout]).toEqual([2, '']);
  expect(stderr).toContain('none.jsonl does not exist');
  expect(stderr).toContain('--dtype:');
  expect(stderr).toContain('--ranks:');
});

test('results that could not be written are told before anything is generated', async () => {
  for (const out of [home, path.join(input, 'results.jsonl')]) {
    const command = ['run', input, '--model', 'any', '--backend', 'simulated', '--out', out];
    const { exitCode, stdout, stderr } = await rankflow(...command);
    expect([exitCode, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/--out: .*(?:is a folder|ENOTDIR|EEXIST)/u);
    expect(stderr).not.toContain('starting');
  }
}, 20_000);

test('wrong options of a cluster are told together, before anything is started', async () => {
  const local = await rankflow('cluster', 'up', 'Not-A-Name', '--nodes', 'two');
  expect([local.exitCode, local.stdout]).toEqual([2, '']);
  expect(local.stderr).toMatch(/name: .*\n--nodes: .*received string/u);
  expect(local.stderr).not.toMatch(/starting|Bringing/u);
  const existing = await rankflow('cluster', 'up', '--address', 'host:6379');
  expect(existing.exitCode).toBe(2);
  expect(existing.stderr).toContain('--dashboard-url:');
});

test('with --json an error is one JSON line on standard output', async () => {
  const { exitCode, stdout } = await rankflow('run', '/none', '--model', 'org/model', '--json');
  expect(exitCode).toBe(2);
  expect(JSON.parse(stdout)).toMatchObject({ event: 'error', type: 'Usage', exitCode: 2 });
});

test('with --json a command line that is not understood is one JSON line too', async () => {
  for (const args of [['run', 'in.jsonl'], ['nonsense'], ['results', 'r', '--rank', '-1']]) {
    const { exitCode, stdout, stderr } = await rankflow(...args, '--json');
    expect(exitCode).toBe(2);
    expect(JSON.parse(stdout)).toMatchObject({ event: 'error', type: 'Usage', exitCode: 2 });
    expect(stderr).not.toBe('');
  }
  expect((await rankflow('run', '--help', '--json')).stdout).toMatch(/^Usage:/u);
}, 20_000);

test('a deadline that no date can hold is a usage error that names its flag', async () => {
  for (const deadline of ['99999999999d', 'tomorrow']) {
    const flags = ['--model', 'org/model', '--deadline', deadline];
    const { exitCode, stderr } = await rankflow('run', input, ...flags);
    expect([exitCode, stderr]).toEqual([2, expect.stringMatching(/--deadline: .* such as 8h/u)]);
  }
});

test('an option that would do nothing to a fleet is refused', async () => {
  const given = await rankflow('scale', 'models', '2', '--scale-down-after', '5m');
  expect([given.exitCode, given.stderr]).toEqual([2, expect.stringContaining('--min-engines')]);
});

test.each([
  [['status', 'r']],
  [['list']],
  [['cancel', 'r']],
  [['fleet', 'status']],
  [['watch', 'r']],
])('%j without a server says how to start one', async (args) => {
  const { exitCode, stderr } = await rankflow(...args);
  expect(exitCode).toBe(3);
  expect(stderr).toContain('rankflow up');
});

test('a server that does not answer is unreachable, not a crash', async () => {
  const { exitCode, stderr } = await execa(process.execPath, [program, 'status', 'r'], {
    reject: false,
    env: { RANKFLOW_HOME: home, TEMPORAL_ADDRESS: '127.0.0.1:1' },
  });
  expect(exitCode).toBe(3);
  expect(stderr).toContain('127.0.0.1:1 does not answer');
}, 20_000);

test('a finished run is shown and generated no second time, with no server at all', async () => {
  const flags = { model: 'org/model', cluster: 'local', engines: 1, runId: 'done-before' };
  const store = path.join(home, 'store');
  const { inference, inputSha256 } = await prepareRun(toRunOptions(input, { ...flags, store }));
  const folder = path.join(store, 'runs', 'done-before');
  mkdirSync(folder, { recursive: true });
  const plan = { spec: inference.run, summary: { inputSha256 } };
  const counts = { rows: 2, succeeded: 1, failed: 1, promptTokens: 8, completionTokens: 16 };
  writeFileSync(path.join(folder, 'plan.json'), JSON.stringify(plan));
  writeFileSync(
    path.join(folder, 'manifest.json'),
    JSON.stringify({ state: 'completed', ...counts }),
  );

  const command = ['run', input, '--model', 'org/model', '--run-id', 'done-before'];
  const { exitCode, stdout, stderr } = await rankflow(...command);
  expect(stdout).toBe('done-before');
  expect(stderr).toContain('nothing is generated');
  expect(stderr).toContain('2 rows: 1 succeeded, 1 failed');
  expect(exitCode).toBe(1);

  const other = await rankflow(...command, '--temperature', '0.5');
  expect(other.exitCode).toBe(2);
  expect(other.stderr).toContain('sampling.temperature: not set before, 0.5 now');
  expect(other.stderr).toContain('--new');
});

test('results of a run that is not there are an error and print nothing', async () => {
  const { exitCode, stdout, stderr } = await rankflow('results', 'r', '--store', home);
  expect([exitCode, stdout]).toEqual([2, '']);
  expect(stderr).toContain('not finished');
  expect(stderr).toContain('rankflow watch');
}, 30_000);

test('`ps` shows the nodes of a local cluster, and `down` leaves none of them', async () => {
  const node = execa('sleep', ['300'], { detached: true, reject: false });
  const pid = node.pid ?? 0;
  const record = { node: 'worker-1', process: { pid, identity: identityOf(pid) }, startedAtMs: 0 };
  const folder = path.join(home, 'clusters', 'c');
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, 'worker-1.json'), JSON.stringify(record));

  const shown = await rankflow('ps', '--json');
  expect(JSON.parse(shown.stdout)).toMatchObject({ processes: [{ name: 'c/worker-1', pid }] });
  const kept = await rankflow('down', '--keep', '--json');
  expect(JSON.parse(kept.stdout)).toEqual({ stopped: false, nodes: [] });
  const { exitCode, stdout } = await rankflow('down', '--json');
  expect([exitCode, JSON.parse(stdout)]).toEqual([0, { stopped: false, nodes: ['c/worker-1'] }]);
  expect((await node).signal).toBeDefined();
  expect(JSON.parse((await rankflow('ps', '--json')).stdout)).toMatchObject({ processes: [] });
}, 60_000);

const SIMULATED = ['--model', 'any', '--backend', 'simulated'];

test('a file is checked with nothing running: 0 when a run would start, 2 with all that is wrong', async () => {
  const good = await rankflow('validate', input, ...SIMULATED);
  expect(good.exitCode, good.stderr).toBe(0);
  expect(good.stdout).toMatch(/^1 row, all of them valid\n.*\n1 batch in 1 rank\n/u);

  const file = path.join(home, 'bad.jsonl');
  writeFileSync(file, '{"prompt":"hello"}\nnot json\n{"id":"x"}\n');
  const refused = await rankflow('validate', file, ...SIMULATED, '--json');
  expect(refused.exitCode).toBe(2);
  expect(JSON.parse(refused.stdout)).toMatchObject({
    type: 'InvalidInput',
    problems: [{ line: 2 }, { line: 3, customId: 'x' }],
  });

  const recorded = await rankflow('validate', file, ...SIMULATED, '--on-invalid', 'record');
  expect(recorded.exitCode).toBe(0);
  expect(recorded.stdout).toContain('3 rows, 2 of them invalid and recorded as errors:');
  expect(recorded.stdout).toMatch(/line 2: \[invalid_json\].*\n {2}line 3.*\[missing_prompt\]/u);
}, 60_000);
