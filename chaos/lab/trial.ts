import { setTimeout } from 'node:timers/promises';

import { inferenceWorkflowId } from '../../dist/contracts/names.js';
import type { Invariant, Violation } from '../checker/violation.js';
import type { StoreReader } from '../store/reader.js';
import { RunView } from '../store/view.js';
import type { Workload } from '../workload.js';
import type { Command } from './home.js';
import { poll, signal, sleep } from './processes.js';
import type { Stack } from './stack.js';

/** How a run is started, and what is known of it beforehand. */
export interface TrialOptions {
  readonly stack: Stack;
  readonly runId: string;
  readonly workload: Workload;
  readonly fleet: string;
  readonly cluster: string;
  /** Flags of `rankflow run` besides the file, the run, the fleet and the cluster. */
  readonly flags: readonly string[];
  readonly reader: StoreReader;
  /** How often the store is looked at, in ms. */
  readonly lookMs?: number;
}

/** Exit code of a command that could not reach Temporal. */
const UNREACHABLE = 3;
/** Exit code for a run that had ended: it cannot be cancelled any more. */
const HAD_ENDED = 2;
/** A server that was killed is back long before (seconds). */
const CANCEL_S = 90;

/** A run that was started is seen within this (seconds), even when Temporal is just being killed. */
const REFUSED_S = 60;

/** One run of the product that faults are tried on: the real command line, and a watcher of its store. */
export class Trial {
  readonly runId: string;
  readonly stack: Stack;
  readonly fleet: string;
  readonly cluster: string;
  readonly workload: Workload;
  readonly view: RunView;
  readonly startedAt = Date.now();
  /** Everything that the command line printed. */
  readonly output: string[] = [];
  endedAt: number | undefined;
  /** Temporal's status of the workflow at its end. */
  status: string | undefined;
  /** Of the command line that was started last. */
  exitCode: number | undefined;
  /** Whether a cancellation was asked for. */
  cancelled = false;
  command: Command;
  #watching: Promise<void>;
  #following: Promise<void> | undefined;
  /** Nobody waits for its end any more. */
  #over = false;

  constructor(private readonly options: TrialOptions) {
    this.runId = options.runId;
    this.stack = options.stack;
    this.fleet = options.fleet;
    this.cluster = options.cluster;
    this.workload = options.workload;
    this.view = new RunView(options.runId, options.reader);
    this.command = this.start();
    this.#watching = this.#watch();
  }

  get ended(): boolean {
    return this.endedAt !== undefined;
  }

  /** Starts the command line, again after it was killed: the same command attaches to the run. */
  start(): Command {
    const { workload, runId, fleet, cluster, flags, stack } = this.options;
    const args = ['run', workload.file, '--run-id', runId, '--fleet', fleet, '--cluster', cluster];
    const command = stack.home.start([...args, ...flags, '--json'], stack.variables());
    this.command = command;
    this.#following = this.#follow(command);
    return command;
  }

  /** Does what a user does whose command says that Temporal could not be reached: runs it again. */
  async #follow(command: Command): Promise<void> {
    const { exitCode, all } = await command.done;
    this.output.push(all);
    this.exitCode = exitCode;
    if (this.command !== command) return;
    // Of a run that has failed it may also say that the cluster or the store was away: that is its end.
    const again = !this.ended || this.status === 'COMPLETED';
    if (exitCode === UNREACHABLE && again) {
      await sleep(2000);
      if (this.command === command && !this.#over) this.start();
    } else if (exitCode !== undefined && !this.ended) {
      // It refused to start: there is no workflow whose end could be waited for.
      const seen = await poll(() => this.status ?? (this.view.plan && 'planned'), REFUSED_S, 1000);
      if (seen === undefined) this.endedAt = Date.now();
    }
  }

  /** Asks for a cancellation as a user does. */
  async cancel(): Promise<void> {
    this.cancelled = true;
    const asked = await poll(async () => {
      const command = this.stack.home.start(['cancel', this.runId], this.stack.variables());
      const { exitCode } = await command.done;
      return exitCode === UNREACHABLE ? undefined : exitCode;
    }, CANCEL_S);
    // It may have ended just before.
    if (asked !== 0 && asked !== HAD_ENDED) throw new Error(`rankflow cancel ended with ${asked}`);
  }

  /**
   * Waits until the run and the command line have ended.
   *
   * @throws Error when that takes longer than `seconds`
   */
  async end(seconds: number): Promise<void> {
    const deadline = Date.now() + seconds * 1000;
    const ended = await poll(() => (this.ended ? true : undefined), seconds, 200);
    if (ended === undefined) throw new Error(`run ${this.runId} did not end in ${seconds} s`);
    await this.#watching;
    const left = Math.max(20_000, deadline - Date.now());
    // Not one that keeps a campaign that is over from ending.
    const late = setTimeout(left, false, { ref: false });
    if (!(await Promise.race([this.#exit().then(() => true), late]))) {
      this.#over = true;
      signal(this.command.pid, 'SIGKILL');
      throw new Error(`the command line of run ${this.runId} did not end`);
    }
  }

  /** Waits for the end of the command line, and of what it was followed by. */
  async #exit(): Promise<void> {
    let command: Command;
    do {
      ({ command } = this);
      await this.#following;
    } while (this.command !== command);
  }

  /** What the store watcher and the command line show to be wrong. */
  violations(): Violation[] {
    return [...this.view.violations];
  }

  violation(invariant: Invariant, code: string, message: string): Violation {
    return { invariant, code, message, run: this.runId };
  }

  async #watch(): Promise<void> {
    let lookedAt = 0;
    while (!this.ended) {
      // A store that cannot be read now is read later.
      await this.view.poll().catch(() => {});
      if (Date.now() - lookedAt > 500) {
        const status = await this.stack.workflowStatus(inferenceWorkflowId(this.runId));
        if (status !== undefined && status !== 'RUNNING') {
          this.status = status;
          await this.view.poll();
          this.endedAt = Date.now();
        }
        lookedAt = Date.now();
      }
      await sleep(this.options.lookMs ?? 200);
    }
  }
}
