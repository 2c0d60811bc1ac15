import {
  CancellationScope,
  ChildWorkflowCancellationType,
  ParentClosePolicy,
  defineQuery,
  defineSignal,
  executeChild,
  log,
  proxyActivities,
  setCurrentDetails,
  setHandler,
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
  Problem,
  RankSummary,
  RunProgress,
  RunResult,
  RunWorkflowInput,
} from '../contracts/workflows.js';
import { counted } from '../text.js';
import { problemOf, workflowFailure } from './failures.js';
import { UNTIL_DONE } from './options.js';
import { rankPausedSignal, rankWorkflow } from './rank.js';
import {
  completedRank,
  finishedCounts,
  pauseOf,
  ranksOf,
  runDetails,
  withPause,
} from './run-progress.js';
import { StoreRoom } from './store-room.js';

export const runProgressQuery = defineQuery<RunProgress>(QUERY.progress);
export const cancelRunSignal = defineSignal(SIGNAL.cancelRun);

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

  const progress = (): RunProgress => {
    const pause = ownPause ?? pauseOf(state, ranks);
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
  const show = (): void => setCurrentDetails(runDetails(progress()));
  const enter = (next: RunState): void => {
    state = next;
    show();
  };
  const setRank = (summary: RankSummary): void => {
    ranks = ranks.with(summary.rank, summary);
    show();
  };
  const room = new StoreRoom({ runId, store }, (pause) => {
    ownPause = pause;
    show();
  });

  const work = new CancellationScope();
  setHandler(runProgressQuery, progress);
  setHandler(cancelRunSignal, () => {
    if (state === 'validating' || state === 'in_progress') work.cancel();
  });
  setHandler(rankPausedSignal, ({ rank, problem: paused }) => {
    const summary = ranks[rank];
    if (summary?.state === 'running') setRank(withPause(summary, paused));
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
      const result = await executeChild(rankWorkflow, {
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
            fleet: input.fleet,
            affinity: input.affinity,
          },
        ],
        // Batches record what they finished before they end, and the output must count that.
        cancellationType: ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        // A rank holds nothing that the store does not: a run that is gone leaves no work behind.
        parentClosePolicy: ParentClosePolicy.TERMINATE,
        staticSummary: `Rank ${rank} of ${ranks.length}: ${counted(rows, 'row')} in ${counted(batches, 'batch', 'batches')}`,
        staticDetails: `Run \`${runId}\`, fleet \`${input.fleet.name}\``,
      });
      setRank(completedRank(summary, result));
    } catch (error) {
      setRank({ ...summary, state: work.consideredCancelled ? 'cancelled' : 'failed' });
      throw error;
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
      await generate();
    });
    enter('finalizing');
    output = await CancellationScope.nonCancellable(() => assemble('refuse'));
    enter('completed');
    return { runId, state: 'completed', output };
  } catch (error) {
    // The compiler does not see that `enter` changes it.
    if ((state as RunState) === 'finalizing' || !work.consideredCancelled) {
      problem = problemOf(error);
      log.error('run failed', { ...problem });
      enter('failed');
      throw workflowFailure(error);
    }
  }

  // Only a user's cancellation comes here. What is done is kept; rows never generated become error lines.
  return CancellationScope.nonCancellable(async () => {
    enter('cancelling');
    if (plan !== undefined) output = await assemble('batch_cancelled');
    enter('cancelled');
    return { runId, state: 'cancelled', ...(output && { output }) };
  });
}
