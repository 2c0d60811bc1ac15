import { ClientError, describeFailure, type Failure } from '../client/errors.js';
import type { InputProblem } from '../contracts/run.js';
import { paint } from '../setup/paint.js';

/** Prose for people. Ids, tables and JSON that scripts read go to standard output instead. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** One line of standard output. */
export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** One JSON value on one line of standard output. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value));
}

/** A table of aligned columns; the first row is the head. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** `line 3 (row-3): [invalid_json] ...`. Line 0 is the whole file. */
export function problemLine({ line, customId, code, message }: InputProblem): string {
  const where = line === 0 ? 'the file' : `line ${line}`;
  return `  ${where}${customId === undefined ? '' : ` (${customId})`}: [${code}] ${message}`;
}

/** A line for each problem, and how many are not shown. */
export function problemLines(problems: readonly InputProblem[], total: number): string[] {
  const hidden = total - problems.length;
  return [...problems.map(problemLine), ...(hidden > 0 ? [`  ... and ${hidden} more`] : [])];
}

/** A failure as people read it: what, every problem with its line, and the way out. */
export function failureText(failure: Failure): string {
  return [
    `${paint.red('error')} ${failure.message}`,
    ...problemLines(failure.problems, failure.totalProblems),
    ...(failure.wayOut === undefined ? [] : [`${paint.dim('way out:')} ${failure.wayOut}`]),
  ].join('\n');
}

/** Shows a failure the way that was asked for. The caller sets the exit code. */
export function reportFailure(failure: Failure, json: boolean): void {
  if (json) printJson({ event: 'error', ...failure });
  else say(failureText(failure));
}

/**
 * Ends a command that failed: shows why and sets the exit code, so that output still in the pipe gets out.
 * A bug shows its stack when `RANKFLOW_DEBUG` is set.
 */
export function exitWith(error: unknown, json: boolean): void {
  const failure = describeFailure(error);
  reportFailure(failure, json);
  if (process.env['RANKFLOW_DEBUG'] && error instanceof Error) say(error.stack ?? error.message);
  process.exitCode = failure.exitCode;
}

/** What commander says of a command line that it does not understand. */
export function asUsage(error: Error): ClientError {
  return new ClientError('Usage', error.message.replace(/^error: /u, ''), {
    wayOut: 'Add --help for the options.',
    cause: error,
  });
}

/** An error of something that brings up infrastructure: what it does not name means that it is not there. */
export function asInfrastructure(error: unknown): ClientError {
  if (error instanceof ClientError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new ClientError('Unreachable', message, {
    wayOut: 'Run `rankflow doctor` to see what is missing.',
    cause: error,
  });
}

/** Runs something that brings up infrastructure. */
export async function infrastructure<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw asInfrastructure(error);
  }
}
