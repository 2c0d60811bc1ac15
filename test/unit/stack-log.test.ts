import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { pino } from 'pino';
import { afterEach, expect, it, vi } from 'vitest';

import { paths } from '../../src/setup/paths.js';
import { LOG_BYTES } from '../../src/workers/stack/log-file.js';
import { SupervisedProcess } from '../../src/workers/stack/supervised.js';

const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-logs-'));
vi.mock(import('../../src/setup/paths.js'), async (original) => {
  const actual = await original();
  return { ...actual, paths: { ...actual.paths } };
});

let process_: SupervisedProcess | undefined;
afterEach(async () => {
  await process_?.stop();
  rmSync(folder, { recursive: true });
});

it('a log that has become large begins anew, at a start and while its process writes on', async () => {
  Object.assign(paths, { logs: folder });
  const log = path.join(folder, 'noisy.log');
  const older = `${log}.1`;
  writeFileSync(log, 'before the start\n');
  truncateSync(log, LOG_BYTES + 1);
  process_ = new SupervisedProcess(
    {
      ...{ name: 'noisy', role: 'worker', cwd: folder, env: {}, graceMs: 1_000 },
      command: process.execPath,
      args: ['-e', "setInterval(() => console.log('still there'), 20)"],
    },
    pino({ level: 'silent' }),
    () => {},
  );
  process_.start();
  expect(readFileSync(older, 'latin1')).toMatch(/^before the start/u);
  const writes = async () =>
    vi.waitFor(() => expect(readFileSync(log, 'utf8')).toMatch(/^(?:still there\n)+$/u), 10_000);
  await writes();

  process_.boundLog();
  expect(readFileSync(older, 'latin1')).toMatch(/^before/u);
  truncateSync(log, LOG_BYTES + 1);
  process_.boundLog();
  expect(statSync(log).size).toBeLessThan(1_000);
  // Neither a hole in front, nor the older one's older one.
  await writes();
  expect(readFileSync(older, 'latin1')).toMatch(/^still there/u);
  expect(existsSync(`${older}.1`)).toBe(false);
});
