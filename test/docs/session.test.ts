import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { Session } from './session.js';

let folder: string;
let session: Session;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'rf-'));
  session = new Session(folder, process.env, folder);
});
afterEach(() => {
  session.close();
  rmSync(folder, { recursive: true });
});

test('a script finds the variables and background processes of those before it', async () => {
  await session.run('NAME=value\nsleep 60 &\nSLEEPER=$!', 5_000);
  const { status, output } = await session.run('echo "$NAME"; kill "$SLEEPER"', 5_000);
  expect([status, output.trim()]).toEqual([0, 'value']);
});

test('a command that fails is seen, wherever it stands; a condition is none', async () => {
  expect((await session.run('true\n(exit 3)\ntrue', 5_000)).status).toBe(3);
  expect(
    (await session.run('until true; do false; done\nif false; then true; fi', 5_000)).status,
  ).toBe(0);
  expect((await session.run('ls /nowhere', 5_000)).output).toContain('/nowhere');
});

test('a script that takes too long, or ends the shell, fails with what it printed', async () => {
  await expect(session.run('echo begun; exit 1', 5_000)).rejects.toThrow(/ended[^]*begun/u);
  const other = new Session(folder, process.env, folder);
  await expect(other.run('echo begun; sleep 5', 1_000)).rejects.toThrow(/no end[^]*begun/u);
  other.close();
});
