import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { NotPossible } from '../faults/fault.js';
import { isAlive, poll, signal } from './processes.js';

const V1 = '/sys/fs/cgroup/memory';
const V2 = '/sys/fs/cgroup';
let created = 0;

/**
 * A memory control group without room: whatever a process in it asks for next makes the kernel's OOM killer end
 * it, as on a machine that is full.
 */
export class KernelMemoryLimit {
  private constructor(
    private readonly folder: string,
    private readonly limitFile: string,
  ) {}

  /** @throws NotPossible where control groups may not be made */
  static create(): KernelMemoryLimit {
    const v2 = existsSync(path.join(V2, 'cgroup.controllers'));
    const folder = path.join(v2 ? V2 : V1, `rankflow-chaos-${process.pid}-${(created += 1)}`);
    try {
      mkdirSync(folder);
    } catch (error) {
      throw new NotPossible(`memory cgroups may not be made: ${String(error)}`);
    }
    return new KernelMemoryLimit(folder, v2 ? 'memory.max' : 'memory.limit_in_bytes');
  }

  /**
   * Moves the process there and waits until the kernel has ended it. One that asks for nothing for half a minute, as
   * it is idle, is ended with the same signal.
   *
   * @returns whether it was the kernel
   */
  async kill(pid: number): Promise<boolean> {
    try {
      writeFileSync(path.join(this.folder, this.limitFile), String(256 * 1024));
      writeFileSync(path.join(this.folder, 'cgroup.procs'), String(pid));
      // One that was stopped in the middle of something asks for nothing.
      signal(pid, 'SIGCONT');
      const dead = await poll(() => (isAlive(pid) ? undefined : true), 30);
      if (dead === undefined) signal(pid, 'SIGKILL');
      return dead === true;
    } finally {
      this.#release(pid);
    }
  }

  #release(pid: number): void {
    try {
      if (isAlive(pid))
        writeFileSync(path.join(path.dirname(this.folder), 'cgroup.procs'), String(pid));
      readFileSync(path.join(this.folder, 'cgroup.procs'));
      rmdirSync(this.folder);
    } catch {
      // Its last process is not collected yet: an empty group harms nobody.
    }
  }
}
