import type { BatchRange, GenerateBatchResult, RowCounts } from '../contracts/run.js';
import type { RunFleet } from '../contracts/workflows.js';

/** The batch numbers of ranges, ascending. */
export function* batchNumbers(ranges: readonly BatchRange[]): Generator<number, undefined> {
  for (const { first, last } of ranges) {
    for (let batch = first; batch <= last; batch += 1) yield batch;
  }
}

/** A workflow may have 2,000 activities pending; the rest is for what they need besides. */
const MOST_SCHEDULED = 1_500;

/** Batches scheduled for each that the engines admit: one with room always finds a batch waiting. */
const WAITING = 1.5;
/**
 * Whole batches in work for each that their rows amount to: a batch thins out to its longest rows, and log-normal
 * lengths leave it a fifth to a third of its rows on average. Engines count the rows, and admit no more of them.
 */
const THINNED = 3;

/**
 * How many batches one rank keeps scheduled: for the engines that may come, where a fleet scales by itself. All
 * ranks together schedule more than the engines admit, so that an engine with room always finds a batch waiting;
 * one rank never fewer than two, so that the end of a batch is no barrier.
 *
 * @param rowsPerBatch of this rank, on average
 * @param thinned whole batches in work for each that their rows amount to, where engines count rows
 */
export function windowSize(
  {
    engines: there,
    maxEngines = 0,
    maxConcurrentBatches,
    rowsPerEngine,
  }: Pick<RunFleet, 'engines' | 'maxEngines' | 'maxConcurrentBatches' | 'rowsPerEngine'>,
  ranks: number,
  rowsPerBatch: number,
  thinned = THINNED,
): number {
  const engines = Math.max(there, maxEngines);
  const admitted =
    rowsPerEngine === undefined
      ? maxConcurrentBatches
      : Math.max(maxConcurrentBatches, Math.ceil((thinned * rowsPerEngine) / rowsPerBatch));
  return Math.min(MOST_SCHEDULED, Math.max(2, Math.ceil((engines * admitted * WAITING) / ranks)));
}

/** A batch takes about six history events, and the server asks for a new history at 4,096. */
const USUAL_BATCHES = 400;
/** At each end of a history a window drains, and engines idle: in so many windows that is a small part of the time. */
const WINDOWS_PER_HISTORY = 8;
/** Where these are few: with the spread 1,650 batches, whose events a person still reads. */
const MANY_BATCHES = 1_150;
const LEAST_WINDOWS = 2;
/** The server ends a workflow at 51,200; the rest is for what is in work. Two of the widest windows stay below it. */
export const MOST_EVENTS = 30_000;

/**
 * After how many batches a rank continues as new. The spread keeps the ranks of a run from draining their windows
 * together.
 *
 * @param window how many batches it keeps scheduled; 0: as if they were few
 */
export function batchesPerHistory(rank: number, window = 0): number {
  const enough = Math.min(MANY_BATCHES, window * WINDOWS_PER_HISTORY);
  const batches = Math.max(USUAL_BATCHES, enough, window * LEAST_WINDOWS);
  return batches + (rank % 8) * Math.floor(batches / 16);
}

export const NOTHING_DONE: RowCounts = {
  batches: 0,
  rows: 0,
  failedRows: 0,
  promptTokens: 0,
  completionTokens: 0,
};

export function addCounts(sum: RowCounts, other: RowCounts): RowCounts {
  return {
    batches: sum.batches + other.batches,
    rows: sum.rows + other.rows,
    failedRows: sum.failedRows + other.failedRows,
    promptTokens: sum.promptTokens + other.promptTokens,
    completionTokens: sum.completionTokens + other.completionTokens,
  };
}

/** One committed batch, as it counts for its rank. */
export function countsOf(result: GenerateBatchResult): RowCounts {
  const { rows, failedRows, promptTokens, completionTokens } = result;
  return { batches: 1, rows, failedRows, promptTokens, completionTokens };
}
