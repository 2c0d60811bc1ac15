import {
  ActivityFailure,
  CancellationScope,
  allHandlersFinished,
  condition,
  makeContinueAsNewFunc,
  defineQuery,
  defineSignal,
  defineUpdate,
  getExternalWorkflowHandle,
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
import type { FleetSpec, ObservedEngine } from '../contracts/fleet.js';
import {
  CONTROL_QUEUE,
  PYTHON_QUEUE,
  QUERY,
  SIGNAL,
  UPDATE,
  fleetQueue,
} from '../contracts/names.js';
import type { PreemptionNotice } from '../contracts/preemption.js';
import { fleetAttributes } from '../contracts/search-attributes.js';
import type {
  EnsureFleetRequest,
  DrainRequest,
  EnsuredFleet,
  FleetSize as ToldSize,
  FleetSlotStatus,
  FleetStatus,
  FleetWorkflowInput,
  Problem,
  ScaleRequest,
  ScaledFleet,
  StopRequest,
  StopResult,
} from '../contracts/workflows.js';
import { Attributes } from './attributes.js';
import { Canaries } from './canary.js';
import { Claims } from './claims.js';
import { Drains } from './drains.js';
import { fleetDetails } from './entity-details.js';
import { failureOf, problemOf } from './failures.js';
import {
  checkResources,
  describeCordon,
  isEmpty,
  planFleet,
  secondsToNextLook,
  stepsOf,
  summaryOf,
  type Cordon,
  type FleetPlan,
} from './fleet-plan.js';
import {
  busyBatches,
  canaryEveryMs,
  checkDrainRequest,
  checkScaleRequest,
  elasticOf,
  isElastic,
  type Resize,
} from './fleet-scaling.js';
import { FleetSize } from './fleet-size.js';
import {
  explainWaiting,
  judge,
  markDrained,
  markDraining,
  markMisplaced,
  markRemoved,
  markRestarted,
  mergeSlots,
  newlyDraining,
} from './fleet-slots.js';
import { Usage } from './fleet-usage.js';
import { fleetReadySignal, fleetSizeSignal } from './hold.js';
import { Notices } from './notices.js';
import { A_FEW_TRIES, UNTIL_DONE } from './options.js';
import { ReadyNews } from './ready-news.js';
import { beingStopped, comingUp, otherCluster, otherModel } from './refusals.js';
import { Builds } from './upgrade.js';

export const fleetStatusQuery = defineQuery<FleetStatus>(QUERY.status);
export const ensureFleetUpdate = defineUpdate<EnsuredFleet, [EnsureFleetRequest]>(
  UPDATE.ensureFleet,
);
export const stopFleetUpdate = defineUpdate<StopResult, [StopRequest?]>(UPDATE.stopFleet);
export const scaleFleetUpdate = defineUpdate<ScaledFleet, [ScaleRequest]>(UPDATE.scaleFleet);
export const drainFleetUpdate = defineUpdate<StopResult, [DrainRequest?]>(UPDATE.drainFleet);
export const scaleSignal = defineSignal<[number | ScaleRequest]>(SIGNAL.scale);
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

/** Engines that are not needed any more may finish what they have; what takes longer is finished elsewhere. */
const LEAVE_MS = 600_000;
/** A fleet that is drained by hand is in less of a hurry: long answers of a large model take this long. */
const DRAIN_SECONDS = 3_600;

/** Histories without this patch tell users of a new size by hand alone, and of no limits. */
const LIMITS_TOLD = 'users-know-the-limits';

/** Keeps the engines of one model answering, until it is stopped. */
export async function fleetWorkflow(input: FleetWorkflowInput): Promise<void> {
  const claims = new Claims(input.carried);
  const notices = new Notices(input.carried?.notices);
  const builds = new Builds();
  const watching = new CancellationScope();
  const size = new FleetSize(input.carried?.steps);
  const usage = new Usage(input.carried?.usage);
  const hung = new Set<number>();
  const answeredAt = new Map<string, number>();
  let spec: FleetSpec = { ...input.spec, engines: input.carried ? input.spec.engines : 0 };
  let slots: readonly FleetSlotStatus[] = input.carried?.slots ?? [];
  let everReady = input.carried?.everReady ?? false;
  let admitted = input.carried !== undefined;
  let roomUnknown = false;
  /** Ids of the living nodes that are cordoned, as the cluster said last. */
  let unschedulable: ReadonlySet<string> = new Set(input.carried?.unschedulable);
  /** Slots that were asked of Ray since it was looked at last: those that replace others are not among the slots yet. */
  let started: readonly number[] = input.carried?.started ?? [];
  let draining = input.carried?.draining ?? false;
  let scaledByHand = false;
  const waits = new Set<{ readonly user: string | undefined; readonly enough: () => boolean }>();
  let wake = false;
  let stopping = false;
  let blind = false;
  let ended: 'stopped' | 'failed' | undefined;
  let failure: Problem | undefined;
  let problem: (Problem & { readonly at: string }) | undefined;
  const note = (found: Problem): void => {
    problem = { ...found, at: new Date(Date.now()).toISOString() };
  };

  const ready = (): number => slots.filter((slot) => slot.state === 'ready').length;
  const state = (): FleetStatus['state'] => {
    if (ended !== undefined) return ended;
    if (stopping || draining || failure !== undefined) return 'stopping';
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
    ...(spec.scaling && { scaling: spec.scaling }),
    ...(spec.idleTimeoutSeconds && { idleTimeoutSeconds: spec.idleTimeoutSeconds }),
    ...(size.backlog !== undefined && { backlog: size.backlog }),
    ...size.carried(),
    ...(usage.all.length > 0 && { usage: usage.all }),
    ...(problem && { problem }),
  });
  const attributes = new Attributes();
  const news = new ReadyNews(
    () => ({ ready: stopping ? 0 : ready(), desired: spec.engines }),
    async (user, now) => getExternalWorkflowHandle(user).signal(fleetReadySignal, now),
  );
  /** Whoever waits for engines that are there now hears it as the answer. */
  const isAnswered = (user: string): boolean =>
    [...waits].some((wait) => wait.user === user && wait.enough());
  const show = (): void => {
    const now = status();
    attributes.set({ state: now.state });
    setCurrentDetails(fleetDetails(now));
    news.changed(claims.users.filter((user) => !isAnswered(user)));
  };
  /** Before slots or users change: until now they were as they are. */
  const account = (): void => usage.count(slots, claims.users, Date.now());

  const observe = async (fleet: FleetSpec): Promise<FleetObservation> => {
    const options = { summary: `Look at the engines of ${fleet.name}` };
    const seen = await control.observeFleet.executeWithOptions(options, [{ spec: fleet }]);
    if (seen.unschedulable !== undefined && patched('leave-cordoned-nodes')) {
      unschedulable = new Set(seen.unschedulable);
    }
    return seen;
  };

  const cordon = (): Cordon => ({
    cluster: spec.cluster.name,
    nodes: unschedulable,
    engines: slots.filter(
      ({ state: slotState, nodeId }) =>
        slotState !== 'draining' && nodeId !== undefined && unschedulable.has(nodeId),
    ).length,
  });

  /** Its size as those that use it are told. */
  const sizeTold = (): ToldSize => ({
    engines: spec.engines,
    maxEngines: spec.scaling?.maxEngines ?? 0,
  });

  const roomFor = (
    ask: Pick<FleetSpec, 'engines' | 'model'>,
    seen: FleetObservation,
  ): Problem | undefined =>
    roomUnknown ? undefined : checkResources(ask, seen.nodes, notices.nodes, cordon());

  /**
   * Refuses at once what can never be placed. A fleet that has nothing yet ends with the refusal; one that runs
   * is not refused what it has, though some of its nodes may be away just now.
   */
  const admit = async (request: EnsureFleetRequest): Promise<number> => {
    const { engines } = request.spec;
    const terms = () => {
      // What a person set stays until somebody sets it anew.
      const policy = { ...elasticOf(spec), ...elasticOf(request.spec) };
      const most = policy.scaling?.maxEngines ?? Infinity;
      const asked = request.user === undefined ? engines : Math.max(engines, spec.engines);
      return { policy, most, wanted: Math.min(asked, most) };
    };
    const before = terms();
    const seen = await observe(request.spec);
    // Meanwhile somebody may have set another size or limits, or had it end.
    const anew = patched('admit-on-what-is-set-by-then');
    const { policy, most, wanted } = anew ? terms() : before;
    if (anew && (stopping || draining)) throw failureOf(beingStopped(`fleet ${spec.name}`));
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
    account();
    const told = sizeTold();
    claims.claim(request);
    // Its engines keep the size that they were started with: one more of another size may have no room.
    spec = { ...request.spec, ...policy, model: spec.model, engines: wanted };
    admitted = true;
    wake = true;
    const now = sizeTold();
    if (request.user !== undefined) news.knows(request.user);
    const changed = now.engines !== told.engines || now.maxEngines !== told.maxEngines;
    const others = claims.users.some((user) => user !== request.user);
    // Whoever asks hears it as the answer.
    if (changed && others && patched(LIMITS_TOLD)) await tellUsers(request.user);
    return Math.min(engines, most);
  };

  /** Engines that go finish what they have first. */
  const resize = (step: Resize, graceMs = LEAVE_MS): void => {
    const now = Date.now();
    size.record(spec.engines, step, now);
    log.info('the fleet gets another size', { from: spec.engines, ...step });
    spec = { ...spec, engines: step.engines };
    account();
    slots = markRemoved(step.engines, slots, new Date(now + graceMs).toISOString(), now);
    sendDrains();
    wake = true;
    show();
  };

  /** The ranks of runs keep as many batches ready as all engines together need, those that may come included. */
  const tellUsers = async (except?: string): Promise<void> => {
    const size = sizeTold();
    const tell = async (user: string): Promise<void> =>
      getExternalWorkflowHandle(user)
        .signal(fleetSizeSignal, size)
        .catch((error: unknown) => {
          // One that has ended needs to know nothing.
          if (isCancellation(error)) throw error;
        });
    await Promise.all(claims.users.filter((user) => user !== except).map(tell));
  };

  /** Any number would be taken for possible while nobody sees the nodes, and a slot laid out for each engine. */
  const whyNotGrown = (engines: number, seen: FleetObservation): Problem | undefined => {
    if (seen.reachable)
      return checkResources({ ...spec, engines }, seen.nodes, notices.nodes, cordon());
    if (!patched('grow-only-where-there-is-room')) return undefined;
    const away = `Ray does not answer${seen.problem ? ` (${seen.problem})` : ''}`;
    const message = `${away}, so nobody knows whether there is room for ${engines} engines`;
    return { type: 'ClusterUnavailable', message };
  };

  const scale = async ({ engines, scaling }: ScaleRequest): Promise<ScaledFleet> => {
    const before = spec.engines;
    const limits = scaling ?? { minEngines: engines ?? 0, maxEngines: engines ?? 0 };
    const wanted = Math.min(limits.maxEngines, Math.max(limits.minEngines, before));
    if (wanted > before) {
      const refusal = whyNotGrown(wanted, await observe(spec));
      if (refusal !== undefined) throw failureOf(refusal);
    }
    const { scaling: _before, ...rest } = spec;
    spec = { ...rest, ...(scaling && { scaling }) };
    scaledByHand = true;
    const between = `to be between ${limits.minEngines} and ${limits.maxEngines} from now on`;
    resize({ engines: wanted, reason: `by hand${scaling === undefined ? '' : `, ${between}`}` });
    if (wanted !== before || patched(LIMITS_TOLD)) await tellUsers();
    return { before, engines: wanted };
  };

  const whyNotScaled = (request: unknown): Problem | undefined => {
    if (stopping || draining || failure !== undefined) return beingStopped(`fleet ${spec.name}`);
    if (!admitted) return comingUp(`fleet ${spec.name}`);
    return checkScaleRequest(request);
  };

  setHandler(scaleFleetUpdate, scale, {
    validator: (request) => {
      const refusal = whyNotScaled(request);
      if (refusal !== undefined) throw failureOf(refusal);
    },
  });
  setHandler(scaleSignal, async (given) => {
    const request: ScaleRequest = typeof given === 'number' ? { engines: given } : given;
    try {
      const refusal = whyNotScaled(request);
      if (refusal !== undefined) throw failureOf(refusal);
      await scale(request);
    } catch (error) {
      // Nobody waits for an answer to a signal: the status tells.
      note(problemOf(error));
      show();
    }
  });
  setHandler(
    drainFleetUpdate,
    async (request?: DrainRequest) => {
      draining = true;
      const { scaling: _over, ...rest } = spec;
      spec = rest;
      const grace = (request?.graceSeconds ?? DRAIN_SECONDS) * 1000;
      resize({ engines: 0, reason: 'drained by hand' }, grace);
      await condition(() => ended !== undefined);
      return { stopped: true };
    },
    {
      validator: (request?: DrainRequest) => {
        if (stopping || failure !== undefined) throw failureOf(beingStopped(`fleet ${spec.name}`));
        const refusal = checkDrainRequest(request);
        if (refusal !== undefined) throw failureOf(refusal);
      },
    },
  );

  setHandler(fleetStatusQuery, status);
  setHandler(
    ensureFleetUpdate,
    async (request) => {
      const engines = await admit(request);
      const broken = (): Problem | undefined =>
        failure ?? slots.find((slot) => slot.state === 'failed')?.problem;
      // Whoever scales it down meanwhile does not want it to be waited for.
      const enough = (): boolean =>
        ready() >= (scaledByHand ? Math.min(engines, spec.engines) : engines);
      const leaves = (): boolean => stopping || draining;
      const wait = { user: request.user, enough };
      waits.add(wait);
      await condition(() => leaves() || broken() !== undefined || enough());
      waits.delete(wait);
      const reason = broken() ?? (leaves() ? beingStopped(`fleet ${spec.name}`) : undefined);
      if (reason !== undefined) throw failureOf(reason);
      const startedHere = claims.startedFor(request.user);
      const { maxEngines } = spec.scaling ?? {};
      if (request.user !== undefined) news.knows(request.user);
      return {
        startedHere,
        engines: ready(),
        desired: spec.engines,
        ...(maxEngines !== undefined && { maxEngines }),
      };
    },
    {
      validator: ({ spec: asked }) => {
        if (stopping || draining || failure !== undefined) {
          throw failureOf(beingStopped(`fleet ${spec.name}`));
        }
        if (asked.specHash !== spec.specHash) throw failureOf(otherModel(spec));
        if (asked.cluster.name !== spec.cluster.name) throw failureOf(otherCluster(spec));
      },
    },
  );
  setHandler(stopFleetUpdate, async (request) => {
    const user = request?.user;
    account();
    const spent = user === undefined ? undefined : usage.take(user);
    const held = spent === undefined ? {} : { usage: spent };
    if (user !== undefined) news.forget(user);
    if (user !== undefined && !claims.release(user)) return { stopped: false, ...held };
    stopping = true;
    watching.cancel();
    await condition(() => ended !== undefined);
    return { stopped: true, ...held };
  });

  const isDraining = (slot: number): boolean =>
    slots.some((known) => known.slot === slot && known.state === 'draining');
  const canaries = new Canaries((slot, incarnation, verdict) => {
    if (isDraining(slot)) return;
    account();
    slots = slots.map((known) =>
      known.slot === slot && known.incarnation === incarnation
        ? judge(known, verdict, Date.now())
        : known,
    );
    if (verdict.kind === 'ready') answeredAt.set(incarnation, Date.now());
    else note(verdict.problem);
    if (verdict.kind === 'hung') hung.add(slot);
    if (verdict.kind === 'failed' && !everReady) failure = verdict.problem;
    wake = true;
    show();
  });

  const sendCanaries = (): void => {
    for (const { slot, state: slotState, incarnation } of slots) {
      if (incarnation === undefined || canaries.isFlying(slot, incarnation)) continue;
      const last = answeredAt.get(incarnation);
      const due = last === undefined || Date.now() - last >= canaryEveryMs(spec);
      if (slotState === 'loading' || (slotState === 'ready' && due)) {
        canaries.send(spec, slot, incarnation, slotState === 'ready');
      }
    }
  };

  const drains = new Drains((slot, incarnation, drained) => {
    if (drained.kind === 'lost') note(drained.problem);
    slots = markDrained(slots, slot, incarnation);
    wake = true;
    show();
  });

  const sendDrains = (): void => {
    for (const { slot, state: slotState, incarnation, deadline, drained } of slots) {
      if (slotState !== 'draining' || drained === true) continue;
      hung.delete(slot);
      if (incarnation !== undefined && deadline !== undefined) {
        drains.send(spec, slot, incarnation, deadline);
      }
    }
  };
  const drainNoticed = (): void => {
    account();
    const before = slots;
    slots = markDraining(slots, notices.byNode, Date.now());
    usage.preempted(newlyDraining(before, slots), claims.users);
    sendDrains();
  };

  /** What Ray has placed, or may place, where nothing new is to be, goes; other slots take its place at once. */
  const leaveCordoned = (
    before: readonly FleetSlotStatus[],
    engines: readonly ObservedEngine[],
    alive: ReadonlySet<string>,
  ): readonly FleetSlotStatus[] => {
    const now = Date.now();
    const deadline = new Date(now + LEAVE_MS).toISOString();
    return markMisplaced(before, slots, engines, unschedulable, alive, deadline, now);
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
    const avoid = [...unschedulable];
    started = steps.start;
    try {
      // Not cancelled half-way: the teardown that follows must see what this has created.
      await CancellationScope.nonCancellable(() =>
        python.executeFleetPlan.executeWithOptions({ summary: summaryOf(plan) }, [
          { fleet: spec, ...steps, ...(avoid.length > 0 && { avoid }) },
        ]),
      );
      slots = markRestarted(slots, plan.restart, Date.now());
      for (const slot of plan.restart) hung.delete(slot);
    } catch (error) {
      if (!(error instanceof ActivityFailure)) throw error;
      const found = problemOf(error);
      note(found);
      log.error('engines could not be deployed', { ...found });
      const final = found.type !== 'Unknown' && !ERRORS[found.type].retryable;
      if (final && !everReady) failure = found;
    }
  };

  /** Returns whether it gets another size. */
  const lookAtSize = (backlog: number): boolean => {
    const users = claims.users.length;
    const demand = { backlog, busy: busyBatches(slots), users, waiting: waits.size };
    const step = size.look(spec, demand, Date.now());
    if (step !== undefined) resize(step);
    const reason = size.stopReason(spec, Date.now());
    if (reason !== undefined) {
      size.record(spec.engines, { engines: 0, reason }, Date.now());
      log.info('the fleet stops', { reason });
      stopping = true;
    }
    return step !== undefined;
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
        usage.know(seen.nodes);
        account();
        const before = slots;
        slots = mergeSlots(spec.engines, slots, seen.engines, Date.now());
        started = [];
        slots = leaveCordoned(before, seen.engines, alive);
        const shortage = checkResources(spec, seen.nodes, notices.nodes, cordon());
        slots = explainWaiting(slots, shortage, describeCordon(seen.nodes, cordon()));
        if (roomUnknown && seen.missingNodes === 0) {
          roomUnknown = false;
          if (!everReady) failure = roomFor(spec, seen);
        }
        drainNoticed();
        sendCanaries();
        const resized = seen.backlog !== undefined && lookAtSize(seen.backlog);
        if (resized && patched(LIMITS_TOLD)) await tellUsers();
        const plan = planFleet(spec.engines, seen.engines, slots, hung, Date.now());
        looks = isEmpty(plan) ? looks + 1 : 0;
        if (!isEmpty(plan)) await execute(plan);
        else if (draining && slots.length === 0) stopping = true;
        if (stopping) return;
      } else {
        note({ type: 'ClusterUnavailable', message: seen.problem ?? 'Ray does not answer' });
      }
      everReady ||= state() === 'ready' && spec.engines > 0;
      show();
      const settled = state() === 'ready' && !slots.some((slot) => slot.state === 'draining');
      const pause = secondsToNextLook(looks, settled && !isElastic(spec)) * 1000;
      await condition(() => wake || failure !== undefined, pause, {
        summary: 'Look at the engines again',
      });
      // Updates in flight would be lost: the history has room to wait for them.
      const anew = workflowInfo().continueAsNewSuggested || builds.changed;
      if (anew && allHandlersFinished()) return;
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
    const options = attributes.startingWith({ ...fleetAttributes(spec), state: status().state });
    await makeContinueAsNewFunc<typeof fleetWorkflow>(options)({
      spec,
      carried: {
        ...claims.carried(),
        ...notices.carried(),
        ...size.carried(),
        ...(draining && { draining }),
        ...(unschedulable.size > 0 && { unschedulable: [...unschedulable] }),
        ...(started.length > 0 && { started }),
        usage: usage.carried(),
        everReady,
        slots,
      },
    });
  }
  await CancellationScope.nonCancellable(async () => {
    show();
    const last = Math.max(-1, spec.engines - 1, ...slots.map(({ slot }) => slot), ...started);
    const stop = Array.from({ length: last + 1 }, (_, slot) => slot);
    if (stop.length > 0) await execute({ start: [], stop, restart: [] });
    slots = [];
    ended = failure === undefined ? 'stopped' : 'failed';
    show();
    await condition(allHandlersFinished);
  });
  if (failure !== undefined) throw failureOf(failure);
}
