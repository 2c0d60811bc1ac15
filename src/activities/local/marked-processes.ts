import { readFileSync, readdirSync } from 'node:fs';

import { identityOf, waitUntil } from '../../setup/processes.js';
import { MARKER } from './node-command.js';

/** A killed process is gone in milliseconds; one that is writing a core or waits for a disk takes longer. */
const GONE_MS = 10_000;

/**
 * Pids of the living processes that inherited a marker, in whatever group or session they are now. Only Linux
 * tells; elsewhere there are none, and the process group has to do.
 *
 * @param marker the whole marker of a node, or the beginning that all nodes of a cluster share
 */
export function markedProcesses(marker: string): number[] {
  if (process.platform !== 'linux') return [];
  const wanted = `${MARKER}=${marker}`;
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/u.test(entry))
    .map(Number)
    .filter((pid) => pid !== process.pid && inherits(pid, wanted) && identityOf(pid) !== undefined);
}

function inherits(pid: number, wanted: string): boolean {
  try {
    const variables = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
    return variables.some((variable) => `${variable}/`.startsWith(`${wanted}/`));
  } catch {
    return false;
  }
}

/**
 * Kills what is left of a node or cluster. Returns when all of it is gone.
 *
 * @throws Error with the pids when something does not go within 10 s
 */
export async function killMarked(marker: string): Promise<void> {
  const gone = await waitUntil(() => {
    const pids = markedProcesses(marker);
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has just ended.
      }
    }
    return pids.length === 0;
  }, GONE_MS);
  if (!gone)
    throw new Error(`processes of ${marker} do not end: ${markedProcesses(marker).join(', ')}`);
}
