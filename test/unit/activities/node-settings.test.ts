import { describe, expect, it } from 'vitest';

import {
  containerSettings,
  fixedPorts,
  startArguments,
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
