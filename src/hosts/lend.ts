import { execa } from 'execa';

import { paths } from '../setup/paths.js';
import { HostError, type Host } from './host.js';

/** Makes a folder that only its user can read, and unpacks standard input into it. */
const UNPACK =
  'set -eu; umask 077; folder=$(mktemp -d); tar -x -f - -C "$folder"; printf %s "$folder"';
/** A megabyte over a slow line. */
const UNPACK_MS = 120_000;

/** Files that were lent to a host. */
export interface LentPackage {
  /** To be on the PYTHONPATH. */
  readonly folder: string;
  takeBack(): Promise<void>;
}

/**
 * Lends Rankflow's Python files to a host that has none yet.
 *
 * @throws HostError `HostRefused` when there is no room for them or no tar
 */
export async function lendPackage(host: Host): Promise<LentPackage> {
  const archive = ['-c', '-f', '-', '--exclude=__pycache__', '-C', paths.pythonProject, 'rankflow'];
  const { stdout: input } = await execa('tar', archive, { encoding: 'buffer' });
  const unpacked = await host.run(['sh', '-c', UNPACK], { input, timeoutMs: UNPACK_MS });
  if (unpacked.exitCode !== 0) {
    throw new HostError(
      'HostRefused',
      host.name,
      `the Python package cannot be unpacked: ${unpacked.stderr.trim()}`,
      'See that tar is there and that there is some room in /tmp.',
    );
  }
  const folder = unpacked.stdout.trim();
  return {
    folder,
    takeBack: async () => {
      await host.run(['rm', '-rf', '--', folder]);
    },
  };
}
