import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import { expect, test } from 'vitest';

import { startLocalNode } from '../../../src/activities/local-cluster.js';
import { forgetCluster, writeNode } from '../../../src/activities/local/node-state.js';
import { identityOf, isAlive } from '../../../src/setup/processes.js';

test('a worker that joins a head that has ended is ended at once, and not tried again', async () => {
  const name = `headless-${randomBytes(4).toString('hex')}`;
  const worker = spawn('sleep', ['60'], { detached: true, stdio: 'ignore' });
  const pid = worker.pid ?? 0;
  const process = { pid, identity: identityOf(pid) ?? '' };
  const startedAtMs = Date.now();
  const gone = { pid, identity: 'of another process' };
  writeNode(name, { node: 'head', process: gone, startedAtMs, ports: { gcs: 1, dashboard: 1 } });
  writeNode(name, { node: 'worker-1', process, startedAtMs });
  try {
    const spec = { name, nodes: { provider: 'local', workers: 1 } } as const;
    await expect(
      startLocalNode({ spec, node: 'worker-1' }, async (ms) => sleep(ms)),
    ).rejects.toMatchObject({ type: 'ClusterUnavailable', nonRetryable: true });
    expect(isAlive(process)).toBe(false);
  } finally {
    worker.kill('SIGKILL');
    forgetCluster(name);
  }
});
