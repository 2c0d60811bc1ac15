import { SshProvider } from '../../src/contracts/cluster.js';

/** A cluster over ssh whose hosts are called as its nodes. */
export const sshProvider = (workers: readonly string[], count = workers.length): SshProvider =>
  SshProvider.parse({
    provider: 'ssh',
    head: { name: 'head', host: '10.0.0.1' },
    workers: workers.map((name) => ({ name, host: name })),
    count,
    ssh: {},
    ports: {},
    environment: { python: '/venv/bin/python' },
    setup: [],
  });
