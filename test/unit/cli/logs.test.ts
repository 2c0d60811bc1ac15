import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { execa } from 'execa';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { paths } from '../../../src/setup/paths.js';

/** A data folder with the logs of workers that are gone; there is no server. */
const home = mkdtempSync(path.join(tmpdir(), 'rankflow-cli-logs-'));

beforeAll(() => {
  mkdirSync(path.join(home, 'logs'));
  const write = (worker: string, lines: readonly object[]): void => {
    const text = lines.map((line) => `${JSON.stringify({ level: 30, name: worker, ...line })}\n`);
    writeFileSync(path.join(home, 'logs', `${worker}.log`), text.join(''));
  };
  const at = (seconds: number): number => 1_767_225_600_000 + seconds * 1000;
  write('control-worker', [
    { time: at(1), run: 'r1', rank: 2, msg: 'a rank waits' },
    { time: at(2), run: 'r2', msg: 'another run' },
    { time: at(5), run: 'r1', msg: 'run failed' },
  ]);
  write('python-worker', [{ time: at(3), run: 'r1', msg: 'planned 5 rows' }]);
});
afterAll(() => rmSync(home, { recursive: true }));

const logs = async (...args: readonly string[]) =>
  execa(process.execPath, [path.join(paths.packageRoot, 'dist/cli/main.js'), 'logs', ...args], {
    reject: false,
    env: {
      RANKFLOW_HOME: home,
      TEMPORAL_ADDRESS: undefined,
      TEMPORAL_CONFIG_FILE: path.join(home, 'none.toml'),
    },
  });

it('shows what all workers logged about a run, in order, also when nothing of it is up', async () => {
  const { exitCode, stdout } = await logs('r1');
  expect(exitCode).toBe(0);
  expect(stdout.split('\n')).toEqual([
    '2026-01-01T00:00:01.000Z INFO control-worker rank=2: a rank waits',
    '2026-01-01T00:00:03.000Z INFO python-worker: planned 5 rows',
    '2026-01-01T00:00:05.000Z INFO control-worker: run failed',
  ]);
});

it('shows the last lines of each, and JSON to scripts', async () => {
  const { stdout } = await logs('run/r1', '-n', '1', '--json');
  const texts = stdout.split('\n').map((line) => (JSON.parse(line) as { text: string }).text);
  expect(texts).toEqual(['planned 5 rows', 'run failed']);
});

it('says so when there is nothing', async () => {
  expect(await logs('nobody')).toMatchObject({
    ...{ exitCode: 0, stdout: '', stderr: 'Nothing was logged about nobody.' },
  });
  const engine = await logs('small/0');
  expect([engine.exitCode, engine.stdout]).toEqual([2, '']);
  expect(engine.stderr).toContain('There is no log of small/0.');
});
