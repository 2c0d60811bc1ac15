import {
  ActivityCancellationType,
  ActivityFailure,
  CancellationScope,
  ChildWorkflowCancellationType,
  ParentClosePolicy,
  defineQuery,
  defineUpdate,
  log,
  patched,
  proxyActivities,
  setCurrentDetails,
  setHandler,
  sleep,
  startChild,
  workflowInfo,
  type ChildWorkflowHandle,
} from '@temporalio/workflow';

import type { ControlActivities, PythonActivities } from '../contracts/activities.js';
import type { ClusterAddress } from '../contracts/cluster.js';
import type { InferenceInput } from '../contracts/inference.js';
import { CONTROL_QUEUE, PYTHON_QUEUE, QUERY, UPDATE, runWorkflowId } from '../contracts/names.js';
import type { FinalizeRunResult, PlanSummary, RunState } from '../contracts/run.js';
import type {
  FleetReady,
  Hold,
  HoldRequest,
  InferenceStatus,
  Problem,
  RunFleet,
  RunNumbers,
  RunResult,
  RunUsage,
  SteerRequest,
} from '../contracts/workflows.js';
import { counted, shortName } from '../text.js';
import { Attributes } from './attributes.js';
import { countRun, expectRun } from './counters.js';
import { problemRows, table } from './details.js';
import { failureOf, problemOf, workflowFailure } from './failures.js';
import { elasticOf } from './fleet-scaling.js';
import {
  HeldWork,
  drainSignal,
  fleetReadySignal,
  fleetSizeSignal,
  holdSignal,
  pauseSignal,
  resumeSignal,
  sizeOf,
} from './hold.js';
import { A_FEW_TRIES, DEADLINE, UNTIL_DONE } from './options.js';
import { progressRows } from './run-progress.js';
import { begunAgain } from './restart.js';
import { cancelRunSignal, runNumbersSignal, runWorkflow } from './run.js';
import { checkStoreShared } from './shared-store.js';
import { StoreRoom } from './store-room.js';

export const steerRunUpdate = defineUpdate<void, [SteerRequest]>(UPDATE.steerRun);
export const inferenceStatusQuery = defineQuery<InferenceStatus>(QUERY.status);

type Planning = 'planRun' | 'checkEngineArguments' | 'finalizeRun';
const python = proxyActivities<Pick<PythonActivities, Planning>>({
  taskQueue: PYTHON_QUEUE,
  // The whole input is read and tokenised, or assembled: minutes for a million rows, more on a slow store.
  startToCloseTimeout: '6 hours',
  // All heartbeat every few seconds while their child process works.
  heartbeatTimeout: '1 minute',
  retry: UNTIL_DONE,
});

const entities = proxyActivities<Pick<ControlActivities, 'ensureCluster' | 'ensureFleet'>>({
  taskQueue: CONTROL_QUEUE,
  // Waits for nodes to join or a model to be fetched and loaded: hours for the largest ones.
  startToCloseTimeout: '12 hours',
  // They heartbeat every 5 s while they wait, so that a control worker that went away is noticed.
  heartbeatTimeout: '30 seconds',
  // Refusals are final; anything else passes, as the entities repair themselves.
  retry: UNTIL_DONE,
  // Giving back must not overtake a claim that is still on its way.
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
});

const release = proxyActivities<Pick<ControlActivities, 'stopCluster' | 'stopFleet'>>({
  taskQueue: CONTROL_QUEUE,
  // Engines and nodes end within a grace period of seconds each.
  startToCloseTimeout: '10 minutes',
  heartbeatTimeout: '30 seconds',
  // What cannot be taken down must not hide the result of the run.
  retry: A_FEW_TRIES,
});

/** A run with everything it needs brought up around it, and given back afterwards. */
export async function inferenceWorkflow(input: InferenceInput): Promise<RunResult> {
  const { run, cluster, fleet, specHash, keep } = input;
  // The same after a relaunch, so that what an earlier try left behind is still ours to give back.
  const user = workflowInfo().workflowId;
  const claimed = { cluster: false, fleet: false };
  let status: InferenceStatus = { runId: run.runId, phase: 'preparing' };

  let expired = false;
  let ended: RunState | undefined;
  let output: FinalizeRunResult | undefined;
  let generatingSince: number | undefined;
  let usage: RunUsage | undefined;
  let runFleet: RunFleet = runFleetOf(fleet);
  let child: ChildWorkflowHandle<typeof runWorkflow> | undefined;
  let live: RunNumbers | undefined;
  let engines: ToldReady | undefined;
  const attributes = new Attributes();
  expectRun();
  const held = new HeldWork();
  let paused: Problem | undefined;
  const present = (): InferenceStatus => ({
    ...status,
    ...(paused && { paused }),
    ...(held.hold !== 'none' && { hold: held.hold }),
  });
  const show = (): void => {
    const now = present();
    const state = ended ?? stateOf(now, live?.problem);
    attributes.set({ state });
    setCurrentDetails(
      inferenceDetails(input, { status: now, state, output, live, runFleet, engines }),
    );
  };
  const enter = (change: Partial<InferenceStatus>): void => {
    status = { ...status, ...change };
    show();
  };
  const room = new StoreRoom({ runId: run.runId, store: run.store }, (problem) => {
    paused = problem;
    show();
  });
  const work = new CancellationScope();
  setHandler(inferenceStatusQuery, () => ({
    ...present(),
    ...(work.consideredCancelled && { cancelling: true }),
  }));
  setHandler(cancelRunSignal, () => work.cancel());

  const hasEnded = (): boolean =>
    status.phase === 'stopping' || status.phase === 'done' || work.consideredCancelled;
  const hold = async (request: HoldRequest): Promise<void> => {
    if (hasEnded()) return;
    held.ask(request);
    show();
    if (child !== undefined) await child.signal(holdSignal, request).catch(() => undefined);
    // Nothing is in work yet, and nothing is to be begun.
    else if (held.draining) work.cancel();
  };
  setHandler(pauseSignal, async (options) => hold({ hold: 'pause', now: options?.now ?? false }));
  setHandler(resumeSignal, async () => hold({ hold: 'none' }));
  setHandler(drainSignal, async () => hold({ hold: 'drain' }));
  setHandler(
    steerRunUpdate,
    async ({ action, now = false }: SteerRequest) => hold({ hold: HOLDS[action], now }),
    {
      validator: ({ action }: SteerRequest) => {
        if (!Object.hasOwn(HOLDS, action)) throw refusal(`${action as string} is not known`);
        if (hasEnded()) throw refusal('the run has ended, or is about to');
        if (held.draining) throw refusal('the run drains already');
      },
    },
  );
  setHandler(fleetSizeSignal, async (size) => {
    runFleet = { ...runFleet, ...size };
    show();
    await child?.signal(fleetSizeSignal, size).catch(() => undefined);
  });
  setHandler(runNumbersSignal, (numbers) => {
    if ((numbers.order ?? 0) < (live?.order ?? 0)) return;
    live = numbers;
    show();
  });
  const knowReady = (ready: FleetReady): void => {
    engines = { ...ready, at: new Date(Date.now()).toISOString() };
    show();
  };
  setHandler(fleetReadySignal, knowReady);
  enter({});

  const joinCluster = async (): Promise<ClusterAddress> => {
    const { address } = await entities.ensureCluster.executeWithOptions(
      { summary: `Bring up Ray cluster ${cluster.name}` },
      [{ spec: cluster, user, keep }],
    );
    const { cpusPerEngine, gpusPerEngine, tensorParallelSize, pipelineParallelSize } = run.model;
    await checkStoreShared(cluster, {
      ...{ store: run.store, cluster: address, cpus: cpusPerEngine },
      // The actor of an engine is on a node with one of its GPUs at least.
      gpus: gpusPerEngine / (tensorParallelSize * pipelineParallelSize),
    });
    return address;
  };

  /** Ray comes up while the input is checked; no engine starts before the input is known to be good. */
  const prepare = async (): Promise<{ plan: PlanSummary; address: ClusterAddress }> => {
    const scope = new CancellationScope();
    return scope.run(async () => {
      claimed.cluster = true;
      const tasks = [
        room.waitedFor(async () => {
          const options = { summary: 'Validate and plan the input' };
          const plan = await python.planRun.executeWithOptions(options, [{ spec: run }]);
          status = { ...status, plan };
          return plan;
        }),
        joinCluster(),
        python.checkEngineArguments.executeWithOptions(
          { summary: 'Have vLLM check the engine arguments' },
          [{ model: run.model }],
        ),
      ] as const;
      try {
        const [plan, address] = await Promise.all(tasks);
        return { plan, address };
      } catch (error) {
        // Bad input is told without waiting for the rest to be done.
        scope.cancel();
        await CancellationScope.nonCancellable(() => Promise.allSettled(tasks));
        throw error;
      }
    });
  };

  /** Everything that has to be there before the first batch. */
  const bringUp = async (): Promise<PlanSummary> => {
    const { plan, address } = await prepare();
    if (!plan.finished) {
      enter({ phase: 'starting-fleet', plan });
      claimed.fleet = true;
      const { name, engines: wanted, maxConcurrentBatches } = fleet;
      const spec = {
        name,
        cluster: address,
        model: run.model,
        specHash,
        engines: wanted,
        ...elasticOf(fleet),
      };
      const ensured = await entities.ensureFleet.executeWithOptions(
        { summary: `Load ${counted(wanted, 'engine')} of fleet ${name}` },
        [{ spec: { ...spec, maxConcurrentBatches }, user, keep }],
      );
      const { desired = wanted, maxEngines } = ensured;
      knowReady({ ready: ensured.engines, desired });
      runFleet = {
        ...runFleet,
        engines: Math.max(runFleet.engines, desired),
        ...(maxEngines !== undefined && { maxEngines }),
      };
    }
    return plan;
  };

  /** Like {@link bringUp}, but a run that expires meanwhile goes on to account for its rows. */
  const bringUpInTime = async (): Promise<PlanSummary> => {
    if (input.deadline === undefined) return bringUp();
    const [scope, timer] = [new CancellationScope(), new CancellationScope()];
    const expire = (): void => {
      expired = true;
      scope.cancel();
    };
    const left = Math.max(1, Date.parse(input.deadline) - Date.now());
    void timer.run(async () => sleep(left, DEADLINE)).then(expire, () => undefined);
    try {
      return await scope.run(bringUp);
    } catch (error) {
      if (!expired || work.consideredCancelled || status.plan === undefined) throw error;
      return status.plan;
    } finally {
      timer.cancel();
    }
  };

  const body = async (): Promise<RunResult> => {
    const plan = await bringUpInTime();
    attributes.set({ rows: plan.rows });
    enter({ phase: 'running', plan });
    generatingSince = Date.now();
    return begunAgain('the run', async () => {
      live = undefined;
      const told = { hold: held.hold, ...sizeOf(runFleet) };
      child = await startChild(runWorkflow, {
        workflowId: runWorkflowId(run.runId),
        args: [
          {
            spec: run,
            specHash,
            fleet: runFleet,
            affinity: input.affinity,
            ...(input.deadline !== undefined && { deadline: input.deadline }),
            ...(held.hold !== 'none' && { hold: held.hold }),
          },
        ],
        // A cancelled run still assembles what is done, and needs its engines until its batches have ended.
        cancellationType: ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        // Whatever ends this workflow, the output of the run is to be assembled.
        parentClosePolicy: ParentClosePolicy.REQUEST_CANCEL,
        staticSummary: `${counted(plan.rows, 'row')} on ${counted(fleet.engines, 'engine')} of ${shortName(run.model.model)}`,
        staticDetails: `Fleet \`${fleet.name}\` on cluster \`${cluster.name}\``,
      });
      // What was asked while it started did not reach it.
      if (told.hold !== held.hold) await child.signal(holdSignal, { hold: held.hold });
      const size = sizeOf(runFleet);
      if (told.engines !== size.engines || told.maxEngines !== size.maxEngines) {
        await child.signal(fleetSizeSignal, size);
      }
      return child.result();
    });
  };

  let gaveBack = false;
  const giveBack = async (): Promise<void> => {
    if (gaveBack) return;
    gaveBack = true;
    enter({ phase: 'stopping' });
    const endedAt = Date.now();
    try {
      if (claimed.fleet) {
        const options = { summary: `Give back fleet ${fleet.name}` };
        const given = await release.stopFleet.executeWithOptions(options, [
          { name: fleet.name, user },
        ]);
        const since = generatingSince;
        usage = given.usage && {
          ...given.usage,
          ...(since !== undefined && { generateSeconds: (endedAt - since) / 1000 }),
        };
      }
      if (claimed.cluster) {
        const options = { summary: `Give back cluster ${cluster.name}` };
        await release.stopCluster.executeWithOptions(options, [{ name: cluster.name, user }]);
      }
    } catch (error) {
      if (!(error instanceof ActivityFailure)) throw error;
      const problem: Problem = problemOf(error);
      log.error('could not take down what the run brought up', { ...problem });
      enter({ problem });
    }
  };

  /** What `work` comes to. That it was cancelled, or expired before it had a plan, is no failure. */
  const endOfWork = async (): Promise<RunResult> => {
    try {
      return await work.run(body);
    } catch (error) {
      if (work.consideredCancelled) return { runId: run.runId, state: 'cancelled' };
      // Nobody knows yet which rows there are.
      if (expired) return { runId: run.runId, state: 'expired' };
      throw error;
    }
  };

  /** The result, with what earlier tries have done when the run was cancelled too early to assemble it itself. */
  const assembled = async (result: RunResult): Promise<RunResult> => {
    if (result.state !== 'cancelled' || result.output !== undefined) return result;
    if (status.plan === undefined || !patched('assemble-what-is-cancelled-early')) return result;
    attributes.set({ rows: status.plan.rows });
    const whole = await CancellationScope.nonCancellable(async () => {
      // No engine is needed for it, and a store that is full may let it wait for long.
      await giveBack();
      return room.waitedFor(async () =>
        python.finalizeRun.executeWithOptions({ summary: 'Assemble what is done' }, [
          { runId: run.runId, store: run.store, missing: 'batch_cancelled' },
        ]),
      );
    });
    return { ...result, output: whole };
  };

  const generate = async (): Promise<RunResult> => {
    let state: RunState = 'failed';
    try {
      const result = await assembled(await endOfWork());
      ({ state } = result);
      output = result.output;
      return result;
    } catch (error) {
      enter({ problem: problemOf(error) });
      throw workflowFailure(error);
    } finally {
      ended = state;
      countRun(state);
      attributes.set({ state, ...(output && { failedRows: output.failed }) });
      await CancellationScope.nonCancellable(giveBack);
      enter({ phase: 'done' });
    }
  };
  const { redone, ...result } = await generate();
  return usage === undefined
    ? result
    : { ...result, usage: { ...usage, ...(redone && { redone }) } };
}

/** The state of a run that goes on, as lists show it. */
function stateOf({ phase, paused, hold }: InferenceStatus, runPaused?: Problem): RunState {
  if (paused !== undefined || hold === 'pause') return 'paused';
  if (phase !== 'running') return 'validating';
  return runPaused === undefined ? 'in_progress' : 'paused';
}

const HOLDS: Readonly<Record<SteerRequest['action'], Hold>> = {
  pause: 'pause',
  resume: 'none',
  drain: 'drain',
};

const refusal = (message: string) => failureOf({ type: 'InvalidRequest', message });

function runFleetOf({ scaling, idleTimeoutSeconds: _its, ...fleet }: InferenceInput['fleet']) {
  const maxEngines = scaling?.maxEngines;
  return { ...fleet, ...(maxEngines && { maxEngines }) };
}

interface Shown {
  readonly status: InferenceStatus;
  readonly state: RunState;
  readonly output: FinalizeRunResult | undefined;
  readonly live: RunNumbers | undefined;
  readonly runFleet: RunFleet;
  readonly engines: ToldReady | undefined;
}

/** What the fleet has told, and when (ISO 8601). */
interface ToldReady extends FleetReady {
  readonly at: string;
}

/** Markdown for the Temporal UI. */
function inferenceDetails(
  { run, fleet, cluster }: InferenceInput,
  { status, state, output, live, runFleet, engines }: Shown,
): string {
  const runs = status.phase === 'running';
  const problem = status.paused ?? (runs ? live?.problem : undefined) ?? status.problem;
  const rows = status.plan?.rows;
  const most = runFleet.maxEngines ? `, up to ${runFleet.maxEngines}` : '';
  // Before it asks for engines, what it knows is nothing, and after it has given them back no longer of interest.
  const known = runs || status.phase === 'starting-fleet' ? engines : undefined;
  return table(
    ['Run', run.runId],
    [
      ['State', state],
      ['Phase', status.phase],
      ...(status.hold === undefined ? [] : [['Asked for', status.hold]]),
      ...(rows === undefined ? [] : progressRows(rows, live, output, state === 'in_progress')),
      ['Model', run.model.model],
      ['Fleet', `${fleet.name}, ${counted(runFleet.engines, 'engine')}${most}`],
      ...(known ? [['Engines', `${known.ready} of ${known.desired} ready as of ${known.at}`]] : []),
      ['Cluster', cluster.name],
      ...problemRows(problem),
    ],
  );
}
