import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { connect } from 'node:net';

import { findTemporal } from '../../dist/setup/temporal.js';
import { networkFaults } from '../faults/network.js';
import type { Home } from '../lab/home.js';
import { isAlive, poll, signal } from '../lab/processes.js';
import type { Network } from '../network/network.js';
import type { RayOnHosts } from '../network/ray.js';
import { type StageOptions, deckOf, warmLane } from './lane.js';
import { flagsOf } from './simulated.js';

/** A run has ended after this, whatever cuts it off (seconds). */
const RUN_ENDS_S = 900;

/** Names of the hosts; the workers of Rankflow stay on this machine. */
export const HOSTS = ['temporal', 'head', 'a', 'b'] as const;

const PORT = 7233;
/** Address of the server on its host. */
export const serverOf = (network: Network): string => `${network.host('temporal').address}:${PORT}`;

/** It is up in five on an idle machine. */
const STARTS_S = 60;

async function answers(host: string): Promise<true | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port: PORT, timeout: 1000 });
    const end = (found: true | undefined): void => {
      socket.destroy();
      resolve(found);
    };
    socket.on('connect', () => end(true));
    socket.on('error', () => end(undefined));
    socket.on('timeout', () => end(undefined));
  });
}

/** Temporal's dev server on a host of its own. */
export class SharedServer {
  private constructor(private readonly child: ChildProcess) {}

  static async start(home: Home, network: Network): Promise<SharedServer> {
    const temporal = await findTemporal();
    if (temporal === undefined) throw new Error('No Temporal CLI: run `npm run setup` first.');
    for (const folder of ['logs', 'stack']) mkdirSync(home.file(folder), { recursive: true });
    const log = openSync(home.file('logs', 'temporal.log'), 'a');
    const [command, args] = network.command(network.host('temporal'), temporal.command, [
      // All addresses of that host: with one that is not the loopback its parts do not find each other.
      ...['server', 'start-dev', '--headless', '--ip', '0.0.0.0', '--port', String(PORT)],
      ...['--db-filename', home.file('stack', 'temporal.db'), '--log-level', 'warn'],
    ]);
    const child = spawn(command, args, {
      stdio: ['ignore', log, log],
      env: { ...process.env, RANKFLOW_HOME: home.folder },
    });
    closeSync(log);
    const { address } = network.host('temporal');
    if ((await poll(async () => answers(address), STARTS_S)) === undefined) {
      throw new Error('the Temporal server did not come up on its host');
    }
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
  const workers = [network.host('a'), network.host('b')];
  await ray.start(network.host('head'));
  await Promise.all(workers.map(async (host) => ray.start(host)));
  const faults = networkFaults(network, ray, workers);
  const flags = flagsOf(options.bench, { engines: 2, rate: 40, nodes: undefined, keep: true });
  await warmLane(
    options,
    deckOf(options, faults, ['generate']),
    {
      ...{ scenario: 'network', rows: 1500, tokens: 16, fleet: 'spread', cluster: 'spread' },
      flags: [...flags, ...ray.flags],
    },
    () => 'well',
    RUN_ENDS_S,
  );
}
