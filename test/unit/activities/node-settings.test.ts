import { describe, expect, it } from 'vitest';

import type { SshProvider } from '../../../src/contracts/cluster.js';
import {
  containerSettings,
  fixedPorts,
  nodeFolder,
  nodeVariables,
  startArguments,
  type NodePlace,
} from '../../../src/activities/ssh/node-settings.js';
import { sshProvider } from '../../support/ssh-spec.js';

describe('the container of a node', () => {
  const withEnvironment = (environment: object) => ({ ...sshProvider([]), environment });

  it('has its image, its Python and what it sees of its host', () => {
    const environment = { image: 'ray:1', python: '/opt/python', mounts: ['/data:ro'] };
    expect(containerSettings(withEnvironment(environment))).toEqual(environment);
    expect(containerSettings(withEnvironment({ image: 'ray:1' }))).toEqual({ image: 'ray:1' });
  });

  it('is none without an image', () => {
    expect(containerSettings(withEnvironment({ python: '/opt/python' }))).toEqual({});
  });
});

describe('the ports that have to be free', () => {
  const nodes = sshProvider(['a']);
  const [worker] = nodes.workers;
  if (worker === undefined) throw new Error('no worker');

  it('are those of the head alone, where Ray chooses the others', () => {
    expect(fixedPorts(nodes.head, nodes.ports)).toEqual({
      gcs: 6379,
      dashboard: 8265,
      client: 10_001,
    });
    expect(fixedPorts(worker, nodes.ports)).toEqual({});
  });

  it('are those that the file gives to each node, too', () => {
    const each = { nodeManager: 9001, objectManager: 9002 };
    const ports = { ...nodes.ports, ...each };
    expect(fixedPorts(nodes.head, ports)).toMatchObject({ gcs: 6379, ...each });
    expect(fixedPorts(worker, ports)).toEqual(each);
  });

  it('are told to Ray one by one; the one that it fixes by itself is any where nobody says so', () => {
    const told = (ports: object): string[] =>
      startArguments({
        ...{ cluster: 'lab', nodes: { ...nodes, ports: { ...nodes.ports, ...ports } } },
        ...{ node: worker, address: '10.0.0.2', head: '10.0.0.1' },
      }).filter((word) => /^--[a-z-]+-port=/u.test(word));
    expect(told({})).toEqual(['--dashboard-agent-listen-port=0']);
    const agents = { dashboardAgentGrpc: 9003, dashboardAgentListen: 9004 };
    const ports = { ...agents, runtimeEnvAgent: 9005, metricsExport: 9006, nodeManager: 9001 };
    expect(told(ports)).toEqual([
      ...['--node-manager-port=9001', '--dashboard-agent-grpc-port=9003'],
      ...['--dashboard-agent-listen-port=9004', '--runtime-env-agent-port=9005'],
      '--metrics-export-port=9006',
    ]);
    expect(fixedPorts(worker, { ...nodes.ports, ...ports, workers: [20_000, 20_999] })).toEqual(
      ports,
    );
  });
});

function placeOf(name: string, more: Partial<SshProvider> = {}): NodePlace {
  const nodes = { ...sshProvider(['a']), ...more };
  const node = [nodes.head, ...nodes.workers].find((one) => one.name === name);
  if (node === undefined) throw new Error(`no node ${name}`);
  return { cluster: 'lab', nodes, node, address: '10.0.0.2', head: '10.0.0.1' };
}

describe('what `ray start` is told', () => {
  const each = {
    nodeManager: 9001,
    objectManager: 9002,
    workers: [20_000, 20_999] as [number, number],
  };
  const ports = { ...sshProvider([]).ports, gcs: 7000, dashboard: 7001, client: 7002, ...each };

  it('has the ports of the head, and no resources where there are workers', () => {
    const words = startArguments(placeOf('head', { ports }));
    expect(words).toEqual(
      expect.arrayContaining([
        ...['--head', '--port=7000', '--dashboard-port=7001', '--ray-client-server-port=7002'],
        ...['--dashboard-host=10.0.0.2', '--num-cpus=0', '--num-gpus=0'],
        ...['--node-manager-port=9001', '--object-manager-port=9002'],
        ...['--min-worker-port=20000', '--max-worker-port=20999'],
      ]),
    );
    expect(words.some((word) => word.startsWith('--address='))).toBe(false);
    const alone = startArguments(placeOf('head', { workers: [] }));
    expect(alone.filter((word) => word.startsWith('--num-'))).toEqual([]);
  });

  it('has the head of a worker, what it is called and what it has', () => {
    const nodes = sshProvider(['a']);
    const resources = { num_cpus: 4, num_gpus: 1, custom: { disk: 2 } };
    const workers = nodes.workers.map((node) => ({ ...node, resources, labels: { zone: 'x' } }));
    const words = startArguments(placeOf('a', { workers, ports }));
    expect(words).toEqual(
      expect.arrayContaining([
        ...['--block', '--address=10.0.0.1:7000', '--node-ip-address=10.0.0.2', '--node-name=a'],
        ...['--labels=rankflow-node=a,zone=x', '--num-cpus=4', '--num-gpus=1'],
        ...['--resources={"disk":2}', '--node-manager-port=9001', '--max-worker-port=20999'],
      ]),
    );
    expect(words.some((word) => /^--(?:head|port|dashboard-port|ray-client)/u.test(word))).toBe(
      false,
    );
  });

  it('leaves ports to Ray that the file does not fix', () => {
    const words = startArguments(placeOf('a')).join(' ');
    expect(words).not.toMatch(/--(?:min|max)-worker-port|--node-manager|--object-manager/u);
    expect(startArguments({ ...placeOf('a'), head: 'fe80::1' })).toContain(
      '--address=[fe80::1]:6379',
    );
  });
});

describe('variables of a node', () => {
  const { token, package: files, notice, gcs } = nodeFolder('lab', sshProvider([]), 'head');

  it('name the token by its file, or turn tokens off', () => {
    expect(nodeVariables(placeOf('head'), {})).toMatchObject({
      RAY_AUTH_MODE: 'token',
      RAY_AUTH_TOKEN_PATH: token,
    });
    const without = nodeVariables(placeOf('head', { tokenAuth: false }), {});
    expect(without['RAY_AUTH_TOKEN_PATH']).toBeUndefined();
    expect(without['RAY_AUTH_MODE']).not.toBe('token');
  });

  it('have what the file says and what it passes on, and the files of Rankflow before those of the user', () => {
    const environment = {
      variables: { PYTHONPATH: '/mine', PATH: '/mine/bin', A: 'b' },
      pass: ['SECRET', 'ABSENT'],
    };
    const given = nodeVariables(placeOf('head', { environment }), { SECRET: 's', OTHER: 'o' });
    expect(given).toMatchObject({
      ...{ A: 'b', SECRET: 's', PATH: '/mine/bin', PYTHONPATH: `${files}:/mine` },
      RANKFLOW_PREEMPTION_FILE: notice,
    });
    expect(given).not.toHaveProperty('ABSENT');
    expect(given).not.toHaveProperty('OTHER');
  });

  it('have no PATH of their own: where its Python is is known on the host alone', () => {
    const environment = { python: '~/venv/bin/python' };
    expect(nodeVariables(placeOf('head', { environment }), {})).not.toHaveProperty('PATH');
  });

  it('have the state of the head on disk where the file says so', () => {
    expect(nodeVariables(placeOf('head', { gcsStorage: 'rocksdb' }), {})).toMatchObject({
      RAY_gcs_storage: 'rocksdb',
      RAY_gcs_storage_path: gcs,
    });
    expect(nodeVariables(placeOf('head'), {})).not.toHaveProperty('RAY_gcs_storage');
  });
});
