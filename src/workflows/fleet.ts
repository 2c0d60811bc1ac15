import {
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

import type {
  ControlActivities,
  FleetObservation,
  PythonActivities,
} from '../contracts/activities.js';
import { ERRORS } from '../contracts/errors.js';
import type { FleetSpec } from '../contracts/fleet.js';
import {
  CONTROL_QUEUE,
  PYTHON_QUEUE,
  QUERY,
  SIGNAL,
  UPDATE,
  fleetQueue,
} from '../contracts/names.js';
import type { PreemptionNotice } from '../contracts/preemption.js';
import type {
  EnsureFleetRequest,
  EnsuredFleet,
  FleetSlotStatus,
  FleetStatus,
  FleetWorkflowInput,
  Problem,
  StopRequest,
  StopResult,
} from '../contracts/workflows.js';
import { Canaries } from './canary.js';
import { Claims } from './claims.js';
import { Drains } from './drains.js';
import { fleetDetails } from './entity-details.js';
import { failureOf, problemOf } from './failures.js';
import {
  checkResources,
  isEmpty,
  planFleet,
  secondsToNextLook,
  stepsOf,
  summaryOf,
  type FleetPlan,
} from './fleet-plan.js';
import {
  explainWaiting,
  judge,
  markDrained,
  markDraining,
  markRestarted,
  mergeSlots,
} from './fleet-slots.js';
import { Notices } from './notices.js';
import { A_FEW_TRIES, UNTIL_DONE } from './options.js';
import { beingStopped, otherCluster, otherModel } from './refusals.js';

export const fleetStatusQuery = defineQuery<FleetStatus>(QUERY.status);
export const ensureFleetUpdate = defineUpdate<EnsuredFleet, [EnsureFleetRequest]>(
  UPDATE.ensureFleet,
);
export const stopFleetUpdate = defineUpdate<StopResult, [StopRequest?]>(UPDATE.stopFleet);
export const preemptionNoticeSignal = defineSignal<[PreemptionNotice]>(SIGNAL.preemptionNotice);

const control = proxyActivities<Pick<ControlActivities, 'observeFleet'>>({
  taskQueue: CONTROL_QUEUE,
  // A state API that does not answer is given up after 10 s, and said so.
  startToCloseTimeout: '1 minute',
  retry: UNTIL_DONE,
});

const python = proxyActivities<Pick<PythonActivities, 'executeFleetPlan'>>({
  taskQueue: PYTHON_QUEUE,
  // A child process connects to Ray (10 s, a minute on a busy host) and creates or kills actors.
  startToCloseTimeout: '5 minutes',
  // It heartbeats every few seconds while the child works.
  heartbeatTimeout: '1 minute',
  // The next look plans anew.
  retry: A_FEW_TRIES,
});

/** Milliseconds between two canaries of an engine that works: a hung one is found in minutes. */
const CANARY_EVERY_MS = 60_000;

/** Keeps the engines of one model answering, until it is stopped. */
export async function fleetWorkflow(input: FleetWorkflowInput): Promise<void> {
  const claims = new Claims(input.carried);
  const notices = new Notices(input.carried?.notices);
  const watching = new CancellationScope();
  const hung = new Set<number>();
  const answeredAt = new Map<string, number>();
  let spec: FleetSpec = { ...input.spec, engines: input.carried ? input.spec.engines : 0 };
  let slots: readonly FleetSlotStatus[] = input.carried?.slots ?? [];
  let everReady = input.carried?.everReady ?? false;
  let admitted = input.carried !== undefined;
  let roomUnknown = false;
  let wake = false;
  let stopping = false;
  let blind = false;
  let ended: 'stopped' | 'failed' | undefined;
  let failure: Problem | undefined;
  let problem: Problem | undefined;

  const ready = (): number => slots.filter((slot) => slot.state === 'ready').length;
  const state = (): FleetStatus['state'] => {
    if (ended !== undefined) return ended;
    if (stopping || failure !== undefined) return 'stopping';
    if (admitted && ready() >= spec.engines) return 'ready';
    return everReady ? 'degraded' : 'starting';
  };
  const status = (): FleetStatus => ({
    name: spec.name,
    model: spec.model.model,
    specHash: spec.specHash,
    cluster: spec.cluster.name,
    queue: fleetQueue(spec.name, spec.specHash),
    // Without Ray's word nobody knows what is left of the engines.
    state: blind && state() === 'ready' ? 'degraded' : state(),
    desired: spec.engines,
    ready: ready(),
    slots,
    users: claims.users,
    ...(problem && { problem }),
  });
  const show = (): void => setCurrentDetails(fleetDetails(status()));

  const observe = async (fleet: FleetSpec): Promise<FleetObservation> =>
    control.observeFleet.executeWithOptions({ summary: `Look at the engines of ${fleet.name}` }, [
      { spec: fleet },
    ]);

  const roomFor = (
    ask: Pick<FleetSpec, 'engines' | 'model'>,
    seen: FleetObservation,
  ): Problem | undefined =>
    roomUnknown ? undefined : checkResources(ask, seen.nodes, notices.nodes);

  /**
   * Refuses at once what can never be placed. A fleet that has nothing yet ends with the refusal; one that runs
   * is not refused what it has, though some of its nodes may be away just now.
   */
  const admit = async (request: EnsureFleetRequest): Promise<number> => {
    const { engines } = request.spec;
    const wanted = request.user === undefined ? engines : Math.max(engines, spec.engines);
    const seen = await observe(request.spec);
    const asksMore = !admitted || wanted > spec.engines || !patched('running-fleet-is-not-refused');
    const ask = { model: spec.model, engines: asksMore ? wanted : 0 };
    // Nodes that were lost come back, and only then it is known whether there is room.
    roomUnknown = (seen.missingNodes ?? 0) > 0;
    const refusal = seen.reachable
      ? roomFor(ask, seen)
      : ({ type: 'ClusterUnavailable', message: seen.problem ?? 'Ray does not answer' } as const);
    if (refusal !== undefined) {
      if (!admitted) failure = refusal;
      throw failureOf(refusal);
    }
    claims.claim(request);
    // Its engines keep the size that they were started with: one more of another size may have no room.
    spec = { ...request.spec, model: spec.model, engines: wanted };
    admitted = true;
    wake = true;
    return engines;
  };

  setHandler(fleetStatusQuery, status);
  setHandler(
    ensureFleetUpdate,
    async (request) => {
      const engines = await admit(request);
      const broken = (): Problem | undefined =>
        failure ?? slots.find((slot) => slot.state === 'failed')?.problem;
      await condition(() => stopping || broken() !== undefined || ready() >= engines);
      const reason = broken() ?? (stopping ? beingStopped(`fleet ${spec.name}`) : undefined);
      if (reason !== undefined) throw failureOf(reason);
      return { startedHere: claims.startedFor(request.user), engines: ready() };
    },
    {
      validator: ({ spec: asked }) => {
        if (stopping || failure !== undefined) throw failureOf(beingStopped(`fleet ${spec.name}`));
        if (asked.specHash !== spec.specHash) throw failureOf(otherModel(spec));
        if (asked.cluster.name !== spec.cluster.name) throw failureOf(otherCluster(spec));
      },
    },
  );
  setHandler(stopFleetUpdate, async (request) => {
    const user = request?.user;
    if (user !== undefined && !claims.release(user)) return { stopped: false };
    stopping = true;
    watching.cancel();
    await condition(() => ended !== undefined);
    return { stopped: true };
  });

  const isDraining = (slot: number): boolean =>
    slots.some((known) => known.slot === slot && known.state === 'draining');
  const canaries = new Canaries((slot, incarnation, verdict) => {
    if (isDraining(slot)) return;
    slots = slots.map((known) =>
      known.slot === slot && known.incarnation === incarnation
        ? judge(known, verdict, Date.now())
        : known,
    );
    if (verdict.kind === 'ready') answeredAt.set(incarnation, Date.now());
    else problem = verdict.problem;
    if (verdict.kind === 'hung') hung.add(slot);
    if (verdict.kind === 'failed' && !everReady) failure = verdict.problem;
    wake = true;
    show();
  });

  const sendCanaries = (): void => {
    for (const { slot, state: slotState, incarnation } of slots) {
      if (incarnation === undefined || canaries.isFlying(slot, incarnation)) continue;
      const last = answeredAt.get(incarnation);
      const due = last === undefined || Date.now() - last >= CANARY_EVERY_MS;
      if (slotState === 'loading' || (slotState === 'ready' && due)) {
        canaries.send(spec, slot, incarnation, slotState === 'ready');
      }
    }
  };

  const drains = new Drains((slot, incarnation, drained) => {
    if (drained.kind === 'lost') problem = drained.problem;
    slots = markDrained(slots, slot, incarnation);
    wake = true;
    show();
  });

  const drainNoticed = (): void => {
    slots = markDraining(slots, notices.byNode, Date.now());
    for (const { slot, state: slotState, incarnation, deadline, drained } of slots) {
      if (slotState !== 'draining' || drained === true) continue;
      hung.delete(slot);
      if (incarnation !== undefined && deadline !== undefined) {
        drains.send(spec, slot, incarnation, deadline);
      }
    }
  };

  setHandler(preemptionNoticeSignal, (notice) => {
    if (!notices.take(notice) || stopping || failure !== undefined) return;
    // At once, on what was last seen: the next look may be seconds away, and seconds are all there is.
    drainNoticed();
    wake = true;
    show();
  });

  const execute = async (plan: FleetPlan): Promise<void> => {
    const steps = stepsOf(plan, spec.engines, slots);
    try {
      // Not cancelled half-way: the teardown that follows must see what this has created.
      await CancellationScope.nonCancellable(() =>
        python.executeFleetPlan.executeWithOptions({ summary: summaryOf(plan) }, [
          { fleet: spec, ...steps },
        ]),
      );
      slots = markRestarted(slots, plan.restart, Date.now());
      for (const slot of plan.restart) hung.delete(slot);
    } catch (error) {
      if (!(error instanceof ActivityFailure)) throw error;
      problem = problemOf(error);
      log.error('engines could not be deployed', { ...problem });
      const final = problem.type !== 'Unknown' && !ERRORS[problem.type].retryable;
      if (final && !everReady) failure = problem;
    }
  };

  const watch = async (): Promise<void> => {
    await condition(() => admitted || failure !== undefined);
    let looks = 0;
    while (failure === undefined) {
      wake = false;
      const seen = await observe(spec);
      blind = !seen.reachable;
      if (seen.reachable) {
        const alive = new Set(seen.nodes.filter((node) => node.alive).map((node) => node.nodeId));
        notices.forget(({ nodeId }) => !alive.has(nodeId));
        slots = mergeSlots(spec.engines, slots, seen.engines, Date.now());
        slots = explainWaiting(slots, checkResources(spec, seen.nodes, notices.nodes));
        if (roomUnknown && seen.missingNodes === 0) {
          roomUnknown = false;
          if (!everReady) failure = roomFor(spec, seen);
        }
        drainNoticed();
        sendCanaries();
        const plan = planFleet(spec.engines, seen.engines, slots, hung, Date.now());
        looks = isEmpty(plan) ? looks + 1 : 0;
        if (!isEmpty(plan)) await execute(plan);
      } else {
        problem = { type: 'ClusterUnavailable', message: seen.problem ?? 'Ray does not answer' };
      }
      everReady ||= state() === 'ready' && spec.engines > 0;
      show();
      const settled = state() === 'ready' && !slots.some((slot) => slot.state === 'draining');
      const pause = secondsToNextLook(looks, settled) * 1000;
      await condition(() => wake || failure !== undefined, pause);
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
  canaries.cancel();
  drains.cancel();
  if (!stopping && failure === undefined) {
    await continueAsNew<typeof fleetWorkflow>({
      spec,
      carried: { ...claims.carried(), ...notices.carried(), everReady, slots },
    });
  }
  await CancellationScope.nonCancellable(async () => {
    show();
    const last = Math.max(-1, spec.engines - 1, ...slots.map(({ slot }) => slot));
    const stop = Array.from({ length: last + 1 }, (_, slot) => slot);
    if (stop.length > 0) await execute({ start: [], stop, restart: [] });
    slots = [];
    ended = failure === undefined ? 'stopped' : 'failed';
    show();
    await condition(allHandlersFinished);
  });
  if (failure !== undefined) throw failureOf(failure);
}
