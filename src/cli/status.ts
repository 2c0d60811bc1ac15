import type { Command } from 'commander';

/** `rankflow status`: one look at a run. Exit code 1 when it failed or rows of it did. */
export function register(program: Command): void {
  program
    .command('status')
    .description('show how far a run is')
    .argument('<run-id>')
    .option('--json', 'print it as JSON')
    .action(status);
}

async function status(id: string, { json }: { readonly json?: boolean }): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { runSnapshot } = await import('../client/progress.js');
  const { runIdOf } = await import('../client/runs.js');
  const { EXIT } = await import('../client/errors.js');
  const { failureText, print, printJson } = await import('./output.js');
  const { renderProgress } = await import('./progress/render.js');

  const snapshot = await withClient((client) => runSnapshot(client, runIdOf(id)));
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
