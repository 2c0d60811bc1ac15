import type { Fingerprint } from '../../../../src/contracts/hosts.js';
import type { HostFacts } from '../../../../src/hosts/alike/facts.js';

const GIB = 2 ** 30;

/** A well-kept host with two GPUs. */
export function fingerprint(changes: Partial<Fingerprint> = {}): Fingerprint {
  return {
    hostname: 'host',
    system: 'Debian GNU/Linux 12',
    kernel: '6.1.0',
    architecture: 'x86_64',
    python: '3.11.7',
    executable: '/opt/venv/bin/python',
    versions: { ray: '2.60.0', vllm: '0.32.0', torch: '2.13.0+cu130', temporalio: '1.35.0' },
    packages: { numpy: '2.3.0', pyarrow: '22.0.0' },
    packagesHash: 'p1',
    rankflowHash: 'r1',
    gpus: {
      driver: '580.95',
      cuda: '13.0',
      cards: [
        { name: 'NVIDIA H100', memory: 80 * GIB },
        { name: 'NVIDIA H100', memory: 80 * GIB },
      ],
    },
    cpus: 32,
    memory: 256 * GIB,
    folders: { temporary: { path: '/tmp', free: 400 * GIB, total: 1000 * GIB } },
    shm: { path: '/dev/shm', free: 64 * GIB, total: 128 * GIB },
    limits: { nofile: 1_048_576, nproc: null, memlock: null },
    container: null,
    wsl: null,
    addresses: ['10.0.0.1'],
    processes: 'boot-1 pid:[1]',
    reachedAt: null,
    ...changes,
  };
}

/** A head without engines, or a worker. */
export function host(name: string, changes: Partial<Fingerprint> = {}): HostFacts {
  const head = name === 'head';
  return {
    name,
    role: head ? 'head' : 'worker',
    engines: !head,
    address: `10.0.0.${name.length}`,
    fingerprint: fingerprint(changes),
    clock: { least: -0.4, most: 0.6 },
  };
}
