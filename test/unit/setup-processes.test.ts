import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';

import { endGroup, groupIsAlive, identityOf, isAlive } from '../../src/setup/processes.js';

/** A process in a group of its own that ignores SIGTERM when told so. */
async function start(script: string) {
  const child = spawn(process.execPath, ['-e', `${script}; console.log('ready')`], {
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await new Promise((resolve) => {
    child.stdout.once('data', resolve);
  });
  const pid = child.pid ?? 0;
  return { pid, identity: identityOf(pid) ?? '' };
}

describe('a process of the stack', () => {
  it('is not taken for another one that got its pid later', async () => {
    const id = await start('setInterval(() => {}, 1000)');
    expect(isAlive(id)).toBe(true);
    const earlier = { ...id, identity: `${id.identity}0` };
    expect(isAlive(earlier)).toBe(false);
    expect(groupIsAlive(earlier)).toBe(false);
    await endGroup(earlier, 0);
    expect(isAlive(id)).toBe(true);
    await endGroup(id, 5000);
    expect(isAlive(id)).toBe(false);
  });

  it('is killed when it does not end by itself in time', async () => {
    const id = await start("process.on('SIGTERM', () => {}); setInterval(() => {}, 1000)");
    const began = Date.now();
    await endGroup(id, 300);
    expect(groupIsAlive(id)).toBe(false);
    expect(Date.now() - began).toBeGreaterThanOrEqual(300);
  });

  it('is not waited for when it ends by itself', async () => {
    const id = await start('setInterval(() => {}, 1000)');
    const began = Date.now();
    await endGroup(id, 20_000);
    expect(Date.now() - began).toBeLessThan(5000);
  });
});

describe('the lock of a data folder', () => {
  const home = mkdtempSync(path.join(tmpdir(), 'rankflow-lock-'));
  const file = path.join(home, 'setup.lock');
  let withLock: typeof import('../../src/setup/lock.js').withLock;

  beforeAll(async () => {
    vi.stubEnv('RANKFLOW_HOME', home);
    vi.resetModules();
    ({ withLock } = await import('../../src/setup/lock.js'));
  });
  afterAll(() => {
    vi.unstubAllEnvs();
    rmSync(home, { recursive: true, force: true });
  });

  it('lets one work at a time and is given back, also after a failure', async () => {
    let inside = 0;
    let most = 0;
    const work = async (): Promise<void> => {
      most = Math.max(most, (inside += 1));
      await new Promise((resolve) => {
        setTimeout(resolve, 20);
      });
      inside -= 1;
      throw new Error('done');
    };
    const results = await Promise.allSettled(
      [1, 2, 3].map(() => withLock('setup', () => {}, 'waiting', work)),
    );
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
    expect(most).toBe(1);
    expect(existsSync(file)).toBe(false);
  });

  it('is taken over from a process that died', async () => {
    writeFileSync(file, JSON.stringify({ pid: process.pid, identity: 'of an earlier process' }));
    const held = await withLock(
      'setup',
      () => {},
      'waiting',
      async () => readFileSync(file, 'utf8'),
    );
    expect(JSON.parse(held)).toEqual({ pid: process.pid, identity: identityOf(process.pid) });
  });
});
