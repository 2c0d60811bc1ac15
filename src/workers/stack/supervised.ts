import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import path from 'node:path';

import type { Logger } from 'pino';

import { paths } from '../../setup/paths.js';
import { endGroup, identityOf } from '../../setup/processes.js';
import { countFailures, restartDelay } from './backoff.js';
import { keyOf, type ProcessSpec } from './config.js';
import { boundLog } from './log-file.js';
import type { ProcessState } from './state.js';

/**
 * Keeps one process running: starts it in a process group of its own, and again, after a growing pause,
 * whenever it ends, until it is stopped.
 *
 * Its output goes straight to a log file and not through the supervisor: a pipe would break, and the process
 * with it, if the supervisor were killed.
 */
export class SupervisedProcess {
  readonly state: ProcessState;
  #ended: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #failures = 0;
  #stopping = false;

  /** @param onChange called, synchronously, whenever `state` changed */
  constructor(
    private readonly spec: ProcessSpec,
    private readonly log: Logger,
    private readonly onChange: () => void,
  ) {
    this.state = {
      name: spec.name,
      ...(spec.build !== undefined && { build: spec.build }),
      ...(spec.draining && { draining: true }),
      role: spec.role,
      status: 'waiting',
      restarts: 0,
      log: path.join(paths.logs, `${spec.name}.log`),
    };
  }

  get key(): string {
    return keyOf(this.spec);
  }

  /** From now on it serves only what is pinned to its build, or more than that again. */
  drain(draining: boolean): void {
    if (draining) this.state.draining = true;
    else delete this.state.draining;
  }

  start(): void {
    if (this.#stopping) return;
    mkdirSync(paths.logs, { recursive: true });
    this.boundLog();
    const output = openSync(this.state.log, 'a');
    const startedAt = Date.now();
    const child = spawn(this.spec.command, this.spec.args, {
      cwd: this.spec.cwd,
      env: { ...process.env, ...this.spec.env },
      detached: true,
      stdio: ['ignore', output, output],
    });
    closeSync(output);
    this.#ended = new Promise((resolve) => {
      child.once('error', (error) => resolve(this.#whenEnded(error.message, startedAt)));
      child.once('exit', (code, signal) =>
        resolve(this.#whenEnded(signal ?? `exit code ${code}`, startedAt)),
      );
    });
    if (child.pid === undefined) return;
    const process_ = { pid: child.pid, identity: identityOf(child.pid) ?? 'ended' };
    Object.assign(this.state, { status: 'running', process: process_, startedAt });
    this.onChange();
    this.log.info({ process: this.spec.name, pid: child.pid }, 'started');
  }

  /** Begins its log anew when that has become large. */
  boundLog(): void {
    try {
      boundLog(this.state.log);
    } catch (error) {
      // As on a full disk: no reason to end, or not to start, a process.
      this.log.warn({ process: this.spec.name, err: error }, 'its log could not be begun anew');
    }
  }

  /** Ends the process and its group; returns when nothing of it is left. */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#timer);
    const running = this.state.process;
    if (running !== undefined) await endGroup(running, this.spec.graceMs);
    await this.#ended;
    this.state.status = 'stopped';
    this.onChange();
  }

  async #whenEnded(how: string, startedAt: number): Promise<void> {
    const running = this.state.process;
    // Helpers of a crashed process would go on beside those of its successor.
    if (running !== undefined) await endGroup(running, 0);
    this.state.lastEnd = how;
    if (this.#stopping) return;
    this.#failures = countFailures(this.#failures, Date.now() - startedAt);
    const delay = restartDelay(this.#failures);
    this.log.warn({ process: this.spec.name, how, restartInMs: delay }, 'ended');
    this.state.status = 'restarting';
    this.state.restarts += 1;
    this.onChange();
    this.#timer = setTimeout(() => this.start(), delay);
  }
}
