import type { Failure } from '../client/errors.js';
import { isOver, type RunSnapshot } from '../client/snapshot.js';
import type { BatchState, Moment } from './batch-records.js';
import type { RunResults } from './results.js';
import type { BatchError } from './schemas.js';

/** What was seen of the run of a batch. */
export interface Seen {
  /** What it wrote, once it has. */
  readonly results?: RunResults;
  /** `gone`: Temporal knows of no such run. Absent when it was not asked, or did not answer. */
  readonly run?: RunSnapshot | 'gone';
}

/** How a batch ends. */
export interface BatchEnd {
  readonly status: 'completed' | 'failed' | 'expired' | 'cancelled';
  /** Seconds since the epoch. */
  readonly at: number;
  readonly errors?: readonly BatchError[];
  readonly results?: RunResults;
}

/** What is to be done next about a batch. */
export type Step =
  | { readonly do: 'wait' }
  /** Check its input and start its run. */
  | { readonly do: 'start' }
  /** Its time is over: its run, which has the same deadline, ends by itself and writes what is done. */
  | { readonly do: 'expire' }
  /** Have its run stop and write what is done, because somebody asked or because it has not expired by itself. */
  | { readonly do: 'stop'; readonly why: 'cancelling' | 'expiring' }
  | { readonly do: 'end'; readonly end: BatchEnd };

/**
 * Seconds after its time in which a run is expected to expire by itself, and so to say in its error lines that it did:
 * clocks differ by less, and a look is due every few of them. One that a server of before started has no deadline.
 */
const OVERDUE_SECONDS = 60;

/**
 * What is to be done next, from what is recorded and what was seen. Pure.
 *
 * @param now seconds since the epoch
 */
export function nextStep(state: BatchState, seen: Seen, now: number): Step {
  const { request, started, moments } = state;
  const stopped = moments.cancelling !== undefined ? 'cancelled' : 'expired';
  const over = moments.cancelling !== undefined || moments.expiring !== undefined;
  // A run that Temporal has lost, with its database, goes on from what the store has of it.
  if (started === undefined || (seen.run === 'gone' && seen.results === undefined)) {
    if (over || now >= request.expiresAt) return { do: 'end', end: { status: stopped, at: now } };
    return { do: 'start' };
  }
  const end = endOf(seen, stopped);
  if (end !== undefined) return { do: 'end', end };
  if (moments.cancelling !== undefined) return { do: 'stop', why: 'cancelling' };
  if (now >= request.expiresAt + OVERDUE_SECONDS) return { do: 'stop', why: 'expiring' };
  if (over || now >= request.expiresAt) return { do: 'expire' };
  return { do: 'wait' };
}

function endOf({ results, run }: Seen, stopped: 'cancelled' | 'expired'): BatchEnd | undefined {
  if (results !== undefined) {
    const status = results.state === 'cancelled' ? stopped : results.state;
    return { status, at: Math.floor(results.at / 1000), results };
  }
  if (run === undefined || run === 'gone' || !isOver(run.state)) return undefined;
  const at = Math.floor(run.at / 1000);
  if (run.state === 'cancelled') return { status: stopped, at };
  if (run.state === 'expired') return { status: 'expired', at };
  return { status: 'failed', at, errors: errorsOf(run.failure) };
}

/** Moments that are seen and not recorded yet. Pure. */
export function newMoments({ moments }: BatchState, { run }: Seen): Moment[] {
  if (run === undefined || run === 'gone') return [];
  const reached: Moment[] = [];
  // The rows are known once the input is checked, which is when OpenAI's batches are in progress.
  if (run.totalRows !== undefined) reached.push('inProgress');
  if (run.state === 'finalizing') reached.push('finalizing');
  return reached.filter((moment) => moments[moment] === undefined);
}

/** What the owner of a batch can mend; everything else is for whoever runs the server. */
function errorsOf(failure: Failure | undefined): BatchError[] {
  if (failure?.type !== 'InvalidInput' || failure.problems.length === 0) return [serverError()];
  return failure.problems.map(({ code, message, line }) => ({
    code,
    // What is said of the whole input names its path on the server.
    message: line === 0 ? 'The input file cannot be used.' : message,
    param: null,
    line: line === 0 ? null : line,
  }));
}

/** Says nothing of the server: paths, hosts and models are the operator's, who finds them under the batch's id. */
export const serverError = (): BatchError => ({
  code: 'server_error',
  message:
    'The server could not run this batch. Its operator finds the reason under the id of the batch.',
  param: null,
  line: null,
});
