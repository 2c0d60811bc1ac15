import {
  ActivityCancellationType,
  ActivityFailure,
  CancellationScope,
  allHandlersFinished,
  condition,
  makeContinueAsNewFunc,
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

import type {
  ClusterObservation,
  ControlActivities,
  NodeProblem,
} from '../contracts/activities.js';
import { CONTROL_QUEUE, QUERY, SIGNAL, UPDATE } from '../contracts/names.js';
import type { PreemptionNotice } from '../contracts/preemption.js';
import type {
  ChangeNodesRequest,
  ChangeNodesResult,
  ClusterNodeStatus,
  ClusterStatus,
  ClusterWorkflowInput,
  CordonRequest,
  CordonResult,
  EnsureClusterRequest,
  EnsuredCluster,
  Problem,
  StopRequest,
  StopResult,
} from '../contracts/workflows.js';
import { Claims } from './claims.js';
import { ClusterHistory } from './cluster-history.js';
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
import { Idle } from './idle.js';
import { HEAD } from './names.js';
import { Attributes } from './attributes.js';
import { countPreemption, expectPreemptions } from './counters.js';
import { Notices } from './notices.js';
import { A_FEW_TRIES, UNTIL_DONE } from './options.js';
import { beingStopped, notChanged, notCordoned, notReached, otherNodes } from './refusals.js';
import { sameValue } from './same-value.js';
import { SshNodes } from './ssh-nodes.js';
import { Unschedulable } from './unschedulable.js';
import { Builds } from './upgrade.js';

export const clusterStatusQuery = defineQuery<ClusterStatus>(QUERY.status);
export const ensureClusterUpdate = defineUpdate<EnsuredCluster, [EnsureClusterRequest]>(
  UPDATE.ensureCluster,
);
export const stopClusterUpdate = defineUpdate<StopResult, [StopRequest?]>(UPDATE.stopCluster);
export const changeNodesUpdate = defineUpdate<ChangeNodesResult, [ChangeNodesRequest]>(
  UPDATE.changeNodes,
);
export const cordonNodesUpdate = defineUpdate<CordonResult, [CordonRequest]>(UPDATE.cordonNodes);
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

/** A head that ends so often before its cluster was ever up does not end by chance. */
const MOST_LOST_HEADS = 5;

/** Seconds between two looks: soon while something is missing, rarely when all is well. */
const LOOK_SOON = '5 seconds';
const LOOK_RARELY = '30 seconds';

/** Brings up one Ray cluster, keeps it up, and takes it down without a trace. Runs until it is stopped. */
export async function clusterWorkflow(input: ClusterWorkflowInput): Promise<void> {
  const { spec } = input;
  const claims = new Claims(input.carried);
  const notices = new Notices(input.carried?.notices);
  const unschedulable = new Unschedulable(input.carried?.unschedulable);
  const history = new ClusterHistory(input.carried?.history);
  const hosts =
    spec.nodes.provider === 'ssh'
      ? new SshNodes(spec.name, spec.nodes, history, input.carried)
      : undefined;
  const attributes = new Attributes();
  const builds = new Builds();
  expectPreemptions(spec.name);
  const idle = new Idle(
    spec.nodes.provider === 'ssh' ? spec.nodes.idleMinutes : undefined,
    input.carried?.idleSince,
  );
  const watching = new CancellationScope();
  let everReady = input.carried?.everReady ?? false;
  /** Heads that ended under nodes that were joining them. */
  let lostHeads = 0;
  let stopping = false;
  let wake = false;
  let failure: Problem | undefined;
  let unreachableSince: number | undefined;
  let observation: ClusterObservation = { reachable: false, nodes: [], processes: [] };
  let problem: Problem | undefined;
  let state: ClusterStatus['state'] = 'starting';
  let left: readonly NodeProblem[] = [];

  const rows = (): ClusterNodeStatus[] =>
    describeNodes(spec, observation, notices.byNode, hosts?.members, Date.now()).map((row) => {
      const since = history.sinceOf(row.name);
      const cordoned = unschedulable.has(row.name) && ({ unschedulable: true } as const);
      return { ...row, ...cordoned, ...(since !== undefined && { since }) };
    });
  const status = (): ClusterStatus => ({
    name: spec.name,
    provider: spec.nodes.provider,
    spec,
    state,
    nodes: rows(),
    ...unschedulable.carried(),
    users: claims.users,
    ...(observation.address && { address: observation.address }),
    ...(problem && { problem }),
    events: history.events,
    ...(spec.nodes.provider === 'ssh' && { asked: spec.nodes }),
  });
  const enter = (next: ClusterStatus['state']): void => {
    state = next;
    attributes.set({ state });
    setCurrentDetails(clusterDetails(status()));
  };

  setHandler(clusterStatusQuery, status);
  setHandler(
    ensureClusterUpdate,
    async (request) => {
      const anew = claims.claim(request);
      if (hosts !== undefined && state !== 'ready') {
        // A job that is submitted again after each loss would undo every wait for a node that keeps failing.
        if (anew || !patched('forgive-who-asks-anew')) hosts.forgive();
        wake = true;
      }
      await condition(
        () =>
          state === 'ready' || stopping || failure !== undefined || hosts?.blocked !== undefined,
      );
      if (failure !== undefined) throw failureOf(failure);
      if (state !== 'ready' && hosts?.blocked !== undefined) {
        // Who is on it already goes on with the nodes that are left; the others join when their machines are back.
        const goesOn = !anew && everReady && observation.reachable;
        if (!goesOn || !patched('serve-degraded')) throw failureOf(hosts.blocked);
      }
      const { address } = observation;
      if (stopping || address === undefined) throw failureOf(beingStopped(`cluster ${spec.name}`));
      return { address, startedHere: claims.startedFor(request.user) };
    },
    {
      validator: (request) => {
        if (stopping || failure !== undefined)
          throw failureOf(beingStopped(`cluster ${spec.name}`));
        if (sameValue(request.spec, spec) || hosts?.isAs(request.spec)) return;
        throw failureOf(otherNodes(hosts?.present ?? spec, request.spec));
      },
    },
  );
  setHandler(stopClusterUpdate, async (request) => {
    const user = request?.user;
    if (user !== undefined && !claims.release(user)) return { stopped: false };
    stopping = true;
    watching.cancel();
    await condition(() => state === 'stopped' || state === 'failed');
    return { stopped: true, ...(left.length > 0 && { left }) };
  });
  setHandler(
    changeNodesUpdate,
    async (request) => {
      if (hosts === undefined)
        throw failureOf(notChanged(spec.name, 'its nodes are not on hosts over ssh'));
      // Named again, as by a file with one host more, a node stays as it is; one that was left out comes back as new.
      const { members } = hosts;
      const anew = (request.add ?? []).map(({ name }) => name).filter((n) => members.isCordoned(n));
      for (const node of unschedulable.forget([...anew, ...(request.remove ?? [])])) {
        history.note('is uncordoned', Date.now(), node);
      }
      const result = await hosts.change(request, rows());
      wake = true;
      return result;
    },
    {
      validator: (request) => {
        if (stopping || failure !== undefined)
          throw failureOf(beingStopped(`cluster ${spec.name}`));
        const why = hosts?.members.refusal(request);
        if (hosts === undefined) {
          throw failureOf(notChanged(spec.name, 'only one over ssh has nodes that come and go'));
        }
        if (why !== undefined) throw failureOf(notChanged(spec.name, why));
      },
    },
  );

  /** Names of the nodes that it has or may have: over ssh also of its spares. */
  const nodeNames = (): string[] =>
    hosts === undefined
      ? [...new Set(rows().map(({ name }) => name))]
      : [HEAD, ...hosts.members.nodes.workers.map(({ name }) => name)];
  setHandler(
    cordonNodesUpdate,
    (request) => {
      const result = unschedulable.change(request);
      for (const node of result.changed) {
        history.note(request.unschedulable ? 'is cordoned' : 'is uncordoned', Date.now(), node);
      }
      setCurrentDetails(clusterDetails(status()));
      return result;
    },
    {
      validator: (request) => {
        if (stopping || failure !== undefined)
          throw failureOf(beingStopped(`cluster ${spec.name}`));
        const why = unschedulable.refusal(request, nodeNames());
        if (why !== undefined) throw failureOf(notCordoned(spec.name, why));
      },
    },
  );

  setHandler(preemptionNoticeSignal, (notice) => {
    const first = !notices.byNode.has(notice.nodeId);
    if (!notices.take(notice)) return;
    if (first) countPreemption(spec.name);
    wake = true;
    setCurrentDetails(clusterDetails(status()));
  });

  const look = async (): Promise<void> => {
    wake = false;
    observation = await control.observeCluster.executeWithOptions(
      { summary: `Look at the nodes of ${spec.name}` },
      [hosts?.observeInput ?? { spec }],
    );
    if (hosts === undefined) history.see(rows(), Date.now());
    else hosts.learn(rows(), observation);
    unreachableSince = observation.reachable ? undefined : (unreachableSince ?? Date.now());
    notices.forget((notice) => isOver(spec, notice, observation, Date.now()));
    if (isReady(spec, observation, notices.byNode, hosts?.members)) {
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

  /** Takes in a problem with a node over ssh. */
  const meet = (met: Problem | undefined): void => {
    if (met === undefined) return;
    problem = met;
    // Without a head nothing can be continued.
    const headFailed = hosts?.members.stuck(Date.now()).some(({ node }) => node === HEAD);
    if (!everReady && headFailed) failure ??= met;
  };

  /** Returns whether all of it worked and is over. */
  const execute = async (plan: ClusterPlan): Promise<boolean> => {
    if (hosts !== undefined) {
      const met = await hosts.execute(plan, (problemOfStart) => {
        meet(problemOfStart);
        wake = true;
      });
      meet(met);
      return met === undefined && !hosts.isStarting;
    }
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
      // The head goes first: the next look sees that it has to be started again.
      if (problem.type === 'ClusterUnavailable' && (lostHeads += 1) < MOST_LOST_HEADS) continue;
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
    if (hosts !== undefined && input.carried === undefined) failure = await hosts.check();
    while (!stopping && failure === undefined) {
      await look();
      const blind = unreachableSince === undefined ? 0 : (Date.now() - unreachableSince) / 1000;
      if (idle.see(observation, claims.users.length, Date.now())) {
        history.note('goes, as nobody has used it', Date.now());
        stopping = true;
        return;
      }
      const now = Date.now();
      const plan = planCluster(spec, observation, blind, notices.byNode, now, hosts?.members);
      const { refused = false } = observation;
      if (spec.nodes.provider === 'existing' && !everReady) {
        if (refused || blind > START_PATIENCE_S) failure = notReached(spec.name, observation);
      }
      const settledPlan = plan.end.length + plan.start.length === 0;
      const progressed = !settledPlan && (await execute(plan));
      if (!progressed && failure === undefined) {
        const settled = state === 'ready' || hosts?.blocked !== undefined || hosts?.waitsLong;
        await condition(() => stopping || wake, settled ? LOOK_RARELY : LOOK_SOON, {
          summary: 'Look at the nodes again',
        });
      }
      // Updates and starts in flight would be lost: the history has room to wait for them.
      const anew = workflowInfo().continueAsNewSuggested || builds.changed;
      if (anew && allHandlersFinished() && !hosts?.isStarting) return;
    }
  };

  try {
    await watching.run(watch);
  } catch (error) {
    if (!isCancellation(error)) throw error;
    stopping = true;
  }
  if (!stopping && failure === undefined) {
    const carried = {
      ...{ ...claims.carried(), ...notices.carried(), ...history.carried(), everReady },
      ...unschedulable.carried(),
      ...{ ...hosts?.carried(), ...idle.carried() },
    };
    const options = attributes.startingWith({ cluster: spec.name, state });
    await makeContinueAsNewFunc<typeof clusterWorkflow>(options)({ spec, carried });
  }
  await CancellationScope.nonCancellable(async () => {
    enter('stopping');
    if (spec.nodes.provider === 'local') {
      await control.removeLocalCluster.executeWithOptions(
        { summary: 'End all nodes and remove their temporary files' },
        [{ name: spec.name }],
      );
    }
    if (hosts !== undefined) {
      await hosts.endStarts();
      left = await hosts.remove();
    }
    observation = { reachable: false, nodes: [], processes: [] };
    enter(failure === undefined ? 'stopped' : 'failed');
    await condition(allHandlersFinished);
  });
  if (failure !== undefined) throw failureOf({ ...failure });
}
