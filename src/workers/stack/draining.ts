import { readFileSync } from 'node:fs';

import { Client } from '@temporalio/client';

import { writeAtomically } from '../../setup/files.js';
import { withLock } from '../../setup/lock.js';
import { isVersioned, readDeployment, type Deployment } from '../deployment.js';
import { StackConfig } from './config.js';
import { connectTo } from './server.js';

/** Held by whoever starts, stops or changes the stack. */
export const LOCK = 'stack';

/** The builds on their way out that nothing is pinned to; what the server does not know has no workflows. Pure. */
export function endedOf(config: StackConfig, deployment: Deployment | undefined): string[] {
  const ended = (build: string): boolean => {
    const state = deployment?.builds.get(build);
    return state === undefined || state === 'drained' || state === 'inactive';
  };
  return config.processes.flatMap(({ draining, build }) =>
    draining && build !== undefined && build !== config.build && ended(build) ? [build] : [],
  );
}

/**
 * Takes the builds that nothing is pinned to out of the configuration.
 *
 * @returns their ids
 */
export async function endedBuilds(
  configFile: string,
  log: { info: (message: string) => void },
): Promise<string[]> {
  const read = (): StackConfig => StackConfig.parse(JSON.parse(readFileSync(configFile, 'utf8')));
  const { address, namespace } = read();
  const connection = await connectTo(address, namespace);
  try {
    const client = new Client({ connection, namespace });
    // Where workers are unversioned, two of them would take each other's steps.
    const versioned = await isVersioned(client);
    const deployment = versioned ? await readDeployment(client) : undefined;
    return await withLock(
      LOCK,
      (text) => log.info(text),
      'waiting for a command',
      async () => {
        const config = read();
        const ended = endedOf(config, deployment);
        if (ended.length === 0) return [];
        const gone = new Set(ended);
        const processes = config.processes.filter(
          ({ build, draining }) => !(draining && build !== undefined && gone.has(build)),
        );
        writeAtomically(configFile, JSON.stringify({ ...config, processes }, undefined, 2));
        return ended;
      },
    );
  } finally {
    await connection.close();
  }
}
