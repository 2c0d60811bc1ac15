import type { RunSnapshot } from '../client/snapshot.js';
import type { BatchEnd } from './batch-plan.js';
import type { BatchState } from './batch-records.js';
import type { RunResults } from './results.js';
import type { Batch, BatchStatus } from './schemas.js';

/** A batch on its way, as OpenAI's API shows it. Pure. */
export function liveBatch(state: BatchState, run: RunSnapshot | undefined): Batch {
  const status = liveStatus(state, run);
  return { ...common(state), status, request_counts: liveCounts(state, status, run) };
}

function liveStatus({ moments }: BatchState, run: RunSnapshot | undefined): BatchStatus {
  if (moments.cancelling !== undefined) return 'cancelling';
  const finalizing = moments.finalizing !== undefined || run?.state === 'finalizing';
  // A batch whose time is over writes down what is done.
  if (finalizing || moments.expiring !== undefined) return 'finalizing';
  const checked = moments.inProgress !== undefined || run?.totalRows !== undefined;
  return checked ? 'in_progress' : 'validating';
}

/** Counts are told once the input is checked; what a run reports between commits may run ahead of them. */
function liveCounts(
  { started }: BatchState,
  status: BatchStatus,
  run: RunSnapshot | undefined,
): Batch['request_counts'] {
  if (status === 'validating') return { total: 0, completed: 0, failed: 0 };
  const total = run?.totalRows ?? started?.rows ?? 0;
  const failed = Math.min(run?.failedRows ?? 0, total);
  const completed = Math.max(0, Math.min((run?.doneRows ?? 0) - failed, total - failed));
  return { total, completed, failed };
}

/** Ids of the files that a batch ends with; null for one that would be empty. */
export interface ResultIds {
  readonly output: string | null;
  readonly errors: string | null;
}

/** A batch that has ended, as it stays. Pure. */
export function endedBatch(state: BatchState, end: BatchEnd, files: ResultIds): Batch {
  const { status, at, errors, results } = end;
  const live = common(state);
  // What went by too fast to be seen happened by the end.
  const seen = (moment: number | null): number | null =>
    results === undefined ? moment : Math.min(moment ?? at, at);
  return {
    ...live,
    status,
    errors: errors === undefined ? null : { object: 'list', data: [...errors] },
    output_file_id: files.output,
    error_file_id: files.errors,
    in_progress_at: seen(live.in_progress_at),
    finalizing_at: seen(live.finalizing_at),
    [`${status}_at`]: at,
    request_counts: endedCounts(state, results),
    usage: results === undefined ? null : usageOf(results),
  };
}

function endedCounts(
  { started }: BatchState,
  results: RunResults | undefined,
): Batch['request_counts'] {
  if (results === undefined) return { total: started?.rows ?? 0, completed: 0, failed: 0 };
  const { rows, succeeded, failed } = results;
  return { total: rows, completed: succeeded, failed };
}

/** Engines do not tell cached and reasoning tokens apart, so none are told. */
const usageOf = ({ promptTokens, completionTokens }: RunResults): Batch['usage'] => ({
  input_tokens: promptTokens,
  input_tokens_details: { cached_tokens: 0 },
  output_tokens: completionTokens,
  output_tokens_details: { reasoning_tokens: 0 },
  total_tokens: promptTokens + completionTokens,
});

function common({ request, started, moments }: BatchState): Batch {
  return {
    id: request.id,
    object: 'batch',
    endpoint: request.endpoint,
    model: started?.model ?? null,
    errors: null,
    input_file_id: request.inputFileId,
    completion_window: request.completionWindow,
    status: 'validating',
    output_file_id: null,
    error_file_id: null,
    created_at: request.createdAt,
    in_progress_at: moments.inProgress ?? null,
    expires_at: request.expiresAt,
    finalizing_at: moments.finalizing ?? moments.expiring ?? null,
    completed_at: null,
    failed_at: null,
    expired_at: null,
    cancelling_at: moments.cancelling ?? null,
    cancelled_at: null,
    request_counts: { total: 0, completed: 0, failed: 0 },
    usage: null,
    metadata: request.metadata,
  };
}
