import type { FinalizeRunResult, PlanSummary, RunState } from '../contracts/run.js';
import { rankWorkflowId } from '../contracts/names.js';
import type {
  LiveNumbers,
  Problem,
  RankProgressView,
  RankResult,
  RankSummary,
  RunNumbers,
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

/** What a rank has told, and when (ISO 8601). */
export interface ToldNumbers extends LiveNumbers {
  readonly at: string;
}

/** How far a run is: exact for its completed ranks, of the others what they have told. */
export function numbersOf(
  ranks: readonly RankSummary[],
  told: ReadonlyMap<number, ToldNumbers>,
): RunNumbers {
  const done = ranks
    .map((rank) => rank.done ?? told.get(rank.rank)?.done ?? NOTHING_DONE)
    .reduce(addCounts, NOTHING_DONE);
  const live = ranks
    .filter(({ state }) => state === 'running')
    .flatMap(({ rank }) => told.get(rank) ?? []);
  const [at] = live.map((numbers) => numbers.at).toSorted();
  const rate = live.reduce((sum, numbers) => sum + numbers.tokensPerSecond, 0);
  return { done, tokensPerSecond: rate, ...(at !== undefined && { at }) };
}

/**
 * The rows of a table that say how far a run is, and what it has come to.
 *
 * @param numbers undefined while nobody has told them
 * @param works whether it has a speed
 */
export function progressRows(
  rows: number,
  numbers: RunNumbers | undefined,
  output: FinalizeRunResult | undefined,
  works: boolean,
): TableRow[] {
  if (output !== undefined) {
    return [
      ['Rows', rows],
      ['Rows answered', output.succeeded],
      ['Rows failed', output.failed],
      ['Output', output.outputUri],
    ];
  }
  if (numbers === undefined) return [['Rows', rows]];
  const { done, tokensPerSecond: rate, at } = numbers;
  const left = (rows - done.rows) * (done.completionTokens / Math.max(1, done.rows));
  return [
    ['Rows', `${done.rows} of ${rows}`],
    ['Rows failed', done.failedRows],
    ['Completion tokens', done.completionTokens],
    ...(works ? speedRows(rate, left) : []),
    ...(at === undefined ? [] : [['As of', at] as const]),
  ];
}

type TableRow = readonly [string, string | number];

function speedRows(rate: number, tokensLeft: number): TableRow[] {
  if (rate <= 0) return [];
  const time =
    tokensLeft > 0 ? [['Time left', `about ${duration(tokensLeft / rate)}`] as const] : [];
  return [['Completion tokens per second', Math.round(rate)], ...time];
}

/** Markdown for the Temporal UI. */
export function runDetails(progress: RunProgress, numbers: RunNumbers): string {
  const { state, plan, ranks, output, problem } = progress;
  const done = ranks.filter((rank) => rank.state === 'completed').length;
  const quarantined = ranks.reduce((sum, rank) => sum + (rank.quarantined ?? 0), 0);
  return table(
    ['Run', progress.runId],
    [
      ['State', state],
      ...(plan === undefined
        ? []
        : ([
            ...progressRows(plan.rows, numbers, output, state === 'in_progress'),
            ['Batches', plan.batches.reduce((sum, count) => sum + count, 0)],
            ['Ranks completed', `${done} of ${ranks.length}`],
          ] as const)),
      ...(quarantined === 0 ? [] : ([['Batches quarantined', quarantined]] as const)),
      ...problemRows(problem),
    ],
  );
}

/** When a history began, in milliseconds since the epoch, and the completion tokens at that time. */
interface Since {
  readonly at: number;
  readonly tokens: number;
}

/** Markdown for the Temporal UI, of a rank. */
export function rankDetails(progress: RankProgressView, since: Since, now: number): string {
  const { rowsDone, rowsTotal, completionTokens, suspects = [] } = progress;
  const rate = tokensPerSecond(completionTokens, since, now);
  const left = (rowsTotal - rowsDone) * (completionTokens / Math.max(1, rowsDone));
  const rows = table(
    ['Rank', progress.rank],
    [
      ['Rows', `${rowsDone} of ${rowsTotal}`],
      ['Rows failed', progress.rowsFailed],
      ['Batches', `${progress.batchesDone} of ${progress.batchesTotal}`],
      ['Batches in the queue or in work', progress.inFlight.length],
      ['Completion tokens', completionTokens],
      ...speedRows(rate, left),
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

/** How fast it went since then; 0 when nobody can tell. */
export function tokensPerSecond(tokens: number, since: Since, now: number): number {
  const seconds = (now - since.at) / 1000;
  return seconds > 0 ? (tokens - since.tokens) / seconds : 0;
}

function duration(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5_400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`;
}
