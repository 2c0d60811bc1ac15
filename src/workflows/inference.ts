import {
  ActivityCancellationType,
  ActivityFailure,
  CancellationScope,
  ChildWorkflowCancellationType,
  ParentClosePolicy,
  defineQuery,
  executeChild,
  log,
  proxyActivities,
  setCurrentDetails,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';

import type { ControlActivities, PythonActivities } from '../contracts/activities.js';
import type { ClusterAddress } from '../contracts/cluster.js';
import type { InferenceInput } from '../contracts/inference.js';
import { CONTROL_QUEUE, PYTHON_QUEUE, QUERY, runWorkflowId } from '../contracts/names.js';
import type { PlanSummary } from '../contracts/run.js';
import type { InferenceStatus, Problem, RunResult } from '../contracts/workflows.js';
import { counted, shortName } from '../text.js';
import { table } from './details.js';
import { problemOf, workflowFailure } from './failures.js';
import { A_FEW_TRIES, UNTIL_DONE } from './options.js';
import { cancelRunSignal, runWorkflow } from './run.js';
import { StoreRoom } from './store-room.js';

export const inferenceStatusQuery = defineQuery<InferenceStatus>(QUERY.status);

const python = proxyActivities<Pick<PythonActivities, 'planRun' | 'checkEngineArguments'>>({
  taskQueue: PYTHON_QUEUE,
  // Planning reads and tokenises the whole input: minutes for a million rows, more from a slow store.
  startToCloseTimeout: '6 hours',
  // Both heartbeat every few seconds while their child process works.
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

  let paused: Problem | undefined;
  const present = (): InferenceStatus => ({ ...status, ...(paused && { paused }) });
  const show = (): void => setCurrentDetails(inferenceDetails(input, present()));
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
  enter({});

  /** Ray comes up while the input is checked; no engine starts before the input is known to be good. */
  const prepare = async (): Promise<{ plan: PlanSummary; address: ClusterAddress }> => {
    const scope = new CancellationScope();
    return scope.run(async () => {
      claimed.cluster = true;
      const tasks = [
        room.waitedFor(async () =>
          python.planRun.executeWithOptions({ summary: 'Validate and plan the input' }, [
            { spec: run },
          ]),
        ),
        entities.ensureCluster.executeWithOptions(
          { summary: `Bring up Ray cluster ${cluster.name}` },
          [{ spec: cluster, user, keep }],
        ),
        python.checkEngineArguments.executeWithOptions(
          { summary: 'Have vLLM check the engine arguments' },
          [{ model: run.model }],
        ),
      ] as const;
      try {
        const [plan, { address }] = await Promise.all(tasks);
        return { plan, address };
      } catch (error) {
        // Bad input is told without waiting for the rest to be done.
        scope.cancel();
        await CancellationScope.nonCancellable(() => Promise.allSettled(tasks));
        throw error;
      }
    });
  };

  const body = async (): Promise<RunResult> => {
    const { plan, address } = await prepare();
    if (!plan.finished) {
      enter({ phase: 'starting-fleet', plan });
      claimed.fleet = true;
      const { name, engines, maxConcurrentBatches } = fleet;
      const spec = { name, cluster: address, model: run.model, specHash, engines };
      await entities.ensureFleet.executeWithOptions(
        { summary: `Load ${counted(engines, 'engine')} of fleet ${name}` },
        [{ spec: { ...spec, maxConcurrentBatches }, user, keep }],
      );
    }
    enter({ phase: 'running', plan });
    return executeChild(runWorkflow, {
      workflowId: runWorkflowId(run.runId),
      args: [{ spec: run, specHash, fleet, affinity: input.affinity }],
      // A cancelled run still assembles what is done, and needs its engines until its batches have ended.
      cancellationType: ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
      // Whatever ends this workflow, the output of the run is to be assembled.
      parentClosePolicy: ParentClosePolicy.REQUEST_CANCEL,
      staticSummary: `${counted(plan.rows, 'row')} on ${counted(fleet.engines, 'engine')} of ${shortName(run.model.model)}`,
      staticDetails: `Fleet \`${fleet.name}\` on cluster \`${cluster.name}\``,
    });
  };

  const giveBack = async (): Promise<void> => {
    enter({ phase: 'stopping' });
    try {
      if (claimed.fleet) {
        const options = { summary: `Give back fleet ${fleet.name}` };
        await release.stopFleet.executeWithOptions(options, [{ name: fleet.name, user }]);
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
    enter({ phase: 'done' });
  };

  try {
    return await work.run(body);
  } catch (error) {
    if (work.consideredCancelled) return { runId: run.runId, state: 'cancelled' };
    enter({ problem: problemOf(error) });
    throw workflowFailure(error);
  } finally {
    await CancellationScope.nonCancellable(giveBack);
  }
}

/** Markdown for the Temporal UI. */
function inferenceDetails(
  { run, fleet, cluster }: InferenceInput,
  status: InferenceStatus,
): string {
  const problem = status.paused ?? status.problem;
  return table(
    ['Run', run.runId],
    [
      ['Phase', status.paused === undefined ? status.phase : `${status.phase}, paused`],
      ['Model', run.model.model],
      ['Fleet', `${fleet.name}, ${counted(fleet.engines, 'engine')}`],
      ['Cluster', cluster.name],
      ...(problem === undefined ? [] : [['Problem', problem.message]]),
      ...(problem?.wayOut === undefined ? [] : [['Way out', problem.wayOut]]),
    ],
  );
}
