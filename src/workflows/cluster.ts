import {
  ActivityCancellationType,
  ActivityFailure,
  CancellationScope,
  allHandlersFinished,
  condition,
  continueAsNew,
  defineQuery,
  defineSignal,
  defineUpdate,
  isCancellation,
  log,
  patched,
  proxyActivities,
  setCurrentDetails,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';

import type { ClusterObservation, ControlActivities } from '../contracts/activities.js';
import { CONTROL_QUEUE, QUERY, SIGNAL, UPDATE } from '../contracts/names.js';
import type { PreemptionNotice } from '../contracts/preemption.js';
import type {
  ClusterStatus,
  ClusterWorkflowInput,
  EnsureClusterRequest,
  EnsuredCluster,
  Problem,
  StopRequest,
  StopResult,
} from '../contracts/workflows.js';
import { Claims } from './claims.js';
import {
  START_PATIENCE_S,
  describeNodes,
  isOver,
  isReady,
  planCluster,
  type ClusterPlan,
} from './cluster-plan.js';
import { clusterDetails } from './entity-details.js';
import { failureOf, problemOf } from './failures.js';
import { Notices } from './notices.js';
import { A_FEW_TRIES, UNTIL_DONE } from './options.js';
import { beingStopped, otherNodes } from './refusals.js';
import { sameValue } from './same-value.js';

export const clusterStatusQuery = defineQuery<ClusterStatus>(QUERY.status);
export const ensureClusterUpdate = defineUpdate<EnsuredCluster, [EnsureClusterRequest]>(
  UPDATE.ensureCluster,
);
export const stopClusterUpdate = defineUpdate<StopResult, [StopRequest?]>(UPDATE.stopCluster);
export const preemptionNoticeSignal = defineSignal<[PreemptionNotice]>(SIGNAL.preemptionNotice);

type Control<K extends keyof ControlActivities> = Pick<ControlActivities, K>;

const control = proxyActivities<
  Control<'observeCluster' | 'endLocalNode' | 'removeLocalCluster' | 'endLostCluster'>
>({
  taskQueue: CONTROL_QUEUE,
  // A state API that does not answer is given up after 10 s; a node ends within its grace period of 20 s.
  startToCloseTimeout: '2 minutes',
  // Observing never fails, ending is idempotent: only a worker that is away stands in the way.
  retry: UNTIL_DONE,
});

const starting = proxyActivities<Control<'startLocalNode'>>({
  taskQueue: CONTROL_QUEUE,
  // It waits until Ray knows the node, 120 s at most, and ends what does not come up.
  startToCloseTimeout: '5 minutes',
  // It heartbeats every 5 s: a control worker that was restarted takes over soon.
  heartbeatTimeout: '30 seconds',
  // Ports are chosen afresh each time; a node that fails three times does not fail by chance.
  retry: { ...A_FEW_TRIES, nonRetryableErrorTypes: [] },
  // The teardown that follows must not miss a process that is just being started.
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
});

/** Seconds between two looks: soon while something is missing, rarely when all is well. */
const LOOK_SOON = '5 seconds';
const LOOK_RARELY = '30 seconds';

/** Brings up one Ray cluster, keeps it up, and takes it down without a trace. Runs until it is stopped. */
export async function clusterWorkflow(input: ClusterWorkflowInput): Promise<void> {
  const { spec } = input;
  const claims = new Claims(input.carried);
  const notices = new Notices(input.carried?.notices);
  const watching = new CancellationScope();
  let everReady = input.carried?.everReady ?? false;
  let stopping = false;
  let wake = false;
  let failure: Problem | undefined;
  let unreachableSince: number | undefined;
  let observation: ClusterObservation = { reachable: false, nodes: [], processes: [] };
  let problem: Problem | undefined;
  let state: ClusterStatus['state'] = 'starting';

  const status = (): ClusterStatus => ({
    name: spec.name,
    provider: spec.nodes.provider,
    spec,
    state,
    nodes: describeNodes(spec, observation, notices.byNode),
    users: claims.users,
    ...(observation.address && { address: observation.address }),
    ...(problem && { problem }),
  });
  const enter = (next: ClusterStatus['state']): void => {
    state = next;
    setCurrentDetails(clusterDetails(status()));
  };

  setHandler(clusterStatusQuery, status);
  setHandler(
    ensureClusterUpdate,
    async (request) => {
      claims.claim(request);
      await condition(() => state === 'ready' || stopping || failure !== undefined);
      if (failure !== undefined) throw failureOf(failure);
      const { address } = observation;
      if (stopping || address === undefined) throw failureOf(beingStopped(`cluster ${spec.name}`));
      return { address, startedHere: claims.startedFor(request.user) };
    },
    {
      validator: (request) => {
        if (stopping || failure !== undefined)
          throw failureOf(beingStopped(`cluster ${spec.name}`));
        if (sameValue(request.spec, spec)) return;
        throw failureOf(otherNodes(spec, request.spec));
      },
    },
  );
  setHandler(stopClusterUpdate, async (request) => {
    const user = request?.user;
    if (user !== undefined && !claims.release(user)) return { stopped: false };
    stopping = true;
    watching.cancel();
    await condition(() => state === 'stopped' || state === 'failed');
    return { stopped: true };
  });

  setHandler(preemptionNoticeSignal, (notice) => {
    if (!notices.take(notice)) return;
    wake = true;
    setCurrentDetails(clusterDetails(status()));
  });

  const look = async (): Promise<void> => {
    wake = false;
    observation = await control.observeCluster.executeWithOptions(
      { summary: `Look at the nodes of ${spec.name}` },
      [{ spec }],
    );
    unreachableSince = observation.reachable ? undefined : (unreachableSince ?? Date.now());
    notices.forget((notice) => isOver(spec, notice, observation, Date.now()));
    if (isReady(spec, observation, notices.byNode)) {
      everReady = true;
      enter('ready');
      return;
    }
    const unanswered = everReady || spec.nodes.provider === 'existing';
    if (observation.problem !== undefined && unanswered) {
      problem = { type: 'ClusterUnavailable', message: observation.problem };
    }
    enter(everReady ? 'degraded' : 'starting');
  };

  /** Returns whether all of it worked. */
  const execute = async (plan: ClusterPlan): Promise<boolean> => {
    const end = plan.end.map((node) =>
      control.endLocalNode.executeWithOptions({ summary: `End node ${node}` }, [{ spec, node }]),
    );
    await Promise.all(end);
    const start = plan.start.map((node) =>
      starting.startLocalNode.executeWithOptions({ summary: `Start node ${node}` }, [
        { spec, node },
      ]),
    );
    const results = await Promise.allSettled(start);
    for (const result of results) {
      if (result.status === 'fulfilled') continue;
      if (!(result.reason instanceof ActivityFailure) || isCancellation(result.reason)) {
        throw result.reason;
      }
      problem = problemOf(result.reason);
      log.error('a node did not start', { ...problem });
      // A cluster that has never been up will not come up by trying; one that was may.
      if (!everReady) failure = problem;
    }
    return results.every((result) => result.status === 'fulfilled');
  };

  /** What a lost database left here is nobody's: engines of fleets that no workflow knows. */
  const endLost = async (): Promise<void> => {
    if (spec.nodes.provider !== 'local' || input.carried !== undefined) return;
    if (!patched('end-lost-cluster')) return;
    const options = { summary: 'End what a lost Temporal database left running' };
    const { ended } = await control.endLostCluster.executeWithOptions(options, [
      { name: spec.name },
    ]);
    if (ended) log.warn('ended nodes that another Temporal database had started');
  };

  const watch = async (): Promise<void> => {
    await endLost();
    while (!stopping && failure === undefined) {
      await look();
      const blind = unreachableSince === undefined ? 0 : (Date.now() - unreachableSince) / 1000;
      const plan = planCluster(spec, observation, blind, notices.byNode, Date.now());
      if (spec.nodes.provider === 'existing' && !everReady && blind > START_PATIENCE_S) {
        failure = {
          type: 'ClusterStartFailed',
          message: `cluster ${spec.name} does not answer: ${observation.problem ?? 'it has no nodes'}`,
        };
      }
      const idle = plan.end.length + plan.start.length === 0;
      const progressed = !idle && (await execute(plan));
      if (!progressed && failure === undefined) {
        await condition(() => stopping || wake, state === 'ready' ? LOOK_RARELY : LOOK_SOON);
      }
      // Updates in flight would be lost: the history has room to wait for them.
      if (workflowInfo().continueAsNewSuggested && allHandlersFinished()) return;
    }
  };

  try {
    await watching.run(watch);
  } catch (error) {
    if (!isCancellation(error)) throw error;
    stopping = true;
  }
  if (!stopping && failure === undefined) {
    const carried = { ...claims.carried(), ...notices.carried(), everReady };
    await continueAsNew<typeof clusterWorkflow>({ spec, carried });
  }
  await CancellationScope.nonCancellable(async () => {
    enter('stopping');
    if (spec.nodes.provider === 'local') {
      await control.removeLocalCluster.executeWithOptions(
        { summary: 'End all nodes and remove their temporary files' },
        [{ name: spec.name }],
      );
    }
    observation = { reachable: false, nodes: [], processes: [] };
    enter(failure === undefined ? 'stopped' : 'failed');
    await condition(allHandlersFinished);
  });
  if (failure !== undefined) throw failureOf({ ...failure });
}
