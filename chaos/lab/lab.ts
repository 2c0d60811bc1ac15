import type { Violation } from '../checker/violation.js';
import { boundOf } from '../faults/bounds.js';
import { type Fault, NotPossible, type Strike } from '../faults/fault.js';
import { type Phase, reach, stillIn } from '../phases.js';
import type { Random } from '../random.js';
import type { FaultRecord, Skipped } from '../report/record.js';
import { FolderReader } from '../store/reader.js';
import type { Snapshot } from '../store/view.js';
import type { Backend } from '../workload.js';
import { openAttempts } from './engines.js';
import type { Health } from './health.js';
import { sleep } from './processes.js';
import type { Stack } from './stack.js';
import type { Trial } from './trial.js';

/** A fault with what is needed to judge its recovery afterwards. */
export interface Struck {
  readonly record: FaultRecord;
  readonly fault: Fault;
  readonly strike: Strike;
  readonly trial: Trial;
  readonly snapshot: Snapshot;
  /** When it struck, and when it was healed by the campaign, ms since the epoch. */
  readonly at: number;
  endedAt: number;
  /** Resolves when the campaign has done its own part of the healing. */
  readonly healing: Promise<void>;
}

/** A fault that finds its target within this is in the phase that was reached (milliseconds). */
const PHASE_HOLDS_MS = 2_000;

/** Where faults are injected: one stack, its health, and the runs that go on. */
export class Lab {
  readonly struck: Struck[] = [];
  readonly skipped: Skipped[] = [];
  readonly trials = new Set<Trial>();
  readonly violations: Violation[] = [];
  #numbers = 0;

  constructor(
    readonly stack: Stack,
    readonly health: Health,
    readonly backend: Backend,
    readonly log: (line: string) => void,
    /** Is called when nodes of a cluster were hit, before they are replaced. */
    private readonly onNodes: (cluster: string) => Promise<void> = async () => {},
  ) {}

  /**
   * Waits for a phase of a run and injects a fault there.
   *
   * @param delayMs how long after the phase was reached
   * @returns undefined when that is not possible here, which is recorded
   */
  async inject(
    fault: Fault,
    phase: Phase,
    trial: Trial,
    random: Random,
    delayMs = 0,
  ): Promise<Struck | undefined> {
    const aim = await reach(phase, trial);
    const reachedAt = Date.now();
    await sleep(delayMs);
    let strike: Strike;
    try {
      const { held } = aim;
      strike = await fault.aim({ trial, random, ...(held && { held }) });
      if (Date.now() - reachedAt > PHASE_HOLDS_MS) await stillIn(phase, trial);
    } catch (error) {
      aim.release();
      if (!(error instanceof NotPossible)) throw error;
      this.#skip(fault, phase, error.message);
      return undefined;
    }
    const number = (this.#numbers += 1);
    const snapshots = await Promise.all(
      [...this.trials].map(async (one) => ({ one, snapshot: await one.view.snapshot(number) })),
    );
    for (const { one, snapshot } of snapshots) this.#narrow(fault, strike, one, snapshot);
    const snapshot = snapshots.find(({ one }) => one === trial)?.snapshot;
    if (snapshot === undefined) throw new Error(`run ${trial.runId} is not followed`);

    const at = Date.now();
    try {
      await strike.strike();
    } catch (error) {
      this.#complain(fault, trial, error);
    }
    if (strike.keepsStill !== true) aim.release();
    const record: FaultRecord = {
      number,
      fault: fault.name,
      phase,
      backend: this.backend,
      run: trial.runId,
      at: new Date(at).toISOString(),
      what: strike.what,
      lostRows: 0,
      lostTokens: 0,
      boundSeconds: boundOf(fault.bound, phase, this.backend),
      overlapped: false,
    };
    const struck: Struck = {
      record,
      fault,
      strike,
      trial,
      snapshot,
      at,
      endedAt: Date.now(),
      healing: heal(strike).catch((error: unknown) => this.#complain(fault, trial, error)),
    };
    const nodesWereHit = (): void => {
      if (fault.scope !== 'cluster') return;
      void this.onNodes(trial.cluster).catch((error: unknown) => {
        this.#complain(fault, trial, error);
      });
    };
    nodesWereHit();
    void struck.healing.then(() => {
      struck.endedAt = Date.now();
      if (strike.heal !== undefined) nodesWereHit();
      if (strike.missed === undefined) return;
      record.missed = strike.missed;
      this.#skip(fault, phase, strike.missed);
    });
    this.struck.push(struck);
    this.log(`#${number} ${fault.name} in ${phase} of ${trial.runId}: ${strike.what}`);
    return struck;
  }

  #skip({ name: fault }: Fault, phase: Phase, reason: string): void {
    this.skipped.push({ fault, phase, reason });
    this.log(`${fault} in ${phase}: ${reason}`);
  }

  /** What a user does in such a case, or after it, did not work. */
  #complain(fault: Fault, trial: Trial, error: unknown): void {
    const message = `${fault.name}: ${error instanceof Error ? error.message : String(error)}`;
    this.violations.push(trial.violation('I6', 'not-mended', message));
    this.log(message);
  }

  /**
   * Leaves as lost only the rows on engines that are hit, where the attempts that they write can be seen. A process
   * of the stack, or an engine that does nothing for a run, costs that run nothing.
   */
  #narrow({ scope }: Fault, strike: Strike, trial: Trial, snapshot: Snapshot): void {
    const hit = (strike.engines ?? []).flatMap((engine) => openAttempts(engine, trial.view));
    const batches = new Set(hit.map((attempt) => attempt.split('/')[0]));
    const ranges = trial.view.batches.filter(({ name }) => batches.has(name));
    snapshot.lost = snapshot.decoding.filter((row) =>
      ranges.some(({ firstRow, rows }) => row >= firstRow && row < firstRow + rows),
    );
    // In a bucket nothing is open: whatever is in work there may be what was hit.
    const seen = trial.view.reader instanceof FolderReader;
    if (scope === 'stack' || strike.engines?.length === 0) snapshot.atRisk = [];
    else if (strike.engines !== undefined && seen) snapshot.atRisk = snapshot.lost;
  }
}

/** Does the campaign's own part of the healing, when it is due. */
async function heal(strike: Strike): Promise<void> {
  if (strike.heal === undefined) return;
  await sleep((strike.holdSeconds ?? 0) * 1000);
  await strike.heal();
}
