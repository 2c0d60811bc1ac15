import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';

import type { ClusterSpec } from '../../src/contracts/cluster.js';

// A data folder of its own, with the Python environment of the real one.
const home = mkdtempSync(path.join(tmpdir(), 'rankflow-cluster-'));
const { paths } = await import('../../src/setup/paths.js');
Object.assign(paths, { home, clusters: path.join(home, 'clusters') });

const { enginesOf, observeCluster } = await import('../../src/activities/observe.js');
const { listActors, rayAuthEnvironment } = await import('../../src/activities/ray-state.js');
const { rayStatus } = await import('../../src/client/python.js');
const { endAllLocalNodes, endLostCluster, hasLocalNodes, removeLocalCluster, startLocalNode } =
  await import('../../src/activities/local-cluster.js');
const { clusterFolder, clusterHash, readNode, temporaryRoot } =
  await import('../../src/activities/local/node-state.js');
const { markedProcesses } = await import('../../src/activities/local/marked-processes.js');
const { isReady, planCluster } = await import('../../src/workflows/cluster-plan.js');

const spec: ClusterSpec = {
  name: 'test',
  nodes: { provider: 'local', workers: 1, cpusPerNode: 2 },
};
const pause = async (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

/** Nodes that lost their head look for it every few seconds. */
const SOON = { timeout: 60_000, interval: 1_000 };

/** A detached actor like an engine, created by a driver that ends. */
const DRIVER = `
import sys, ray
ray.init(address=sys.argv[1], namespace="rankflow", log_to_driver=False, logging_level="ERROR")
@ray.remote(num_cpus=1)
class Slot:
    def node(self):
        return ray.get_runtime_context().get_node_id()
slot = Slot.options(name="fleet-f-abc-slot-0", lifetime="detached", max_restarts=-1).remote()
print(ray.get(slot.node.remote()))
`;

/** Real raylets: about 15 s a node on an idle machine, several times that on a busy one. */
describe('a local cluster', { timeout: 300_000 }, () => {
  beforeAll(async () => {
    await startLocalNode({ spec, node: 'head' }, pause);
    await startLocalNode({ spec, node: 'worker-1' }, pause);
  }, 300_000);
  afterAll(async () => {
    await removeLocalCluster({ name: spec.name });
    rmSync(home, { recursive: true, force: true });
  }, 60_000);

  it('has its head without resources, and its worker with those asked for', async () => {
    const observation = await observeCluster({ spec });
    expect(isReady(spec, observation)).toBe(true);
    const nodes = observation.nodes.filter((node) => node.alive);
    expect(nodes.map(({ name, head, cpus, ip }) => ({ name, head, cpus, ip }))).toEqual(
      expect.arrayContaining([
        { name: 'head', head: true, cpus: 0, ip: '127.0.0.2' },
        { name: 'worker-1', head: false, cpus: 2, ip: '127.0.0.3' },
      ]),
    );
  });

  it('is left alone by a second start', async () => {
    const before = readNode(spec.name, 'worker-1')?.process;
    await startLocalNode({ spec, node: 'head' }, pause);
    await startLocalNode({ spec, node: 'worker-1' }, pause);
    expect(readNode(spec.name, 'worker-1')?.process).toEqual(before);
  });

  it('lets in nobody without the token, which only its owner can read', async () => {
    const { address } = await observeCluster({ spec });
    expect(address?.tokenFile).toBeDefined();
    expect(statSync(address?.tokenFile ?? '').mode & 0o777).toBe(0o600);
    const stranger = await fetch(`${address?.dashboardUrl}/api/v0/nodes`);
    expect(stranger.status).toBe(401);
    if (address !== undefined) expect(await listActors(address)).toEqual([]);
  });

  it('answers `ray status`', async () => {
    const { address } = await observeCluster({ spec });
    if (address === undefined) throw new Error('no address');
    // A node that has just joined is counted at the autoscaler's next look.
    await expect.poll(async () => rayStatus(address), SOON).toMatch(/0\.0\/2\.0 CPU/u);
  });

  it('takes a driver of this host, and places its actors on the worker', async () => {
    const { address } = await observeCluster({ spec });
    if (address === undefined) throw new Error('no address');
    const { stdout } = await execa(paths.python, ['-c', DRIVER, address.address], {
      env: rayAuthEnvironment(address.tokenFile),
    });
    const worker = (await observeCluster({ spec })).nodes.find(({ name }) => name === 'worker-1');
    expect(stdout.split('\n').at(-1)).toBe(worker?.nodeId);
    const actors = await listActors(address);
    expect(actors).toMatchObject([{ name: 'fleet-f-abc-slot-0', state: 'ALIVE' }]);
    expect(enginesOf({ name: 'f', specHash: 'abc' }, actors)).toMatchObject([
      { slot: 0, actorState: 'ALIVE', restarts: 0, nodeId: worker?.nodeId },
    ]);
  });

  it('gives its nodes what engines need', () => {
    const pid = readNode(spec.name, 'worker-1')?.process.pid;
    const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
    expect(environment).toContain('RAY_AUTH_MODE=token');
    expect(environment.find((v) => v.startsWith('PYTHONPATH='))).toContain(paths.pythonProject);
    expect(environment.find((v) => v.startsWith('RAY_AUTH_TOKEN='))).toBeUndefined();
  });

  it('starts a killed worker again, which Ray knows as another node', async () => {
    const before = readNode(spec.name, 'worker-1')?.process.pid ?? 0;
    process.kill(-before, 'SIGKILL');
    await pause(1000);
    const { processes } = await observeCluster({ spec });
    expect(processes.find(({ name }) => name === 'worker-1')?.running).toBe(false);
    await startLocalNode({ spec, node: 'worker-1' }, pause);
    expect(readNode(spec.name, 'worker-1')?.process.pid).not.toBe(before);
  });

  it('is rebuilt at its old address after all of its nodes have ended', async () => {
    const { address } = await observeCluster({ spec });
    expect((await endAllLocalNodes()).toSorted()).toEqual(['test/head', 'test/worker-1']);
    expect(markedProcesses(clusterHash(spec.name))).toEqual([]);
    await startLocalNode({ spec, node: 'head' }, pause, 'database-1');
    expect((await observeCluster({ spec })).address).toEqual(address);
  });

  it('keeps its nodes and engines when the head is lost, if its state is on disk', async () => {
    const durable: ClusterSpec = {
      name: 'durable',
      nodes: { provider: 'local', workers: 1, cpusPerNode: 2, gcsStorage: 'rocksdb' },
    };
    onTestFinished(async () => removeLocalCluster({ name: durable.name }));
    await startLocalNode({ spec: durable, node: 'head' }, pause);
    await startLocalNode({ spec: durable, node: 'worker-1' }, pause);
    const { address } = await observeCluster({ spec: durable });
    if (address === undefined) throw new Error('no address');
    await execa(paths.python, ['-c', DRIVER, address.address], {
      env: rayAuthEnvironment(address.tokenFile),
    });
    const [engine] = await listActors(address);
    process.kill(-(readNode(durable.name, 'head')?.process.pid ?? 0), 'SIGKILL');
    await pause(1000);
    const lost = await observeCluster({ spec: durable });
    expect(planCluster(durable, lost, 0)).toEqual({ end: [], start: ['head'] });

    await startLocalNode({ spec: durable, node: 'head' }, pause);
    await expect
      .poll(async () => isReady(durable, await observeCluster({ spec: durable })), SOON)
      .toBe(true);
    expect(await listActors(address)).toEqual([engine]);
  });

  it('is ended when the Temporal database that started it is lost, and by nothing else', async () => {
    expect(await endLostCluster(spec.name, 'database-1')).toBe(false);
    expect(await endLostCluster(spec.name, undefined)).toBe(false);
    expect(hasLocalNodes(spec.name)).toBe(true);
    expect(await endLostCluster(spec.name, 'database-2')).toBe(true);
    expect(hasLocalNodes(spec.name)).toBe(false);
    expect(markedProcesses(clusterHash(spec.name))).toEqual([]);
    expect(await endLostCluster(spec.name, 'database-2')).toBe(false);
    await startLocalNode({ spec, node: 'head' }, pause);
  });

  it('leaves no process, folder or token behind', async () => {
    const hash = clusterHash(spec.name);
    expect(markedProcesses(hash).length).toBeGreaterThan(3);
    await removeLocalCluster({ name: spec.name });
    expect(markedProcesses(hash)).toEqual([]);
    expect(existsSync(temporaryRoot(spec.name))).toBe(false);
    expect(existsSync(path.join(clusterFolder(spec.name), 'token'))).toBe(false);
  });
});
