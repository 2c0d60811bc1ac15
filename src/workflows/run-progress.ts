import type { PlanSummary, RunState } from '../contracts/run.js';
import { rankWorkflowId } from '../contracts/names.js';
import type {
  Problem,
  RankProgressView,
  RankResult,
  RankSummary,
  RunProgress,
} from '../contracts/workflows.js';
import { problemRows, table } from './details.js';
import { NOTHING_DONE, addCounts } from './window.js';

/** One entry for each rank of a plan; a rank that owns no rows has nothing to do. */
export function ranksOf(runId: string, plan: PlanSummary): RankSummary[] {
  return plan.batches.map((batches, rank) => ({
    rank,
    workflowId: rankWorkflowId(runId, rank),
    state: batches === 0 ? 'completed' : 'waiting',
    rows: plan.rowsPerRank[rank] ?? 0,
    batches,
    ...(batches === 0 && { done: NOTHING_DONE }),
  }));
}

/** Why a run that generates pauses: one rank that waits for the store holds all of it up in the end. */
export function pauseOf(state: RunState, ranks: readonly RankSummary[]): Problem | undefined {
  return state === 'in_progress'
    ? ranks.find(({ paused }) => paused !== undefined)?.paused
    : undefined;
}

/** The entry of a rank that pauses, or goes on when there is no problem. */
export function withPause(summary: RankSummary, problem: Problem | undefined): RankSummary {
  const { paused: _before, ...rest } = summary;
  return { ...rest, ...(problem && { paused: problem }) };
}

/** The entry of a rank whose workflow has returned. */
export function completedRank(summary: RankSummary, result: RankResult): RankSummary {
  const { rank: _same, ...counts } = result;
  return { ...summary, state: 'completed', ...counts };
}

/** Sum over the completed ranks. */
export function finishedCounts(ranks: readonly RankSummary[]): RunProgress['finished'] {
  return ranks.reduce((sum, { done }) => addCounts(sum, done ?? NOTHING_DONE), NOTHING_DONE);
}

/** Markdown for the Temporal UI. */
export function runDetails(progress: RunProgress): string {
  const { state, plan, finished, ranks, problem } = progress;
  const done = ranks.filter((rank) => rank.state === 'completed').length;
  const quarantined = ranks.reduce((sum, rank) => sum + (rank.quarantined ?? 0), 0);
  return table(
    ['Run', progress.runId],
    [
      ['State', state],
      ...(plan === undefined
        ? []
        : ([
            ['Rows', plan.rows],
            ['Batches', plan.batches.reduce((sum, count) => sum + count, 0)],
            ['Ranks completed', `${done} of ${ranks.length}`],
            ['Rows of completed ranks', finished.rows],
            ['Rows failed', finished.failedRows],
            ['Completion tokens', finished.completionTokens],
          ] as const)),
      ...(state === 'in_progress'
        ? ([['Live numbers', 'at each rank, under User Metadata: see Relationships']] as const)
        : []),
      ...(quarantined === 0 ? [] : ([['Batches quarantined', quarantined]] as const)),
      ...problemRows(problem),
    ],
  );
}

/**
 * Markdown for the Temporal UI, of a rank.
 *
 * @param since when this history began, in milliseconds since the epoch, and the completion tokens at that time
 */
export function rankDetails(
  progress: RankProgressView,
  since: { readonly at: number; readonly tokens: number },
  now: number,
): string {
  const { rowsDone, rowsTotal, completionTokens, suspects = [] } = progress;
  const seconds = (now - since.at) / 1000;
  const rate = seconds > 0 ? (completionTokens - since.tokens) / seconds : 0;
  const left = (rowsTotal - rowsDone) * (completionTokens / Math.max(1, rowsDone));
  const rows = table(
    ['Rank', progress.rank],
    [
      ['Rows', `${rowsDone} of ${rowsTotal}`],
      ['Rows failed', progress.rowsFailed],
      ['Batches', `${progress.batchesDone} of ${progress.batchesTotal}`],
      ['Batches in the queue or in work', progress.inFlight.length],
      ['Completion tokens', completionTokens],
      ...(rate > 0 ? [['Completion tokens per second', Math.round(rate)] as const] : []),
      ...(rate > 0 && left > 0 ? [['Time left', `about ${minutes(left / rate)}`] as const] : []),
      ['Batches tried again', progress.retries],
      ['Rows taken over from lost attempts', progress.salvagedRows],
      // They do not change before the next batch ends, also when none does any more.
      ['As of', new Date(now).toISOString()],
    ],
  );
  if (suspects.length === 0) return rows;
  const alone = `Engines died with these batches in work, so each has one for itself now: **${suspects.join(', ')}**`;
  return `${rows}\n\n${alone}`;
}

const minutes = (seconds: number): string =>
  seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
