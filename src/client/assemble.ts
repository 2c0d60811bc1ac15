import type { BatchHeartbeat, RunState } from '../contracts/run.js';
import type {
  ClusterStatus,
  FleetSlotStatus,
  FleetStatus,
  InferenceStatus,
  RankProgressView,
  RunProgress,
  RunResult,
} from '../contracts/workflows.js';
import { ERRORS } from '../contracts/errors.js';
import { inferenceWorkflowId } from '../contracts/names.js';
import { type Failure, isErrorType } from './errors.js';
import {
  isOver,
  type ClusterView,
  type EngineView,
  type Phase,
  type RunSnapshot,
  type Trouble,
} from './snapshot.js';

/** How a run ended: Temporal's status, and its result or failure. */
export interface Ended {
  readonly status: string;
  readonly result?: RunResult;
  readonly failure?: Failure;
}

/** A rank whose workflow has not ended. */
export interface LiveRank {
  readonly progress: RankProgressView;
  readonly heartbeats: readonly BatchHeartbeat[];
  /** Batches in flight that were tried before. */
  readonly retries: number;
}

/** The last failure of an activity that is being tried again. */
export interface PendingFailure {
  readonly type: string;
  readonly message: string;
}

/** Everything that was seen of a run at one moment; what did not exist yet is absent. */
export interface Observation {
  readonly runId: string;
  readonly startedAt: number;
  readonly at: number;
  readonly build?: string;
  readonly ended?: Ended;
  readonly inference?: InferenceStatus;
  readonly cluster?: ClusterStatus;
  readonly fleet?: FleetStatus;
  readonly run?: RunProgress;
  readonly ranks: readonly LiveRank[];
  /** Of all its workflows. */
  readonly failures: readonly PendingFailure[];
}

/** Puts one snapshot together from what was seen. Pure. */
export function assemble(seen: Observation): RunSnapshot {
  const { runId, startedAt, at, build, ended } = seen;
  const base = { runId, startedAt, at, ...(build !== undefined && { build }) };
  if (ended !== undefined) return { ...base, ...endedSnapshot(ended) };
  const { run, ranks, fleet, cluster } = seen;
  const live = ranks.map((rank) => rank.progress);
  const heartbeats = ranks.flatMap((rank) => rank.heartbeats);
  const plan = run?.plan ?? seen.inference?.plan;
  const done = run?.finished;
  const suspects = sum(live, (rank) => rank.suspects?.length ?? 0);
  return {
    ...base,
    state: stateOf(seen),
    phase: phaseOf(seen),
    doneRows:
      (done?.rows ?? 0) +
      sum(live, ({ rowsDone }) => rowsDone) +
      sum(heartbeats, ({ rowsDone }) => rowsDone),
    failedRows: (done?.failedRows ?? 0) + sum(live, ({ rowsFailed }) => rowsFailed),
    completionTokens:
      (done?.completionTokens ?? 0) +
      sum(live, ({ completionTokens }) => completionTokens) +
      sum(heartbeats, ({ completionTokens }) => completionTokens),
    ranks: plan?.batches.length ?? 0,
    retries: sum(ranks, ({ retries }) => retries),
    troubles: troublesOf(seen, heartbeats),
    engines: (fleet?.slots ?? []).map((slot) => engineView(slot, heartbeats, at)),
    ...(suspects > 0 && { suspects }),
    ...usageOf(runId, fleet),
    ...(plan && { totalRows: plan.rows }),
    ...(cluster && { cluster: clusterView(cluster) }),
  };
}

/** What the fleet holds for a run now. */
function usageOf(runId: string, fleet: FleetStatus | undefined): Pick<RunSnapshot, 'usage'> {
  const found = fleet?.usage?.find(({ user }) => user === inferenceWorkflowId(runId));
  if (found === undefined) return {};
  const { user: _user, ...usage } = found;
  return { usage };
}

/** A run that has ended while the workflow around it still goes on is not over for whoever watches. */
function stateOf({ run, inference }: Observation): RunState {
  if (run === undefined && inference?.paused !== undefined) return 'paused';
  const state = run?.state ?? 'validating';
  if (isOver(state)) return 'finalizing';
  return inference?.cancelling && state !== 'finalizing' ? 'cancelling' : state;
}

function troublesOf(
  { run, inference, ranks, failures }: Observation,
  heartbeats: readonly BatchHeartbeat[],
): Trouble[] {
  const pause = run?.state === 'paused' ? run.problem : inference?.paused;
  if (pause !== undefined) {
    return [
      {
        ...pause,
        count: Math.max(
          1,
          sum(ranks, ({ progress }) => progress.inFlight.length),
        ),
      },
    ];
  }
  // An attempt that keeps its rows for a store that is away has not failed: only its heartbeats tell.
  const waiting = heartbeats.flatMap(({ trouble }) =>
    trouble === undefined ? [] : [{ type: 'StoreUnavailable', message: trouble }],
  );
  const troubles = new Map<string, Trouble>();
  for (const { type, message } of [...failures, ...waiting]) {
    // Alike but for the row, the key or the time that each of them names.
    const kind = type + message.replaceAll(/[\w./-]*\d[\w./-]*/gu, '');
    const known = troubles.get(kind);
    const wayOut = isErrorType(type) ? ERRORS[type].wayOut : undefined;
    troubles.set(kind, {
      ...(known ?? { type, message, ...(wayOut !== undefined && { wayOut }) }),
      count: (known?.count ?? 0) + 1,
    });
  }
  return [...troubles.values()].toSorted((a, b) => b.count - a.count);
}

const STATE_OF_STATUS: Readonly<Record<string, RunState>> = {
  RUNNING: 'in_progress',
  COMPLETED: 'completed',
  CANCELLED: 'cancelled',
  TIMED_OUT: 'expired',
};

/** State of a run by Temporal's status of its workflow alone. */
export const stateOfStatus = (status: string): RunState => STATE_OF_STATUS[status] ?? 'failed';

type EndedSnapshot = Omit<RunSnapshot, 'runId' | 'startedAt' | 'at' | 'build'>;

function endedSnapshot({ status, result, failure }: Ended): EndedSnapshot {
  const output = result?.output;
  const counts = { doneRows: 0, failedRows: 0, completionTokens: 0 };
  return {
    ...counts,
    state: result?.state ?? stateOfStatus(status),
    phase: 'done',
    ranks: 0,
    retries: 0,
    troubles: [],
    engines: [],
    ...(failure && { failure }),
    ...(result?.usage && { usage: result.usage }),
    ...(output && {
      output,
      totalRows: output.rows,
      doneRows: output.rows,
      failedRows: output.failed,
      completionTokens: output.completionTokens,
    }),
  };
}

const PHASES: Readonly<Record<InferenceStatus['phase'], Phase>> = {
  preparing: 'bringing up the cluster',
  'starting-fleet': 'loading engines',
  running: 'generating',
  stopping: 'taking down',
  done: 'done',
};

function phaseOf({ inference, run, cluster }: Observation): Phase {
  if (inference === undefined) return 'starting';
  if (inference.phase === 'preparing' && cluster?.state === 'ready') return 'checking the input';
  if (inference.phase === 'running' && run?.state === 'finalizing') return 'finalizing';
  return PHASES[inference.phase];
}

function clusterView({ name, state, nodes, address }: ClusterStatus): ClusterView {
  return {
    name,
    state,
    nodesUp: nodes.filter((node) => node.state === 'alive').length,
    nodesWanted: nodes.length,
    ...(address && { dashboardUrl: address.dashboardUrl }),
  };
}

function engineView(
  { slot, state, since, restarts, incarnation, problem }: FleetSlotStatus,
  heartbeats: readonly BatchHeartbeat[],
  at: number,
): EngineView {
  const rowsInFlight = sum(
    heartbeats.filter(({ engine }) => slotOf(engine) === slot),
    ({ rows, rowsDone }) => rows - rowsDone,
  );
  const pid = Number(incarnation?.split('-').at(-1));
  return {
    slot,
    state: state === 'ready' && rowsInFlight > 0 ? 'generating' : state,
    rowsInFlight,
    restarts,
    ...(state === 'loading' && { loadingSeconds: Math.max(0, (at - Date.parse(since)) / 1000) }),
    ...(pid > 0 && { pid }),
    ...(state !== 'ready' && problem !== undefined && { reason: problem.message }),
  };
}

/** The slot in an engine's name, `<fleet>/slot-<n>/<incarnation>`. */
function slotOf(engine: string): number | undefined {
  const slot = /\/slot-(\d+)\//u.exec(engine)?.[1];
  return slot === undefined ? undefined : Number(slot);
}

const sum = <T>(items: readonly T[], value: (item: T) => number): number =>
  items.reduce((total, item) => total + value(item), 0);
