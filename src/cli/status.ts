import type { Command } from 'commander';

/** `rankflow status`: one look at a run. Exit code 1 when it failed or rows of it did. */
export function register(program: Command): void {
  program
    .command('status')
    .description('show how far a run is')
    .argument('<run-id>')
    .option(
      '--store <root>',
      'where to look when Temporal does not know it (default: the data folder)',
    )
    .option('--json', 'print it as JSON')
    .action(status);
}

interface Flags {
  readonly store?: string;
  readonly json?: boolean;
}

async function status(id: string, { store, json }: Flags): Promise<void> {
  const { runIdOf } = await import('../client/runs.js');
  const { EXIT } = await import('../client/errors.js');
  const { failureText, print, printJson } = await import('./output.js');
  const { lookAtRun } = await import('./only-stored.js');
  const { renderProgress } = await import('./progress/render.js');

  const snapshot = await lookAtRun(runIdOf(id), store);
  const { failure, output, state, failedRows } = snapshot;
  if (state === 'failed' || failedRows > 0) process.exitCode = EXIT.failed;
  if (json) {
    printJson(snapshot);
    return;
  }
  print(renderProgress(snapshot, undefined, 100));
  if (failure !== undefined) print(failureText(failure));
  if (output !== undefined) print(`results  ${output.outputUri}\nerrors   ${output.errorsUri}`);
}
