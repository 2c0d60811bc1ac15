import type { FinalizeRunResult, RunState } from '../contracts/run.js';
import type { RunUsage } from '../contracts/workflows.js';
import type { Failure } from './errors.js';

/** What a run is doing, in the order in which it happens. */
export type Phase =
  | 'starting'
  | 'bringing up the cluster'
  /** The cluster is up, the input or the engine arguments are not known to be good yet. */
  | 'checking the input'
  | 'loading engines'
  | 'generating'
  | 'finalizing'
  | 'taking down'
  | 'done'
  /** Nobody answers for it: this is what its store says. */
  | 'stored';

/** One engine as a progress display shows it. */
export interface EngineView {
  readonly slot: number;
  /** `placing`, `loading`, `ready`, `generating`, `restarting`, `dead` or `failed`. */
  readonly state: string;
  /** Seconds since it began to load; only while it does. */
  readonly loadingSeconds?: number;
  /** Rows of the batches that it works on. */
  readonly rowsInFlight: number;
  readonly restarts: number;
  readonly pid?: number;
  /** Why it is not healthy. */
  readonly reason?: string;
}

/** Why nothing moves, or not everything does. */
export interface Trouble {
  /** Of the contract's error types when it is known. */
  readonly type: string;
  readonly message: string;
  /** What the user can do, one sentence. */
  readonly wayOut?: string;
  /** How many activities it holds up. */
  readonly count: number;
}

export interface ClusterView {
  readonly name: string;
  readonly state: string;
  readonly nodesUp: number;
  readonly nodesWanted: number;
  readonly dashboardUrl?: string;
}

/** Everything a progress display shows, at one moment. Counts are rows and tokens. */
export interface RunSnapshot {
  readonly runId: string;
  readonly state: RunState;
  readonly phase: Phase;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly at: number;
  /** Of the workers that its workflow is on; absent before its first step, and where workers are unversioned. */
  readonly build?: string;
  /** Unknown until the input is planned. */
  readonly totalRows?: number;
  /** Committed rows and those that heartbeats report: a hint until the run is done. */
  readonly doneRows: number;
  readonly failedRows: number;
  readonly completionTokens: number;
  readonly ranks: number;
  /** Batches that are being tried again. */
  readonly retries: number;
  /** What is being tried again, what holds up most first; when the run pauses, why it does. */
  readonly troubles: readonly Trouble[];
  /** Batches that killed engines and have one for themselves now; absent when there are none. */
  readonly suspects?: number;
  readonly cluster?: ClusterView;
  readonly engines: readonly EngineView[];
  /** What engines were held for it so far; absent before there were any, and of a run that only its store knows. */
  readonly usage?: RunUsage;
  /** When the run is over and wrote results. */
  readonly output?: FinalizeRunResult;
  /** When the run is over and failed. */
  readonly failure?: Failure;
}

const OVER: ReadonlySet<RunState> = new Set(['completed', 'failed', 'expired', 'cancelled']);

/** Whether nothing more is going to happen to a run. */
export const isOver = (state: RunState): boolean => OVER.has(state);
