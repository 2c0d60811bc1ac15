import path from 'node:path';

import { costOf, type Prices } from '../client/cost.js';
import { ClientError, EXIT } from '../client/errors.js';
import { pythonError, runPython } from '../client/python.js';
import type { RunSnapshot } from '../client/snapshot.js';
import { paint } from '../setup/paint.js';
import { costText } from './cost-text.js';
import { printJson, reportFailure, say } from './output.js';
import { formatSeconds } from './progress/render.js';

export type ResultFormat = 'jsonl' | 'parquet';

/** Where a copy of the results goes. */
export interface ResultTarget {
  readonly store: string;
  readonly out?: string | undefined;
  readonly format: ResultFormat;
}

/** `results.jsonl` → `results.errors.jsonl`, beside it. */
export function errorsFileOf(out: string): string {
  const { dir, name } = path.parse(out);
  return path.join(dir, `${name}.errors.jsonl`);
}

/**
 * Ends a command that saw a run to its end: copies the results to where they were asked for, says how it went
 * and sets the exit code.
 */
export async function concludeRun(
  snapshot: RunSnapshot,
  target: ResultTarget,
  json: boolean,
  prices: Prices = {},
): Promise<void> {
  const { runId, state, output, failure, usage, completionTokens } = snapshot;
  const cost = usage && costOf(usage, completionTokens, prices);
  if (failure !== undefined) {
    reportFailure(failure, json);
    process.exitCode = failure.exitCode;
    if (failure.exitCode !== EXIT.usage && !json) say('Run the same command again to go on.');
    return;
  }
  process.exitCode = state === 'completed' && output?.failed === 0 ? EXIT.ok : EXIT.failed;
  const files = output && target.out ? await copyResults(runId, target, output.failed > 0) : {};
  if (json) {
    printJson({ event: 'result', runId, state, ...output, ...(cost && { cost }), ...files });
    return;
  }
  say(summary(snapshot));
  if (cost !== undefined) say(costText(cost));
  if (output === undefined) return;
  say(`results  ${files.out ?? output.outputUri}`);
  if (output.failed > 0) say(`errors   ${files.errorsOut ?? output.errorsUri}`);
}

function summary({ state, output, startedAt, at }: RunSnapshot): string {
  const word = state === 'completed' ? paint.green(state) : paint.yellow(state);
  if (output === undefined) return `${word}: nothing was generated`;
  const { rows, succeeded, failed, promptTokens, completionTokens } = output;
  const counts = `${rows} rows: ${succeeded} succeeded, ${failed} failed`;
  const tokens = `${promptTokens} prompt and ${completionTokens} generated tokens`;
  const time = at > startedAt ? `, ${formatSeconds((at - startedAt) / 1000)}` : '';
  return `${word}: ${counts}; ${tokens}${time}`;
}

async function copyResults(
  runId: string,
  target: ResultTarget,
  anyFailed: boolean,
): Promise<{ out?: string; errorsOut?: string }> {
  const out = path.resolve(target.out ?? '');
  await readResults(runId, { ...target, out });
  if (!anyFailed) return { out };
  const errorsOut = errorsFileOf(out);
  await readResults(runId, { store: target.store, out: errorsOut, format: 'jsonl', errors: true });
  return { out, errorsOut };
}

export interface ReadResults extends ResultTarget {
  /** Only the rows of this rank. */
  readonly rank?: number | undefined;
  /** The error lines instead of the answers. */
  readonly errors?: boolean | undefined;
  /** Together with the runs that it retries. */
  readonly combined?: boolean | undefined;
}

/**
 * Writes the results of a finished run to a file, or to standard output when none is named.
 *
 * @throws ClientError when the run is not finished, has no such rank, or the file cannot be written
 */
export async function readResults(runId: string, what: ReadResults): Promise<void> {
  const { store, out, format, rank, errors, combined } = what;
  const result = await runPython(
    [
      ...['rankflow.rows', 'results', '--store', store, '--run-id', runId, '--format', format],
      ...(rank === undefined ? [] : ['--rank', String(rank)]),
      ...(errors ? ['--errors'] : []),
      ...(combined ? ['--combined'] : []),
      ...(out === undefined ? [] : ['--out', path.resolve(out)]),
    ],
    out === undefined ? { sink: process.stdout } : {},
  );
  if (result.exitCode !== 0) throw pythonError('Reading the results', result);
}

/** `jsonl` or `parquet`, from the flag or else the ending of the file. */
export function resultFormat(flag: string | undefined, out: string | undefined): ResultFormat {
  const format = flag ?? (out?.endsWith('.parquet') ? 'parquet' : 'jsonl');
  if (format === 'parquet' && out === undefined) {
    throw new ClientError('Usage', 'Parquet is no format for a terminal or a pipe.', {
      wayOut: 'Name a file with --out.',
    });
  }
  if (format === 'jsonl' || format === 'parquet') return format;
  throw new ClientError('Usage', `--format: ${format} is neither jsonl nor parquet`);
}
