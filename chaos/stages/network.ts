import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';

import { findTemporal } from '../../dist/setup/temporal.js';
import { Deck, cardsOf } from '../faults/index.js';
import { networkFaults } from '../faults/network.js';
import type { Home } from '../lab/home.js';
import { isAlive, poll, signal } from '../lab/processes.js';
import type { Network } from '../network/network.js';
import type { RayOnHosts } from '../network/ray.js';
import { type StageOptions, warmLane } from './lane.js';
import { flagsOf } from './simulated.js';

/** A run has ended after this, whatever cuts it off (seconds). */
const RUN_ENDS_S = 900;

/** Names of the hosts: Temporal and the workers of Rankflow stay on this machine. */
export const HOSTS = ['head', 'a', 'b'] as const;

/** Temporal's dev server where the hosts can reach it. */
export class SharedServer {
  private constructor(private readonly child: ChildProcess) {}

  /** @param address `host:port` */
  static async start(home: Home, address: string): Promise<SharedServer> {
    const temporal = await findTemporal();
    if (temporal === undefined) throw new Error('No Temporal CLI: run `npm run setup` first.');
    const [host = '', port = ''] = address.split(':');
    mkdirSync(home.file('logs'), { recursive: true });
    mkdirSync(home.file('stack'), { recursive: true });
    const log = openSync(home.file('logs', 'temporal.log'), 'a');
    const child = spawn(
      temporal.command,
      [
        ...['server', 'start-dev', '--headless', '--ip', host, '--port', port],
        ...['--db-filename', home.file('stack', 'temporal.db'), '--log-level', 'warn'],
      ],
      { stdio: ['ignore', log, log], env: { ...process.env, RANKFLOW_HOME: home.folder } },
    );
    closeSync(log);
    return new SharedServer(child);
  }

  async stop(): Promise<void> {
    const { pid } = this.child;
    signal(pid, 'SIGTERM');
    const ended = await poll(() => (pid !== undefined && isAlive(pid) ? undefined : true), 10);
    if (ended === undefined) signal(pid, 'SIGKILL');
  }
}

/** Nodes on hosts of their own, and partitions between them, one at a time. */
export async function networkStage(
  options: StageOptions,
  network: Network,
  ray: RayOnHosts,
): Promise<void> {
  const { random, selection, rounds } = options;
  const workers = network.hosts.filter(({ name }) => name !== 'head');
  await ray.start(network.host('head'));
  await Promise.all(workers.map(async (host) => ray.start(host)));
  const faults = networkFaults(network, ray, workers);
  const cards = cardsOf(faults, ['generate'], 'simulated', selection);
  const flags = flagsOf({ engines: 2, rate: 40, nodes: undefined, keep: true });
  await warmLane(
    options,
    new Deck(cards, random, rounds),
    {
      ...{ scenario: 'network', rows: 1500, tokens: 16, fleet: 'spread', cluster: 'spread' },
      flags: [...flags, ...ray.flags],
    },
    () => true,
    RUN_ENDS_S,
  );
}
