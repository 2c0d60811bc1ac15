import type { RunSpec } from '../contracts/run.js';
import { ClientError } from './errors.js';
import { prepareRun, type PreparedRun, type RunOptions } from './inference.js';
import { pythonError, runPython } from './python.js';

/** How a retry is generated: everything that is no part of what is asked of the model. */
export type RetryOptions = Omit<
  RunOptions,
  'input' | 'model' | 'sampling' | 'onInvalid' | 'fresh' | 'runId'
> & {
  readonly store: string;
  /** Default: the id of the run and `-retry-1`, of a retry the next number. */
  readonly runId?: string;
};

/** The failed rows of a run as a run of their own. */
export interface PreparedRetry {
  readonly run: PreparedRun;
  readonly rows: number;
  /** Rows that were no valid request: they are left out, as they would fail again. */
  readonly invalid: number;
}

interface RetryInput {
  readonly input: string;
  readonly rows: number;
  readonly invalid: number;
  readonly spec: RunSpec;
}

/** `nightly` → `nightly-retry-1` → `nightly-retry-2`. */
export function retryIdOf(runId: string): string {
  const [, base, number] = /^(.+)-retry-(\d+)$/u.exec(runId) ?? [undefined, runId, '0'];
  return `${base}-retry-${Number(number) + 1}`;
}

/**
 * Makes a run of the failed rows of a finished one: the same requests under the same ids, for the same model.
 *
 * @throws ClientError `NoResults` when the run is not finished, `Usage` when no row of it can be run again
 */
export async function prepareRetry(runId: string, options: RetryOptions): Promise<PreparedRetry> {
  const { store } = options;
  const retryId = options.runId ?? retryIdOf(runId);
  const result = await runPython([
    ...['rankflow.rows', 'retry-input', '--store', store],
    ...['--run-id', runId, '--retry-id', retryId],
  ]);
  if (result.exitCode !== 0) throw pythonError('Reading the failed rows', result);
  const { input, rows, invalid, spec } = JSON.parse(result.stdout) as RetryInput;
  if (rows === 0) {
    const bad = invalid > 0 ? `; ${invalid} rows were no valid requests` : '';
    throw new ClientError('Usage', `No row of ${runId} can be run again${bad}.`);
  }
  const run = await prepareRun({
    ...options,
    input: { uri: input, format: 'openai' },
    model: spec.model,
    // Requests hold their sampling already. A row that is refused now is an error line, as it was before.
    onInvalid: 'record',
    batch: { ...spec.batch, ...options.batch },
    runId: retryId,
  });
  return { run: { ...run, retryOf: runId }, rows, invalid };
}
