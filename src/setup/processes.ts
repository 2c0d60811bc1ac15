import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

/**
 * One process of this machine, for good. A pid alone is not enough: it is given again to another process
 * some time after its owner ended, and all are given again after a reboot.
 */
export interface ProcessId {
  readonly pid: number;
  /** Boot id and start time in clock ticks since boot (Linux), or the start date (elsewhere). */
  readonly identity: string;
}

const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();

/** What Linux says about a process that is not a zombie; undefined when there is none. */
function readStat(pid: number | string): { group: number; startTime: string } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the command in brackets and may hold spaces and brackets: count from its end.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [state, , group] = fields;
    return state === 'Z' ? undefined : { group: Number(group), startTime: fields[19] ?? '' };
  } catch {
    return undefined;
  }
}

/** Identity of the process that has `pid` now; undefined when there is none, or when it is a zombie. */
export function identityOf(pid: number): string | undefined {
  if (process.platform === 'linux') {
    const stat = readStat(pid);
    return stat && `${bootId()}:${stat.startTime}`;
  }
  try {
    const line = execFileSync('ps', ['-o', 'stat=,lstart=', '-p', String(pid)], {
      encoding: 'utf8',
    });
    return line.startsWith('Z') ? undefined : line.trim().replace(/^\S+\s+/u, '');
  } catch {
    return undefined;
  }
}

/** The calling process. */
export function ownProcess(): ProcessId {
  return { pid: process.pid, identity: identityOf(process.pid) ?? 'unknown' };
}

/** Whether that very process still runs. */
export const isAlive = (id: ProcessId): boolean => identityOf(id.pid) === id.identity;

/**
 * Whether anything of the process group led by `id` is left: its leader, or members that outlived it.
 * A pid is not given to another process while a group of that number has members.
 */
export function groupIsAlive(id: ProcessId): boolean {
  const now = identityOf(id.pid);
  if (now !== undefined) return now === id.identity;
  if (process.platform !== 'linux') return signalGroup(id.pid, 0);
  if (!id.identity.startsWith(`${bootId()}:`)) return false;
  // Not by signal 0: it also finds zombies, which stay for ever where process 1 does not collect them.
  return readdirSync('/proc').some(
    (entry) => /^\d/u.test(entry) && readStat(entry)?.group === id.pid,
  );
}

function signalGroup(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-pid, signal);
    return true;
  } catch {
    return false;
  }
}

export const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

/** Polls until `done()` or until `ms` are over; returns whether it became true. */
export async function waitUntil(done: () => boolean, ms: number): Promise<boolean> {
  const deadline = Date.now() + ms;
  while (!done()) {
    if (Date.now() >= deadline) return false;
    await sleep(50);
  }
  return true;
}

/**
 * Ends a process and its group: SIGTERM to the leader, which knows how to end its helpers; after `graceMs`,
 * or when the leader is gone, SIGKILL to what is left of the group.
 *
 * @param id leader of the group
 */
export async function endGroup(id: ProcessId, graceMs: number): Promise<void> {
  if (isAlive(id)) {
    process.kill(id.pid, 'SIGTERM');
    await waitUntil(() => !isAlive(id), graceMs);
  }
  if (!groupIsAlive(id)) return;
  signalGroup(id.pid, 'SIGKILL');
  await waitUntil(() => !groupIsAlive(id), 5000);
}
