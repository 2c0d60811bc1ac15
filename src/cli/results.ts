import { type Command, InvalidArgumentError } from 'commander';

interface Flags {
  readonly rank?: number;
  readonly errors?: boolean;
  readonly format?: string;
  readonly out?: string;
  readonly combined?: boolean;
  readonly store?: string;
  readonly json?: boolean;
}

/** `rankflow results`: reads what a finished run answered. */
export function register(program: Command): void {
  program
    .command('results')
    .description('print the answers of a finished run, in input order')
    .argument('<run-id>')
    .option('--rank <r>', 'only the rows of this rank', rankNumber)
    .option('--errors', 'the error lines instead')
    .option('--combined', 'with the runs that it retries, as one output (see retry-failed)')
    .option('--format <format>', 'jsonl, or parquet with --out')
    .option('--out <file>', 'write them here instead of standard output')
    .option('--store <root>', 'where the run is (default: where it was started with)')
    .option('--json', 'print problems as JSON; answers are JSON lines anyway')
    .action(results);
}

function rankNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('Expected 0 or more.');
  return value;
}

async function results(id: string, flags: Flags): Promise<void> {
  const { runIdOf } = await import('../client/runs.js');
  const { storeOf } = await import('./only-stored.js');
  const { readResults, resultFormat } = await import('./outcome.js');
  const { prepareOut } = await import('./prepare.js');
  const { say } = await import('./output.js');

  const runId = runIdOf(id);
  const format = resultFormat(flags.format, flags.out);
  const store = flags.store ?? (await storeOf(runId));
  const { rank, errors, out, combined } = flags;
  await prepareOut(out);
  await readResults(runId, { store, format, rank, errors, out, combined });
  if (out !== undefined) say(`Written to ${out}`);
}
