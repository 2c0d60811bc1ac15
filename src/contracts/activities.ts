/**
 * Activities as workflows see them: one interface for each worker that serves them. Each takes one object, so
 * that fields can be added without breaking histories.
 */
import type { Priority } from '@temporalio/common';

import type { ClusterAddress, ClusterSpec } from './cluster.js';
import type {
  CanaryInput,
  CanaryResult,
  CheckEngineArgumentsInput,
  CheckEngineArgumentsResult,
  ExecuteFleetPlanInput,
  ExecuteFleetPlanResult,
  FleetSpec,
  ObservedEngine,
} from './fleet.js';
import type { InferenceInput } from './inference.js';
import type { DrainInput, DrainResult } from './preemption.js';
import type {
  CheckStoreRoomInput,
  CheckStoreSharedInput,
  FinalizeRunInput,
  FinalizeRunResult,
  GenerateBatchInput,
  GenerateBatchResult,
  PlanRunInput,
  PlanSummary,
  RankProgress,
  RankProgressInput,
  StoreRoom,
  StoreSharedBy,
} from './run.js';
import type { Notification, Occurrence, Retention, ScheduledRun } from './schedule.js';
import type {
  EndedRun,
  EnsureClusterRequest,
  EnsuredCluster,
  EnsuredFleet,
  EnsureFleetRequest,
  Problem,
  PublishedResults,
  RunResult,
  StopResult,
} from './workflows.js';

/** Python control worker, `PYTHON_QUEUE`. */
export interface PythonActivities {
  planRun(input: PlanRunInput): Promise<PlanSummary>;
  rankProgress(input: RankProgressInput): Promise<RankProgress>;
  finalizeRun(input: FinalizeRunInput): Promise<FinalizeRunResult>;
  /** Fails with a `StoreFull` that is worth another try while there is no room. */
  checkStoreRoom(input: CheckStoreRoomInput): Promise<StoreRoom>;
  /** Fails with a final `StoreNotShared` when a node does not see what another host wrote. */
  checkStoreShared(input: CheckStoreSharedInput): Promise<StoreSharedBy>;
  checkEngineArguments(input: CheckEngineArgumentsInput): Promise<CheckEngineArgumentsResult>;
  executeFleetPlan(input: ExecuteFleetPlanInput): Promise<ExecuteFleetPlanResult>;
}

/** An engine: `generateBatch` on the fleet's and the slot's queue, the others on its own. */
export interface EngineActivities {
  generateBatch(input: GenerateBatchInput): Promise<GenerateBatchResult>;
  canary(input: CanaryInput): Promise<CanaryResult>;
  drain(input: DrainInput): Promise<DrainResult>;
}

/** One node as Ray's state API shows it. */
export interface RayNode {
  readonly nodeId: string;
  readonly name: string;
  readonly ip: string;
  readonly head: boolean;
  readonly alive: boolean;
  /** Logical CPUs and GPUs that Ray may place on it. */
  readonly cpus: number;
  readonly gpus: number;
}

/** A node as its host sees it: of a local cluster this one, else one behind ssh. */
export interface LocalProcess {
  readonly name: string;
  /** Whether anything of it runs. */
  readonly running: boolean;
  /** Seconds since it was started; 0 when it never was. */
  readonly ageSeconds: number;
  /** Why its host cannot be asked; the other fields then say nothing. */
  readonly unreachable?: string;
}

export interface ClusterObservation {
  /** Whether Ray's state API answered. */
  readonly reachable: boolean;
  readonly address?: ClusterAddress;
  readonly nodes: readonly RayNode[];
  /** Nodes that were started, also those that have ended. Empty for an existing cluster. */
  readonly processes: readonly LocalProcess[];
  /** Engines on each node, by node id; absent when nobody asked, or Ray did not say. */
  readonly engines?: Readonly<Record<string, number>>;
  /** Ray jobs that wait or run; absent when nobody asked, or Ray did not say. */
  readonly jobs?: number;
  /** Why the state API did not answer. */
  readonly problem?: string;
  /** That waiting does not change it: a wrong token, or an address that is none. */
  readonly refused?: boolean;
}

export interface ObserveClusterInput {
  readonly spec: ClusterSpec;
  /** Of a cluster over ssh: the nodes whose hosts are asked. */
  readonly nodes?: readonly string[];
  /** Of a cluster over ssh: where the head was seen last, should its host not answer. */
  readonly address?: ClusterAddress;
}

export interface LocalNodeInput {
  readonly spec: ClusterSpec;
  /** `head`, `worker-1`, ... */
  readonly node: string;
}

/** A node over ssh. */
export interface NodeInput extends LocalNodeInput {
  /** Where the head is; absent for the head itself. */
  readonly address?: ClusterAddress;
}

/** What is wrong with one node. */
export interface NodeProblem {
  readonly node: string;
  readonly problem: Problem;
}

export interface DrainNodeInput {
  readonly address: ClusterAddress;
  readonly nodeId: string;
  readonly seconds: number;
}

export interface FleetObservation {
  /** Whether Ray's state API answered; without it, what follows is empty. */
  readonly reachable: boolean;
  readonly nodes: readonly RayNode[];
  readonly engines: readonly ObservedEngine[];
  /** Nodes that the cluster's workflow wants and Ray does not have just now. */
  readonly missingNodes?: number;
  /** Ray's ids of the living nodes that are cordoned; absent when the cluster's workflow does not answer. */
  readonly unschedulable?: readonly string[];
  /** Batches that wait for an engine; absent unless the fleet scales or stops by itself. */
  readonly backlog?: number;
  readonly problem?: string;
}

/** Gives back what `ensureCluster` or `ensureFleet` claimed for a user. */
export interface ReleaseInput {
  readonly name: string;
  readonly user: string;
}

export interface PlanOccurrenceInput {
  readonly run: ScheduledRun;
  /** ISO 8601. */
  readonly nominal: string;
}

export interface FindInput {
  readonly input: string;
  /** Tries again while it is not there. */
  readonly wait: boolean;
  /** Fails when it is not there and nobody waits. */
  readonly fail: boolean;
}

export interface PrepareScheduledRunInput {
  readonly run: ScheduledRun;
  readonly occurrence: Occurrence;
  /** ISO 8601. */
  readonly deadline?: string;
}

/** What there is of a run, and how to start it. */
export interface PreparedScheduledRun {
  readonly inference: InferenceInput;
  /** Memo of the inference workflow. */
  readonly memo: unknown;
  readonly priority: Priority;
  readonly running: boolean;
  readonly finished?: RunResult;
}

export interface PublishInput {
  readonly store: string;
  readonly occurrence: Occurrence;
}

export interface PruneInput extends PublishInput {
  readonly retention: Retention;
}

export interface DeliveryInput<Kind extends Notification['kind']> {
  readonly notification: Extract<Notification, { readonly kind: Kind }>;
  readonly delivery: string;
  readonly message: EndedRun & { readonly schedule: string };
}

/** TypeScript control worker, `CONTROL_QUEUE`. All are safe to repeat. */
export interface ControlActivities {
  observeCluster(input: ObserveClusterInput): Promise<ClusterObservation>;
  startLocalNode(input: LocalNodeInput): Promise<void>;
  endLocalNode(input: LocalNodeInput): Promise<void>;
  removeLocalCluster(input: { readonly name: string }): Promise<void>;
  /** Ends a local cluster whose Temporal database is lost: nobody knows what its engines are for. */
  endLostCluster(input: { readonly name: string }): Promise<{ readonly ended: boolean }>;
  /** What keeps nodes over ssh from starting, of all of them at once. Never fails for that. */
  checkNodes(input: {
    readonly spec: ClusterSpec;
    readonly nodes: readonly string[];
  }): Promise<readonly NodeProblem[]>;
  startNode(input: NodeInput): Promise<void>;
  endNode(input: LocalNodeInput): Promise<void>;
  /** Ends all nodes over ssh that can be reached; returns those that cannot. */
  removeNodes(input: {
    readonly spec: ClusterSpec;
    readonly nodes: readonly string[];
  }): Promise<readonly NodeProblem[]>;
  /** Has Ray place nothing more on a node, and tells its engines to be done in time. */
  drainNode(input: DrainNodeInput): Promise<void>;
  observeFleet(input: { readonly spec: FleetSpec }): Promise<FleetObservation>;
  ensureCluster(input: EnsureClusterRequest): Promise<EnsuredCluster>;
  ensureFleet(input: EnsureFleetRequest): Promise<EnsuredFleet>;
  stopCluster(input: ReleaseInput): Promise<StopResult>;
  stopFleet(input: ReleaseInput): Promise<StopResult>;
  planOccurrence(input: PlanOccurrenceInput): Promise<Occurrence>;
  /** Fails with `InputMissing`, which is worth another try when it is to wait. */
  findInput(input: FindInput): Promise<{ readonly found: boolean }>;
  prepareScheduledRun(input: PrepareScheduledRunInput): Promise<PreparedScheduledRun>;
  awaitRun(input: { readonly runId: string }): Promise<RunResult>;
  publishResults(input: PublishInput): Promise<PublishedResults>;
  pruneScheduled(input: PruneInput): Promise<{ readonly removed: readonly string[] }>;
  sendWebhook(input: DeliveryInput<'webhook'>): Promise<void>;
  runNotifyCommand(input: DeliveryInput<'command'>): Promise<void>;
}
