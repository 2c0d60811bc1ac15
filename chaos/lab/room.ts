import { execFileSync } from 'node:child_process';
import { mkdirSync, statfsSync } from 'node:fs';

import { NotPossible } from '../faults/fault.js';

/** More than what a run asks for before it starts. */
const BYTES = 512 * 1024 * 1024;

const FILL_TRIES = 50;

/** A file system of its own in memory, whose room can be taken away and given back. */
export class LimitedFolder {
  private constructor(readonly folder: string) {}

  /** @throws NotPossible where file systems may not be mounted */
  static mount(folder: string): LimitedFolder {
    mkdirSync(folder, { recursive: true });
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${BYTES}`, 'tmpfs', folder]);
    } catch (error) {
      throw new NotPossible(`file systems may not be mounted: ${(error as Error).message}`);
    }
    return new LimitedFolder(folder);
  }

  /** From now on every write that needs another page fails with ENOSPC. */
  fill(): void {
    for (let tries = 1; ; tries += 1) {
      const { blocks, bfree, bsize } = statfsSync(this.folder);
      try {
        // A size of 0 would mean no limit, for ever.
        return this.#resize(Math.max(1, blocks - bfree) * bsize);
      } catch (error) {
        // Somebody wrote meanwhile, and needs more than that.
        if (tries === FILL_TRIES) throw error;
      }
    }
  }

  /** There is room again. */
  free(): void {
    this.#resize(BYTES);
  }

  unmount(): void {
    execFileSync('umount', ['--lazy', this.folder]);
  }

  #resize(bytes: number): void {
    execFileSync('mount', ['-o', `remount,size=${bytes}`, this.folder]);
  }
}
