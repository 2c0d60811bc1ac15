import { mkdirSync, readFileSync, renameSync, rmSync, linkSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { readIfExists } from './files.js';
import type { Log } from './log.js';
import { paths } from './paths.js';
import { isAlive, ownProcess, sleep, type ProcessId } from './processes.js';

/**
 * Runs `work` while no other process of this machine holds the lock `name` of this data folder.
 * The lock of a process that died is taken over.
 *
 * @param waiting what to say when another process holds it
 */
export async function withLock<T>(
  name: string,
  log: Log,
  waiting: string,
  work: () => Promise<T>,
): Promise<T> {
  const file = path.join(paths.home, `${name}.lock`);
  mkdirSync(paths.home, { recursive: true });
  const mine = JSON.stringify(ownProcess());
  let said = false;
  while (!tryLock(file, mine)) {
    if (!said) log(waiting);
    said = true;
    await sleep(250);
  }
  try {
    return await work();
  } finally {
    if (readIfExists(file) === mine) rmSync(file, { force: true });
  }
}

function tryLock(file: string, mine: string): boolean {
  // Written aside and linked, so that nobody reads a lock file that is still empty.
  const aside = `${file}.${process.pid}`;
  writeFileSync(aside, mine);
  try {
    linkSync(aside, file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    rmSync(aside, { force: true });
  }
  const held = readIfExists(file);
  if (held !== undefined && !isAlive(JSON.parse(held) as ProcessId)) removeStale(file, held);
  return false;
}

/** Removes the lock of a dead process, unless another process has just replaced it by its own. */
function removeStale(file: string, held: string): void {
  const aside = `${file}.stale.${process.pid}`;
  try {
    renameSync(file, aside);
  } catch {
    return;
  }
  if (readFileSync(aside, 'utf8') !== held) linkSync(aside, file);
  rmSync(aside, { force: true });
}
