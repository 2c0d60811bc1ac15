import type { RunView } from '../store/view.js';
import type { Workload } from '../workload.js';

/**
 * What must hold whatever is killed. I1 every row once and its own answer, I2 nothing torn or half-visible,
 * I3 almost nothing generated twice, I4 nothing left behind, I5 every history replays, I6 recovery in time,
 * I7 no prompt and no secret outside the store.
 */
export type Invariant = 'I1' | 'I2' | 'I3' | 'I4' | 'I5' | 'I6' | 'I7';

/** One thing that does not hold. */
export interface Violation {
  readonly invariant: Invariant;
  /** Stable name, e.g. `row-lost`. */
  readonly code: string;
  readonly message: string;
  readonly run?: string;
}

/** A run with what was asked of it, as the checker sees it. */
export interface Subject {
  readonly runId: string;
  readonly view: RunView;
  readonly workload: Workload;
  /** Whether a cancellation was asked for. */
  readonly cancelled: boolean;
  /** Temporal's status of its workflow at the end. */
  readonly status: string | undefined;
  /** Of the command line that saw its end. */
  readonly exitCode: number | undefined;
  /** What it printed, and what those before it did. */
  readonly output: readonly string[];
}
