/**
 * What goes into workflows, updates and queries and what comes out of them. Interfaces only: workflow code
 * imports this file, and no zod may reach a workflow bundle.
 */
import type { ClusterAddress, ClusterSpec } from './cluster.js';
import type { ErrorType } from './errors.js';
import type { FleetSpec } from './fleet.js';
import type { PreemptionNotice } from './preemption.js';
import type { FinalizeRunResult, PlanSummary, RowCounts, RunSpec, RunState } from './run.js';

/** What went wrong, as a person reads it. `type` is of the closed set when it is known. */
export interface Problem {
  readonly type: ErrorType | 'Unknown';
  readonly message: string;
  /** What the user can do about this very one; absent where the type says all there is to say. */
  readonly wayOut?: string;
}

/**
 * Who needs a cluster or fleet. An entity brought up for a user alone is taken down when its last user gives it
 * back; one that was ever ensured without a user, or with `keep`, stays until it is stopped by hand.
 */
export interface UserClaim {
  /** Id of the workflow that needs it; absent when a person asks (`rankflow cluster up`). */
  readonly user?: string;
  /** Leave it running when its users have gone. */
  readonly keep?: boolean;
}

/** Argument of `stopCluster` and `stopFleet`. Without a user it is stopped whoever uses it. */
export interface StopRequest {
  readonly user?: string;
}

export interface StopResult {
  /** False when others still use it, or when it is meant to stay. */
  readonly stopped: boolean;
}

// Cluster: workflow id cluster/<name>

export interface ClusterWorkflowInput {
  readonly spec: ClusterSpec;
  /** What an earlier run of this workflow hands on (continue-as-new); absent at a start. */
  readonly carried?: ClusterCarried;
}

export interface ClusterCarried {
  readonly users: readonly string[];
  readonly owner?: string;
  readonly permanent: boolean;
  readonly everReady: boolean;
  /** Nodes that are going to be taken away. */
  readonly notices?: readonly PreemptionNotice[];
}

/** Argument of the update `ensureCluster`. */
export interface EnsureClusterRequest extends UserClaim {
  readonly spec: ClusterSpec;
}

/** Result of the update `ensureCluster`: the cluster is ready. */
export interface EnsuredCluster {
  readonly address: ClusterAddress;
  /** Whether this user is the one that the cluster was brought up for. */
  readonly startedHere: boolean;
}

export interface ClusterNodeStatus {
  /** `head`, `worker-1`, ...; Ray's node name on a cluster of somebody else. */
  readonly name: string;
  readonly role: 'head' | 'worker';
  /** `draining`: it has notice of preemption. */
  readonly state: 'missing' | 'starting' | 'alive' | 'draining' | 'dead';
  /** ISO 8601 time at which a node with notice goes, also when it has gone before. */
  readonly deadline?: string;
  readonly nodeId?: string;
  readonly ip?: string;
  /** Logical CPUs and GPUs that Ray may place on it. */
  readonly cpus: number;
  readonly gpus: number;
}

/** Result of the query `status` of a cluster. */
export interface ClusterStatus {
  readonly name: string;
  readonly provider: 'local' | 'existing';
  /** What was asked for, so that the same can be asked for again. */
  readonly spec?: ClusterSpec;
  readonly state: 'starting' | 'ready' | 'degraded' | 'stopping' | 'stopped' | 'failed';
  readonly address?: ClusterAddress;
  readonly nodes: readonly ClusterNodeStatus[];
  readonly users: readonly string[];
  /** The last trouble met, also when it is over. */
  readonly problem?: Problem;
}

// Fleet: workflow id fleet/<name>

export interface FleetWorkflowInput {
  readonly spec: FleetSpec;
  readonly carried?: FleetCarried;
}

export interface FleetCarried extends ClusterCarried {
  readonly slots: readonly FleetSlotStatus[];
}

/** Argument of the update `ensureFleet`. With a user the fleet never shrinks; without, it gets exactly this size. */
export interface EnsureFleetRequest extends UserClaim {
  readonly spec: FleetSpec;
}

/** Result of the update `ensureFleet`: `engines` engines answered. */
export interface EnsuredFleet {
  readonly startedHere: boolean;
  readonly engines: number;
}

export interface FleetSlotStatus {
  readonly slot: number;
  /**
   * `placing`: waits for Ray; `loading`: the actor runs, the model loads; `restarting`: Ray restarts it;
   * `draining`: its node has notice of preemption, it takes no more work and another slot replaces it.
   */
  readonly state: 'placing' | 'loading' | 'ready' | 'restarting' | 'draining' | 'dead' | 'failed';
  /** Which ranks it serves with `--affinity rank`: `rank % engines`. Absent: its slot. */
  readonly index?: number;
  /** ISO 8601 time at which the node of a draining slot goes. */
  readonly deadline?: string;
  /** Of a draining slot: that its engine has given back all work, or is gone. */
  readonly drained?: boolean;
  readonly nodeId?: string;
  readonly incarnation?: string;
  /** ISO 8601 time of the last change of `state`. */
  readonly since: string;
  /** Restarts by Ray since the actor was created. */
  readonly restarts: number;
  readonly loadSeconds?: number;
  readonly maxModelLen?: number;
  readonly problem?: Problem;
}

/** Result of the query `status` of a fleet. */
export interface FleetStatus {
  readonly name: string;
  readonly model: string;
  readonly specHash: string;
  readonly cluster: string;
  /** Task queue that the engines pull from. */
  readonly queue: string;
  readonly state: 'starting' | 'ready' | 'degraded' | 'stopping' | 'stopped' | 'failed';
  readonly desired: number;
  readonly ready: number;
  readonly slots: readonly FleetSlotStatus[];
  readonly users: readonly string[];
  readonly problem?: Problem;
}

// Run: workflow id run/<runId>; rank: run/<runId>/rank-<r>

/** The engines a run is generated by. `engines` and `maxConcurrentBatches` size the windows of the ranks. */
export interface RunFleet {
  readonly name: string;
  readonly engines: number;
  readonly maxConcurrentBatches: number;
}

export interface RunWorkflowInput {
  readonly spec: RunSpec;
  readonly specHash: string;
  readonly fleet: RunFleet;
  readonly affinity: 'pull' | 'rank';
}

/** Result of `runWorkflow` and `inferenceWorkflow`. A failed one throws instead. */
export interface RunResult {
  readonly runId: string;
  readonly state: 'completed' | 'cancelled';
  /** Absent when the run was cancelled before its plan was written: there is nothing to assemble. */
  readonly output?: FinalizeRunResult;
}

export interface RankSummary {
  readonly rank: number;
  readonly workflowId: string;
  readonly state: 'waiting' | 'running' | 'completed' | 'failed' | 'cancelled';
  readonly rows: number;
  readonly batches: number;
  /** What the rank generated and found generated; present when it is completed. */
  readonly done?: RowCounts;
  readonly salvagedRows?: number;
  readonly retries?: number;
  /** Why it pauses; absent while it does not. */
  readonly paused?: Problem;
  /** Batches that killed engines and were therefore run on one alone. */
  readonly quarantined?: number;
}

/** Argument of the signal `rankPaused`, which a rank sends its run when it pauses and when it goes on. */
export interface RankPaused {
  readonly rank: number;
  /** Absent when it goes on. */
  readonly problem?: Problem;
}

/** Result of the query `progress` of a run: exact for ranks that are completed; ask the others themselves. */
export interface RunProgress {
  readonly runId: string;
  readonly state: RunState;
  readonly plan?: PlanSummary;
  /** Sum over the completed ranks. */
  readonly finished: RowCounts;
  readonly ranks: readonly RankSummary[];
  readonly output?: FinalizeRunResult;
  readonly problem?: Problem;
}

export interface RankWorkflowInput {
  readonly runId: string;
  readonly store: string;
  readonly specHash: string;
  readonly rank: number;
  /** Number of ranks of the run. */
  readonly ranks: number;
  /** Rows and batches that this rank owns. */
  readonly rows: number;
  readonly batches: number;
  readonly fleet: RunFleet;
  readonly affinity: 'pull' | 'rank';
  /** What an earlier run of this workflow hands on (continue-as-new). */
  readonly carried?: RankCarried;
}

export interface RankCarried {
  readonly salvagedRows: number;
  readonly retries: number;
  readonly quarantined?: number;
}

export interface RankResult {
  readonly rank: number;
  readonly done: RowCounts;
  readonly salvagedRows: number;
  readonly retries: number;
  /** Batches that killed engines and were therefore run on one alone; absent when there were none. */
  readonly quarantined?: number;
}

/** Result of the query `progress` of a rank. Rows count when their batch is committed. */
export interface RankProgressView {
  readonly rank: number;
  readonly rowsTotal: number;
  readonly rowsDone: number;
  readonly rowsFailed: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly batchesDone: number;
  readonly batchesTotal: number;
  /** Numbers of the batches that are queued or being generated. */
  readonly inFlight: readonly number[];
  /** Attempts beyond the first of the batches that are done. */
  readonly retries: number;
  readonly salvagedRows: number;
  /** Numbers of the batches in flight that killed engines and have one for themselves; absent when there are none. */
  readonly suspects?: readonly number[];
}

// Inference: workflow id inference/<runId>

/** Result of the query `status` of an inference workflow. */
export interface InferenceStatus {
  readonly runId: string;
  /** `preparing`: plan, cluster, engine arguments; `stopping`: takes down what it brought up. */
  readonly phase: 'preparing' | 'starting-fleet' | 'running' | 'stopping' | 'done';
  /** Whether somebody asked the run to stop; it may still be in any phase. */
  readonly cancelling?: boolean;
  readonly plan?: PlanSummary;
  /** Why planning pauses; a run that generates tells its own pauses. */
  readonly paused?: Problem;
  readonly problem?: Problem;
}
