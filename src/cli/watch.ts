import type { Command } from 'commander';

interface Flags {
  readonly out?: string;
  readonly format?: string;
  readonly store?: string;
  readonly json?: boolean;
}

/** `rankflow watch`: attaches to a run. */
export function register(program: Command): void {
  program
    .command('watch')
    .description('follow a run to its end')
    .argument('<run-id>')
    .option('--out <file>', 'copy the results here; errors go beside it')
    .option('--format <format>', 'of --out: jsonl or parquet')
    .option(
      '--store <root>',
      'where to look when Temporal does not know it (default: the data folder)',
    )
    .option('--json', 'print events as JSON lines')
    .action(watch);
}

async function watch(id: string, flags: Flags): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { getRun, memoOf, runIdOf } = await import('../client/runs.js');
  const { ClientError, EXIT } = await import('../client/errors.js');
  const { isOver } = await import('../client/snapshot.js');
  const { paths } = await import('../setup/paths.js');
  const { isAbsent, lookAtRun, nobodyWorks } = await import('./only-stored.js');
  const { concludeRun, resultFormat } = await import('./outcome.js');
  const { prepareOut } = await import('./prepare.js');
  const { followRun, sayDetached } = await import('./progress/follow.js');

  const json = flags.json ?? false;
  const runId = runIdOf(id);
  const format = resultFormat(flags.format, flags.out ?? 'results.jsonl');
  await prepareOut(flags.out);
  try {
    await withClient(async (client) => {
      const store = memoOf(await getRun(client, runId))?.store ?? paths.store;
      const last = await followRun(client, runId, json);
      if (last !== undefined) {
        await concludeRun(last, { store, out: flags.out, format }, json);
        return;
      }
      sayDetached(runId);
      process.exitCode = EXIT.interrupted;
    });
  } catch (error) {
    if (!isAbsent(error)) throw error;
    const store = flags.store ?? paths.store;
    const snapshot = await lookAtRun(runId, store, () => {});
    if (!isOver(snapshot.state)) throw new ClientError('NotFound', nobodyWorks(runId, error));
    await concludeRun(snapshot, { store, out: flags.out, format }, json);
  }
}
