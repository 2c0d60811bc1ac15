import type { Violation } from '../checker/violation.js';
import type { Phase } from '../phases.js';
import type { Backend } from '../workload.js';

/** One fault that was injected. Seconds are since the strike; absent: not seen, or nothing to see. */
export interface FaultRecord {
  readonly number: number;
  readonly fault: string;
  readonly phase: Phase;
  readonly backend: Backend;
  readonly run: string;
  /** ISO 8601. */
  readonly at: string;
  readonly what: string;
  /** Rows that were being decoded by the engines hit, and their tokens: the most that it can cost. */
  lostRows: number;
  lostTokens: number;
  /** Until the run did the next thing of its phase: planned, started an attempt, finished a row, published, ended. */
  goesOnSeconds?: number;
  /** Until the batches that it interrupted were committed. */
  batchesSeconds?: number;
  /** Until all engines, nodes and processes were there again. */
  healedSeconds?: number;
  readonly boundSeconds: number;
  /** Whether another fault followed before it was healed. */
  overlapped: boolean;
  /** Why it was not what it is meant to be: then it is in no report. */
  missed?: string;
}

/** One run that was checked. */
export interface RunRecord {
  readonly run: string;
  readonly scenario: string;
  readonly backend: Backend;
  readonly state: string;
  readonly seconds: number;
  readonly rows: number;
  readonly faults: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly lost: number;
  readonly duplicated: number;
  readonly torn: number;
  /** Completion tokens of the answers that count. */
  readonly tokens: number;
  /** Completion tokens of answers that were generated and do not count. */
  readonly redoneTokens: number;
  /** These, and all tokens of rows that were being decoded when their engine was hit: the most it can have been. */
  readonly redoneTokensAtMost: number;
  readonly retries: number;
}

/** What could not be tried, and why. */
export interface Skipped {
  readonly fault: string;
  readonly phase: Phase;
  readonly reason: string;
}

/** The machine-readable report of a campaign. */
export interface Report {
  readonly version: 1;
  readonly seeds: readonly number[];
  readonly startedAt: string;
  readonly seconds: number;
  readonly cores: number;
  readonly faults: readonly FaultRecord[];
  readonly runs: readonly RunRecord[];
  readonly skipped: readonly Skipped[];
  readonly histories: number;
  readonly violations: readonly Violation[];
}
