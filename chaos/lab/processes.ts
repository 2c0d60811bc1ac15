import { readFileSync, readdirSync, readlinkSync } from 'node:fs';

/** One process as `/proc` shows it. */
export interface ProcessInfo {
  readonly pid: number;
  readonly parent: number;
  readonly group: number;
  /** `R`, `S`, `D`, `T` (stopped), `Z`, ... */
  readonly state: string;
  /** Clock ticks after boot: with the pid, the identity of a process. */
  readonly startTime: string;
  /** Title or arguments, joined by blanks. */
  readonly command: string;
}

/** What a pid is now; undefined when it has ended, zombies included. */
export function processInfo(pid: number): ProcessInfo | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the command in brackets and may hold blanks: count from its end.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [state = '', parent, group] = fields;
    if (state === 'Z' || state === 'X') return undefined;
    const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
    return {
      pid,
      parent: Number(parent),
      group: Number(group),
      state,
      startTime: fields[19] ?? '',
      command,
    };
  } catch {
    return undefined;
  }
}

/** All living processes of this machine. */
export function processTable(): ProcessInfo[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/u.test(entry))
    .map((entry) => processInfo(Number(entry)))
    .filter((info) => info !== undefined);
}

export const isAlive = (pid: number): boolean => processInfo(pid) !== undefined;

/** Whether a process was started with `variable` (`NAME=value`) in its environment. */
export function hasVariable(pid: number, variable: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(variable);
  } catch {
    return false;
  }
}

/** Living processes that belong to a data folder, whoever started them; this one is not among them. */
export function processesOf(home: string): ProcessInfo[] {
  const variable = `RANKFLOW_HOME=${home}`;
  return processTable().filter(
    ({ pid }) => pid !== process.pid && pid !== process.ppid && hasVariable(pid, variable),
  );
}

/** Sends a signal to one process; false when it is gone. */
export function signal(pid: number | undefined, name: NodeJS.Signals): boolean {
  try {
    return pid !== undefined && process.kill(pid, name);
  } catch {
    return false;
  }
}

/** Files that a process has open, as paths. */
export function openFiles(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).flatMap((descriptor) => {
      try {
        return [readlinkSync(`/proc/${pid}/fd/${descriptor}`)];
      } catch {
        return [];
      }
    });
  } catch {
    return [];
  }
}

/** Files below `/dev/shm` that a process has mapped or open. */
export function sharedMemoryOf(pid: number): string[] {
  const open = openFiles(pid).filter((file) => file.startsWith('/dev/shm/'));
  try {
    const maps = readFileSync(`/proc/${pid}/maps`, 'utf8').match(/\/dev\/shm\/\S+/gu) ?? [];
    return [...new Set([...open, ...maps])];
  } catch {
    return open;
  }
}

export const sleep = async (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

/**
 * Polls until `check` returns something.
 *
 * @returns undefined when it did not within `seconds`
 */
export async function poll<T>(
  check: () => T | undefined | Promise<T | undefined>,
  seconds: number,
  everyMs = 100,
): Promise<T | undefined> {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const found = await check();
    if (found !== undefined) return found;
    if (Date.now() > deadline) return undefined;
    await sleep(everyMs);
  }
}
