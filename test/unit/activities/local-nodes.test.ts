import { spawn } from 'node:child_process';

import { afterAll, describe, expect, it } from 'vitest';

import { killMarked, markedProcesses } from '../../../src/activities/local/marked-processes.js';
import {
  MARKER,
  cpusOf,
  gpusOf,
  nodeArguments,
  nodeEnvironment,
  visibleGpus,
  type NodePlacement,
} from '../../../src/activities/local/node-command.js';
import { clusterHash, temporaryFolder } from '../../../src/activities/local/node-state.js';
import { enginesOf } from '../../../src/activities/observe.js';

const nodes = { provider: 'local', workers: 2 } as const;
const placement: NodePlacement = {
  node: 'head',
  nodes,
  temporaryFolder: '/tmp/rf-1/h',
  tokenFile: '/secret/token',
  gcsFolder: '/state/gcs',
  address: '127.0.0.2:6399',
  dashboardPort: 8265,
  clientPort: 10001,
  noticeFile: '/clusters/ray/head.preempted',
  marker: 'hash/head',
};

describe('the nodes of a local cluster', () => {
  it('share the cores of the host, at least one each; the head has none beside workers', () => {
    expect(cpusOf('head', nodes, 8)).toBe(0);
    expect(cpusOf('worker-1', nodes, 8)).toBe(4);
    expect(cpusOf('worker-1', nodes, 1)).toBe(1);
    expect(cpusOf('worker-1', { ...nodes, cpusPerNode: 6 }, 8)).toBe(6);
    expect(cpusOf('head', { ...nodes, workers: 0 }, 8)).toBe(8);
  });

  it('never count a GPU twice', () => {
    expect(gpusOf('worker-1', nodes)).toBe(0);
    expect(gpusOf('worker-1', { ...nodes, workers: 1 })).toBeUndefined();
    const shared = { ...nodes, gpusPerNode: 2 };
    expect(visibleGpus('worker-1', shared, undefined)).toBe('0,1');
    expect(visibleGpus('worker-2', shared, undefined)).toBe('2,3');
    expect(visibleGpus('worker-2', shared, '4,5,6,7')).toBe('6,7');
  });

  it('join the head, and only the head has a dashboard', () => {
    const head = nodeArguments(placement, 8);
    expect(head).toContain('--head');
    expect(head).toContain('--dashboard-port=8265');
    const worker = nodeArguments({ ...placement, node: 'worker-1' }, 8);
    expect(worker).toContain('--address=127.0.0.2:6399');
    expect(worker).not.toContain('--head');
    expect(worker.find((argument) => argument.startsWith('--node-ip-address'))).not.toBe(
      head.find((argument) => argument.startsWith('--node-ip-address')),
    );
  });

  it('are told where the token is, never the token', () => {
    const environment = nodeEnvironment(placement, { PATH: '/bin', PYTHONPATH: '/mine' });
    expect(environment['RAY_AUTH_TOKEN_PATH']).toBe('/secret/token');
    expect(environment['RAY_AUTH_TOKEN']).toBeUndefined();
    expect(environment['PYTHONPATH']).toMatch(/python-activities:\/mine$/u);
    expect(environment['PATH']).toMatch(/venv\/bin:\/bin$/u);
  });

  it('ask no cloud about preemption unless they are told to, and each has a file for its notice', () => {
    const environment = nodeEnvironment(placement, {});
    expect(environment['RANKFLOW_PREEMPTION']).toBe('off');
    expect(environment['RANKFLOW_PREEMPTION_FILE']).toBe('/clusters/ray/head.preempted');
    const told = nodeEnvironment(placement, { RANKFLOW_PREEMPTION: 'aws' });
    expect(told['RANKFLOW_PREEMPTION']).toBe('aws');
  });

  it('have their temporary files where these go with them, but what engines have compiled', () => {
    const environment = nodeEnvironment(placement, {});
    expect(environment['TMPDIR']).toBe(`${placement.temporaryFolder}/t`);
    expect(environment['TORCHINDUCTOR_CACHE_DIR']).not.toContain(placement.temporaryFolder);
    const own = nodeEnvironment(placement, { TORCHINDUCTOR_CACHE_DIR: '/cache' });
    expect(own['TORCHINDUCTOR_CACHE_DIR']).toBe('/cache');
  });

  it('have temporary folders that leave room for the socket paths of Ray', () => {
    const socket = '/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1';
    expect(`${temporaryFolder('a'.repeat(32), 'worker-1000')}${socket}`.length).toBeLessThan(107);
    expect(clusterHash('a')).not.toBe(clusterHash('b'));
  });
});

describe.runIf(process.platform === 'linux')('marked processes', () => {
  const marker = `test-${process.pid}/node`;
  afterAll(async () => killMarked(`test-${process.pid}`));

  it('are found and killed even when they have left their process group', async () => {
    const child = spawn('setsid', ['sh', '-c', 'sleep 100 & sleep 100'], {
      env: { ...process.env, [MARKER]: marker },
      stdio: 'ignore',
    });
    child.unref();
    await expect.poll(() => markedProcesses(marker).length).toBeGreaterThanOrEqual(2);
    expect(markedProcesses(`test-${process.pid}`).length).toBeGreaterThanOrEqual(2);
    expect(markedProcesses(`test-${process.pid}/no`)).toEqual([]);
    await killMarked(marker);
    expect(markedProcesses(marker)).toEqual([]);
  });
});

describe('engines', () => {
  const actor = (name: string, state: string, extra: object = {}) =>
    ({ actor_id: name, name, state, num_restarts: 0, death_cause: undefined, ...extra }) as never;
  const fleet = { name: 'f', specHash: 'abcdef0123456789' };

  it('are the actors with the name of a slot of this fleet', () => {
    const queue = 'fleet-f-abcdef012345';
    const found = enginesOf(fleet, [
      actor(`${queue}-slot-1`, 'ALIVE', { node_id: '0123456789', pid: 42 }),
      actor(`${queue}-slot-0`, 'RESTARTING', { num_restarts: 3 }),
      actor('fleet-f-other-slot-0', 'ALIVE'),
      actor(`${queue}-slot-x`, 'ALIVE'),
    ]);
    expect(found).toEqual([
      { slot: 0, actorState: 'RESTARTING', restarts: 3 },
      {
        slot: 1,
        actorState: 'ALIVE',
        restarts: 0,
        nodeId: '0123456789',
        incarnation: '01234567-42',
      },
    ]);
  });

  it('are the living ones when a slot had others before, and say why a dead one died', () => {
    const name = 'fleet-f-abcdef012345-slot-0';
    const dead = actor(name, 'DEAD', {
      death_cause: { actor_died_error_context: { error_message: 'its node was lost' } },
    });
    const alive = actor(name, 'ALIVE', { node_id: '0123456789', pid: 42 });
    for (const order of [
      [dead, alive],
      [alive, dead],
    ]) {
      expect(enginesOf(fleet, order)).toMatchObject([{ slot: 0, actorState: 'ALIVE' }]);
    }
    expect(enginesOf(fleet, [dead])).toMatchObject([{ deathCause: 'its node was lost' }]);
  });
});
