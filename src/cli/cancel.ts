import type { Command } from 'commander';

/** `rankflow cancel`: stops a run and keeps what is finished. */
export function register(program: Command): void {
  program
    .command('cancel')
    .description('stop a run; what is finished is kept')
    .argument('<run-id>')
    .option('--json', 'print what became of it as JSON')
    .action(cancel);
}

async function cancel(id: string, { json }: { readonly json?: boolean }): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { EXIT } = await import('../client/errors.js');
  const { cancelRun, runIdOf } = await import('../client/runs.js');
  const { print, printJson, say } = await import('./output.js');

  const runId = runIdOf(id);
  const cancelling = await withClient((client) => cancelRun(client, runId));
  if (json) printJson({ runId, cancelling });
  else print(runId);
  say(
    cancelling
      ? `Cancelling: rows in flight are given up. See: rankflow watch ${runId}`
      : 'The run had ended already.',
  );
  // As with pause, resume and drain.
  if (!cancelling) process.exitCode = EXIT.usage;
}
