import { existsSync, readdirSync, readFileSync } from 'node:fs';

/** Where object stores and engines have their shared memory. */
export const SHARED_MEMORY = '/dev/shm';

/** Names of what is in a folder; none when it is not there. */
export const filesIn = (folder: string): string[] =>
  existsSync(folder) ? readdirSync(folder).toSorted() : [];

/** Command lines of the living processes that have this data folder. Only Linux tells. */
export function processesOf(home: string): string[] {
  return filesIn('/proc')
    .filter((entry) => /^\d+$/u.test(entry) && Number(entry) !== process.pid)
    .flatMap((pid) => {
      try {
        const variables = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
        if (!variables.includes(`RANKFLOW_HOME=${home}`)) return [];
        return [readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim()];
      } catch {
        // It has just ended.
        return [];
      }
    });
}
