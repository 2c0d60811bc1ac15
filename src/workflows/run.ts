import {
  CancellationScope,
  ChildWorkflowCancellationType,
  ParentClosePolicy,
  defineQuery,
  defineSignal,
  getExternalWorkflowHandle,
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

import type { PythonActivities } from '../contracts/activities.js';
import { PYTHON_QUEUE, QUERY, SIGNAL } from '../contracts/names.js';
import type {
  FinalizeRunInput,
  FinalizeRunResult,
  PlanSummary,
  RunState,
} from '../contracts/run.js';
import type {
  HoldRequest,
  Problem,
  RankSummary,
  RunNumbers,
  RunProgress,
  RunResult,
  RunWorkflowInput,
} from '../contracts/workflows.js';
import { counted } from '../text.js';
import { problemOf, workflowFailure } from './failures.js';
import {
  HeldWork,
  drainSignal,
  fleetSizeSignal,
  holdProblem,
  holdSignal,
  pauseSignal,
  resumeSignal,
  sizeOf,
} from './hold.js';
import { DEADLINE, UNTIL_DONE } from './options.js';
import { rankNumbersSignal, rankPausedSignal, rankWorkflow } from './rank.js';
import {
  completedRank,
  finishedCounts,
  numbersOf,
  pauseOf,
  ranksOf,
  runDetails,
  withPause,
  type ToldNumbers,
} from './run-progress.js';
import { addRedone } from './redone.js';
import { begunAgain } from './restart.js';
import { StoreRoom } from './store-room.js';
import { ProgressTeller, Teller } from './teller.js';

export const runProgressQuery = defineQuery<RunProgress>(QUERY.progress);
export const cancelRunSignal = defineSignal(SIGNAL.cancelRun);
export const runNumbersSignal = defineSignal<[RunNumbers]>(SIGNAL.runNumbers);

const python = proxyActivities<Pick<PythonActivities, 'planRun' | 'finalizeRun'>>({
  taskQueue: PYTHON_QUEUE,
  // A million rows are read and tokenised, or assembled, in minutes; hours leave room for slow stores.
  startToCloseTimeout: '6 hours',
  // Both heartbeat every few seconds while their child process works.
  heartbeatTimeout: '1 minute',
  // Both are idempotent, and without the store nothing goes on.
  retry: UNTIL_DONE,
});

/** Plans a request file, generates it rank by rank and assembles one result for every request. */
export async function runWorkflow(input: RunWorkflowInput): Promise<RunResult> {
  const { runId, store } = input.spec;
  let state: RunState = 'validating';
  let plan: PlanSummary | undefined;
  let ranks: RankSummary[] = [];
  let output: FinalizeRunResult | undefined;
  let problem: Problem | undefined;
  let ownPause: Problem | undefined;
  let { fleet } = input;
  let expired = false;
  const held = new HeldWork(input.hold);
  const atWork = new Map<number, ChildWorkflowHandle<typeof rankWorkflow>>();
  const goesOn = (): boolean => state === 'validating' || state === 'in_progress';

  const progress = (): RunProgress => {
    const asked = goesOn() ? holdProblem(runId, held.hold) : undefined;
    const pause = ownPause ?? asked ?? pauseOf(state, ranks);
    const shown = pause ?? problem;
    return {
      runId,
      state: pause === undefined ? state : 'paused',
      finished: finishedCounts(ranks),
      ranks,
      ...(plan && { plan }),
      ...(output && { output }),
      ...(shown && { problem: shown }),
    };
  };
  /** What ranks at work have told, and when. */
  const told = new Map<number, ToldNumbers>();
  /** Why it pauses, unless somebody asked it to. */
  const pausedFor = (): Problem | undefined => ownPause ?? pauseOf(state, ranks);
  let pauseTold: Problem | undefined;
  let tellings = 0;
  const tellInference = async (): Promise<void> => {
    const pause = pausedFor();
    pauseTold = pause;
    const { parent } = workflowInfo();
    if (parent === undefined) return;
    tellings += 1;
    const numbers = {
      ...numbersOf(ranks, told),
      ...(pause && { problem: pause }),
      order: tellings,
    };
    const handle = getExternalWorkflowHandle(parent.workflowId, parent.runId);
    await handle.signal(runNumbersSignal, numbers);
  };
  // Histories before this patch tell by the clock.
  const byClock = patched('tell-by-steps') ? undefined : new Teller(tellInference, Date.now());
  const inference = new ProgressTeller(tellInference);
  let heard = 0;
  const show = (): void => {
    setCurrentDetails(runDetails(progress(), numbersOf(ranks, told)));
    if (pausedFor() !== pauseTold) (byClock ?? inference).now();
  };
  const enter = (next: RunState): void => {
    state = next;
    show();
  };
  const setRank = (summary: RankSummary): void => {
    ranks = ranks.with(summary.rank, summary);
    show();
  };
  /** Of the ranks that are completed. */
  const redone = (): Pick<RunResult, 'redone'> => {
    const sum = ranks.map((rank) => rank.redone).reduce(addRedone, undefined);
    return sum === undefined ? {} : { redone: sum };
  };
  const room = new StoreRoom({ runId, store }, (pause) => {
    ownPause = pause;
    show();
  });

  const work = new CancellationScope();
  setHandler(runProgressQuery, progress);
  setHandler(cancelRunSignal, () => {
    if (goesOn()) work.cancel();
  });
  const toRanks = async (tell: (rank: ChildWorkflowHandle<typeof rankWorkflow>) => Promise<void>) =>
    // A rank that has ended needs to know nothing.
    Promise.allSettled([...atWork.values()].map(tell));
  const hold = async (request: HoldRequest): Promise<void> => {
    if (!goesOn()) return;
    held.ask(request);
    show();
    await toRanks(async (rank) => rank.signal(holdSignal, request));
  };
  setHandler(holdSignal, hold);
  setHandler(pauseSignal, async (options) => hold({ hold: 'pause', now: options?.now ?? false }));
  setHandler(resumeSignal, async () => hold({ hold: 'none' }));
  setHandler(drainSignal, async () => hold({ hold: 'drain' }));
  setHandler(fleetSizeSignal, async (size) => {
    fleet = { ...fleet, ...size };
    await toRanks(async (rank) => rank.signal(fleetSizeSignal, size));
  });
  setHandler(rankPausedSignal, ({ rank, problem: paused }) => {
    const summary = ranks[rank];
    if (summary?.state === 'running') setRank(withPause(summary, paused));
  });
  setHandler(rankNumbersSignal, ({ rank, ...numbers }) => {
    // What was sent together may arrive in any order.
    const known = told.get(rank);
    if (byClock === undefined && known && numbers.done.batches < known.done.batches) return;
    told.set(rank, { ...numbers, at: new Date(Date.now()).toISOString() });
    show();
    heard += 1;
    if (byClock === undefined) inference.reached(heard);
    else byClock.changed();
  });
  enter('validating');

  const assemble = async (missing: FinalizeRunInput['missing']): Promise<FinalizeRunResult> =>
    room.waitedFor(async () =>
      python.finalizeRun.executeWithOptions(
        { summary: 'Check every row and assemble the output' },
        [{ runId, store, missing }],
      ),
    );

  const generateRank = async (summary: RankSummary): Promise<void> => {
    const { rank, rows, batches, workflowId } = summary;
    setRank({ ...summary, state: 'running' });
    try {
      const result = await begunAgain(`rank ${rank}`, async () => {
        const begunWith = { fleet, hold: held.hold };
        const child = await startChild(rankWorkflow, {
          workflowId,
          args: [
            {
              runId,
              store,
              rank,
              rows,
              batches,
              ranks: ranks.length,
              specHash: input.specHash,
              fleet,
              affinity: input.affinity,
              ...(held.hold !== 'none' && { hold: held.hold }),
            },
          ],
          // Batches record what they finished before they end, and the output must count that.
          cancellationType: ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
          // A rank holds nothing that the store does not: a run that is gone leaves no work behind.
          parentClosePolicy: ParentClosePolicy.TERMINATE,
          staticSummary: `Rank ${rank} of ${ranks.length}: ${counted(rows, 'row')} in ${counted(batches, 'batch', 'batches')}`,
          staticDetails: `Run \`${runId}\`, fleet \`${input.fleet.name}\``,
        });
        atWork.set(rank, child);
        // What was asked while it started did not reach it.
        if (begunWith.hold !== held.hold) await child.signal(holdSignal, { hold: held.hold });
        if (begunWith.fleet !== fleet) await child.signal(fleetSizeSignal, sizeOf(fleet));
        return child.result();
      });
      setRank(completedRank(summary, result));
    } catch (error) {
      setRank({ ...summary, state: work.consideredCancelled ? 'cancelled' : 'failed' });
      throw error;
    } finally {
      atWork.delete(rank);
    }
  };

  const generate = async (): Promise<void> => {
    const scope = new CancellationScope();
    await scope.run(async () => {
      const started = ranks.filter(({ batches }) => batches > 0).map(generateRank);
      try {
        await Promise.all(started);
      } catch (error) {
        // A run with a rank missing is no result: the other ranks stop, and a relaunch continues them all.
        scope.cancel();
        await CancellationScope.nonCancellable(() => Promise.allSettled(started));
        throw error;
      }
    });
  };

  /** Does `body`, but for no longer than the run may last. */
  const beforeDeadline = async (body: () => Promise<void>): Promise<void> => {
    if (input.deadline === undefined) {
      await body();
      return;
    }
    const left = Date.parse(input.deadline) - Date.now();
    const expire = (): void => {
      expired = true;
      work.cancel();
    };
    const timer = new CancellationScope();
    if (left <= 0) expire();
    else void timer.run(async () => sleep(left, DEADLINE)).then(expire, () => undefined);
    try {
      await body();
    } finally {
      timer.cancel();
    }
  };

  try {
    await work.run(async () => {
      plan = await room.waitedFor(async () =>
        python.planRun.executeWithOptions({ summary: 'Validate and plan the input' }, [
          { spec: input.spec },
        ]),
      );
      if (plan.finished) return;
      ranks = ranksOf(runId, plan);
      enter('in_progress');
      await beforeDeadline(generate);
    });
    const whole = ranks.every(({ done, batches }) => (done?.batches ?? 0) === batches);
    enter('finalizing');
    const drained = held.draining && !whole;
    output = await CancellationScope.nonCancellable(() =>
      assemble(drained ? 'batch_cancelled' : 'refuse'),
    );
    enter(drained ? 'cancelled' : 'completed');
    return { runId, state: drained ? 'cancelled' : 'completed', output, ...redone() };
  } catch (error) {
    // The compiler does not see that `enter` changes it.
    if ((state as RunState) === 'finalizing' || !work.consideredCancelled) {
      problem = problemOf(error);
      log.error('run failed', { ...problem });
      enter('failed');
      throw workflowFailure(error);
    }
  }

  // Only a user's cancellation and the deadline come here. What is done is kept; rows never generated become error
  // lines.
  return CancellationScope.nonCancellable(async () => {
    const end = expired ? 'expired' : 'cancelled';
    enter(end === 'expired' ? 'finalizing' : 'cancelling');
    if (plan !== undefined) output = await assemble(`batch_${end}`);
    enter(end);
    return { runId, state: end, ...(output && { output }), ...redone() };
  });
}
