/**
 * What goes into workflows, updates and queries and what comes out of them. Interfaces only: workflow code
 * imports this file, and no zod may reach a workflow bundle.
 */
import type { ClusterAddress, ClusterSpec, SshNode, SshProvider } from './cluster.js';
import type { ErrorType } from './errors.js';
import type { FleetScaling, FleetSpec } from './fleet.js';
import type { PreemptionNotice } from './preemption.js';
import type { Notification } from './schedule.js';
import type {
  FinalizeRunResult,
  PlanSummary,
  RedoneWork,
  RowCounts,
  RunSpec,
  RunState,
} from './run.js';

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
  /** Nodes over ssh that could not be ended, as their hosts do not answer. */
  readonly left?: readonly { readonly node: string; readonly problem: Problem }[];
  /** Of a fleet: what it held for the user who gives it back. */
  readonly usage?: FleetUsage;
}

/** How long engines were held on one node, in seconds times engines. */
export interface NodeUsage {
  /** What Ray calls the node. */
  readonly node: string;
  readonly loadingSeconds: number;
  /** Of these: in the place of engines whose node was taken away with notice; absent when there were none. */
  readonly reloadingSeconds?: number;
  readonly readySeconds: number;
  /** After notice that the node is taken away, or because the fleet was made smaller. */
  readonly drainingSeconds: number;
}

/** What the engines of a fleet were held for somebody; time that several used them counts in equal parts. */
export interface FleetUsage {
  readonly nodes: readonly NodeUsage[];
  /** Engines whose node was taken away with notice; absent when there were none. */
  readonly preemptions?: number;
}

export interface UserUsage extends FleetUsage {
  /** Id of a workflow. */
  readonly user: string;
}

export interface UsageCarried {
  readonly users: readonly UserUsage[];
  /** Milliseconds since the epoch, up to which it is counted. */
  readonly until?: number;
  /** What people call the nodes, by Ray's ids. */
  readonly names?: Readonly<Record<string, string>>;
}

/** What the engines of a run were held for it. */
export interface RunUsage extends FleetUsage {
  /** Seconds from the first batch to the end of its assembly; absent while it goes on. */
  readonly generateSeconds?: number;
  /** What engines were given more than once; absent when there was nothing, or while it goes on. */
  readonly redone?: RedoneWork;
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
  /** Cordoned nodes: of a cluster their names, of a fleet Ray's ids as it saw them last. */
  readonly unschedulable?: readonly string[];
  /** Of a fleet: slots that were asked of Ray since it was looked at last. */
  readonly started?: readonly number[];
  /** Of a cluster over ssh. */
  readonly members?: MembersState;
  readonly history?: ClusterHistoryState;
  /** Where the head was seen last. */
  readonly address?: ClusterAddress;
  /** Since when nobody has used it (milliseconds since the epoch); absent while somebody does. */
  readonly idleSince?: number;
}

/** How often a node over ssh has failed, and why it did last. */
export interface NodeTrouble {
  readonly failures: number;
  /** Milliseconds since the epoch. */
  readonly lastAt: number;
  readonly problem: Problem;
}

/** Which of its hosts a cluster over ssh uses. */
export interface MembersState {
  /** The nodes of the cluster as updates have changed them. */
  readonly nodes: SshProvider;
  /** Worker nodes that are wanted, by name. */
  readonly active: readonly string[];
  /** No longer wanted, and still to be ended. */
  readonly leaving: readonly string[];
  /** Draining nodes, and when they are to go (milliseconds since the epoch). */
  readonly drains: readonly (readonly [name: string, deadline: number])[];
  readonly troubles: readonly (readonly [name: string, trouble: NodeTrouble])[];
  /** Drained nodes, which are left out until they are added again. */
  readonly cordoned?: readonly string[];
  /** Removed nodes that are still to be ended. */
  readonly gone?: readonly SshNode[];
}

export interface ClusterEvent {
  /** ISO 8601. */
  readonly at: string;
  readonly node?: string;
  readonly what: string;
}

export interface ClusterHistoryState {
  readonly events: readonly ClusterEvent[];
  /** State of each node, and since when (ISO 8601). */
  readonly states: readonly (readonly [name: string, state: string, since: string])[];
}

/** Argument of the update `changeNodes`: what is to be different. Only for clusters over ssh, but for `count`. */
export interface ChangeNodesRequest {
  /** Nodes to add; each new one is wanted besides those that are. One that is there is tried again. */
  readonly add?: readonly SshNode[];
  /** What is added is a spare. */
  readonly spare?: boolean;
  /** Names of nodes to end and forget. */
  readonly remove?: readonly string[];
  /** Nodes whose engines are to be done in so many seconds; then they are ended. */
  readonly drain?: { readonly nodes: readonly string[]; readonly seconds: number };
  /** How many worker nodes are wanted. */
  readonly count?: number;
}

export interface ChangeNodesResult {
  /** Names of the worker nodes that are wanted now. */
  readonly active: readonly string[];
  readonly spares: readonly string[];
}

/** Argument of the update `cordonNodes`: nodes that are to get nothing new, or are to get it again. */
export interface CordonRequest {
  /** Names of nodes, the head included. */
  readonly nodes: readonly string[];
  readonly unschedulable: boolean;
}

export interface CordonResult {
  /** Of the nodes of the request those that were not so before. */
  readonly changed: readonly string[];
  /** Names of all nodes that get nothing new now. */
  readonly unschedulable: readonly string[];
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
  /**
   * `draining`: it has notice of preemption, or is being drained; `unreachable`: its host does not answer; `failed`:
   * it has failed too often; `spare`: it is not wanted while others are well; `drained`: it is left out until it is added
   * again.
   */
  readonly state:
    | 'missing'
    | 'starting'
    | 'alive'
    | 'draining'
    | 'dead'
    | 'unreachable'
    | 'failed'
    | 'spare'
    | 'drained';
  /** ISO 8601 time at which a node with notice goes, also when it has gone before. */
  readonly deadline?: string;
  readonly nodeId?: string;
  readonly ip?: string;
  /** Logical CPUs and GPUs that Ray may place on it. */
  readonly cpus: number;
  readonly gpus: number;
  /** What ssh calls its host. */
  readonly host?: string;
  /** Engines on it; absent when nobody asked. */
  readonly engines?: number;
  /** That it is cordoned: it stays as it is, and gets no new engine and no entrypoint of a job. */
  readonly unschedulable?: true;
  /** ISO 8601 time of the last change of `state`. */
  readonly since?: string;
  readonly problem?: Problem;
}

/** Result of the query `status` of a cluster. */
export interface ClusterStatus {
  readonly name: string;
  readonly provider: 'local' | 'existing' | 'ssh';
  /** What was asked for, so that the same can be asked for again. */
  readonly spec?: ClusterSpec;
  readonly state: 'starting' | 'ready' | 'degraded' | 'stopping' | 'stopped' | 'failed';
  readonly address?: ClusterAddress;
  readonly nodes: readonly ClusterNodeStatus[];
  /** Names of the cordoned nodes, also of those that are away; absent when there are none. */
  readonly unschedulable?: readonly string[];
  readonly users: readonly string[];
  /** The last trouble met, also when it is over. */
  readonly problem?: Problem;
  /** What happened last, oldest first. */
  readonly events?: readonly ClusterEvent[];
  /** Of a cluster over ssh: what it was asked for. */
  readonly asked?: SshProvider;
}

// Fleet: workflow id fleet/<name>

export interface FleetWorkflowInput {
  readonly spec: FleetSpec;
  readonly carried?: FleetCarried;
}

export interface FleetCarried extends ClusterCarried {
  readonly slots: readonly FleetSlotStatus[];
  readonly steps?: readonly ScalingStep[];
  readonly draining?: boolean;
  readonly usage?: UsageCarried;
}

/** Argument of the update `scaleFleet` and, beside a plain number, of the signal `scale`. One of the two. */
export interface ScaleRequest {
  /** So many engines from now on; ends scaling by itself. */
  readonly engines?: number;
  /** Lets the fleet scale by itself from now on. */
  readonly scaling?: FleetScaling;
}

/** Argument of the update `drainFleet`. */
export interface DrainRequest {
  /** Seconds after which rows that are not finished go back. */
  readonly graceSeconds?: number;
}

/** Result of the update `scaleFleet`: what is asked for from now on. */
export interface ScaledFleet {
  readonly before: number;
  readonly engines: number;
}

/** One change of the desired number of engines. */
export interface ScalingStep {
  /** ISO 8601. */
  readonly at: string;
  readonly from: number;
  readonly to: number;
  /** As a person reads it. */
  readonly reason: string;
}

/** Argument of the signal `fleetSize`: engines that a fleet is to have from now on. */
export interface FleetSize {
  readonly engines: number;
  /** As many may help; 0 of a fleet that does not scale by itself. Absent from older versions: it is as it was. */
  readonly maxEngines?: number;
}

/** Argument of the signal `fleetReady`: engines that answer, of those that the fleet is to have. */
export interface FleetReady {
  readonly ready: number;
  readonly desired: number;
}

/** Argument of the update `ensureFleet`. With a user the fleet never shrinks; without, it gets exactly this size. */
export interface EnsureFleetRequest extends UserClaim {
  readonly spec: FleetSpec;
}

/** Result of the update `ensureFleet`: `engines` engines answered. */
export interface EnsuredFleet {
  readonly startedHere: boolean;
  readonly engines: number;
  /** Engines that the fleet is to have in all. */
  readonly desired?: number;
  /** Of a fleet that scales by itself, whoever had it do so. */
  readonly maxEngines?: number;
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
  /** That it stands in for one whose node is taken away, and has not been ready yet. */
  readonly replaces?: true;
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
  /** Batches in work when it was last asked; only of engines that say so. */
  readonly batches?: number;
  /** `host:port` where its engine serves metrics; absent when it serves none. */
  readonly metrics?: string;
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
  /** Present when it scales by itself. */
  readonly scaling?: FleetScaling;
  readonly idleTimeoutSeconds?: number;
  /** Batches that wait for an engine, when somebody looks at them. */
  readonly backlog?: number;
  /** Its last changes of size, the newest last; absent when there were none. */
  readonly steps?: readonly ScalingStep[];
  /** What it has held for those who use it now. */
  readonly usage?: readonly UserUsage[];
  /** The last one, also when it is over, and when it was last so (ISO 8601; absent in fleets of older versions). */
  readonly problem?: Problem & { readonly at?: string };
}

// Run: workflow id run/<runId>; rank: run/<runId>/rank-<r>

/** The engines a run is generated by, and what sizes the windows of the ranks. */
export interface RunFleet {
  readonly name: string;
  readonly engines: number;
  readonly maxConcurrentBatches: number;
  /** Rows that one engine may have in work at once. Absent in inputs of older versions. */
  readonly rowsPerEngine?: number | undefined;
  /** Of a fleet that scales by itself: as many may help. Absent or 0: it does not. */
  readonly maxEngines?: number;
}

/** What is asked of a run while it goes on: `pause` waits, `drain` ends it after the batches in flight. */
export type Hold = 'none' | 'pause' | 'drain';

/** Argument of the update `steerRun`. */
export interface SteerRequest {
  readonly action: 'pause' | 'resume' | 'drain';
  /** With `pause`: gives up the rows in flight instead of letting their batches finish. */
  readonly now?: boolean;
}

/** Argument of the signal `hold`. */
export interface HoldRequest {
  readonly hold: Hold;
  readonly now?: boolean;
}

export interface RunWorkflowInput {
  readonly spec: RunSpec;
  readonly specHash: string;
  readonly fleet: RunFleet;
  readonly affinity: 'pull' | 'rank';
  /** ISO 8601 time at which it expires. */
  readonly deadline?: string;
  /** What was asked of the run before it began. */
  readonly hold?: Hold;
}

/** Result of `runWorkflow` and `inferenceWorkflow`. A failed one throws instead. */
export interface RunResult {
  readonly runId: string;
  readonly state: 'completed' | 'cancelled' | 'expired';
  /** Absent when the run was cancelled before its plan was written: there is nothing to assemble. */
  readonly output?: FinalizeRunResult;
  /** Of this execution, of an `inferenceWorkflow` that had engines. */
  readonly usage?: RunUsage;
  /** Of a `runWorkflow`, in this execution; absent when there was nothing. */
  readonly redone?: RedoneWork;
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
  /** What engines were given more than once; present when it is completed and there was something. */
  readonly redone?: RedoneWork;
}

/** Argument of the signal `rankPaused`, which a rank sends its run when it pauses and when it goes on. */
export interface RankPaused {
  readonly rank: number;
  /** Absent when it goes on. */
  readonly problem?: Problem;
}

/** How far a rank or a run is, as others are told now and then: for people, as it may be late or get lost. */
export interface LiveNumbers {
  readonly done: RowCounts;
  /** Completion tokens per second; 0 while nobody can tell. */
  readonly tokensPerSecond: number;
}

/** Argument of the signal `rankNumbers`, which a rank sends its run. */
export interface RankNumbers extends LiveNumbers {
  readonly rank: number;
}

/** Argument of the signal `runNumbers`, which a run sends its inference. */
export interface RunNumbers extends LiveNumbers {
  /** When the rank at work told its numbers that did so longest ago (ISO 8601); absent while none has. */
  readonly at?: string;
  /** Why the run pauses; absent while it does not. */
  readonly problem?: Problem;
  /** Grows with each telling: signals that are sent together may arrive in any order. */
  readonly order?: number;
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
  /** What was asked of the run before the rank began. */
  readonly hold?: Hold;
  /** What an earlier run of this workflow hands on (continue-as-new). */
  readonly carried?: RankCarried;
}

export interface RankCarried {
  readonly salvagedRows: number;
  readonly retries: number;
  readonly quarantined?: number;
  readonly redone?: RedoneWork;
  readonly hold?: Hold;
  /** Milliseconds since the epoch at which the first history began, and at which the run was last told numbers. */
  readonly began?: number;
  readonly toldAt?: number;
}

export interface RankResult {
  readonly rank: number;
  readonly done: RowCounts;
  readonly salvagedRows: number;
  readonly retries: number;
  /** Batches that killed engines and were therefore run on one alone; absent when there were none. */
  readonly quarantined?: number;
  /** What engines were given more than once; absent when there was nothing. */
  readonly redone?: RedoneWork;
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
  /** What was asked of the run; absent when nothing was. */
  readonly hold?: Hold;
  readonly plan?: PlanSummary;
  /** Why planning pauses; a run that generates tells its own pauses. */
  readonly paused?: Problem;
  readonly problem?: Problem;
}

// Scheduled run: workflow id scheduled/<schedule>-<time>; notifications: notify/<schedule>/<runId>/<start>

/** Result of the query `status` of a scheduled run. */
export interface ScheduledStatus {
  readonly schedule: string;
  readonly phase: 'planning' | 'waiting for input' | 'running' | 'publishing' | 'done';
  readonly runId?: string;
  readonly date?: string;
  /** ISO 8601 time that it is for. */
  readonly nominal?: string;
  readonly state?: ScheduledResult['state'] | 'failed';
  readonly problem?: Problem;
}

/** Where results were copied to; absent when nobody asked for it. */
export interface PublishedResults {
  readonly publishedUri?: string;
  /** Only when rows failed. */
  readonly publishedErrorsUri?: string;
}

/** Result of `scheduledRunWorkflow`. One that failed throws instead. */
export interface ScheduledResult extends PublishedResults {
  readonly runId: string;
  readonly date: string;
  readonly nominal: string;
  readonly state: RunResult['state'] | 'skipped';
  readonly output?: FinalizeRunResult;
  /** Runs whose outputs were removed because they were too old. */
  readonly removed?: readonly string[];
}

/** How a scheduled run ended, as others are told. */
export type EndedRun = Omit<ScheduledResult, 'state'> & {
  readonly state: ScheduledResult['state'] | 'failed';
  readonly problem?: Problem;
};

export interface NotifyInput {
  readonly schedule: string;
  /** The same for each try, so that a receiver knows one that it had already. */
  readonly delivery: string;
  readonly notify: readonly Notification[];
  readonly result: EndedRun;
}

export interface NotifyResult {
  readonly outcomes: readonly {
    readonly where: string;
    readonly delivered: boolean;
    readonly problem?: Problem;
  }[];
}
