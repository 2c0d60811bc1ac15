import type { Command } from 'commander';

import type { SteerRequest } from '../contracts/workflows.js';

interface Flags {
  readonly now?: boolean;
  readonly json?: boolean;
}

/** `rankflow pause|resume|drain`: a run that goes on. */
export function register(program: Command): void {
  program
    .command('pause')
    .description('let a run wait; batches in flight are finished')
    .argument('<run-id>')
    .option('--now', 'give batches in flight up; their finished rows are kept')
    .option('--json', 'print what became of it as JSON')
    .action(async (id: string, flags: Flags) => steer(id, 'pause', flags));
  program
    .command('resume')
    .description('let a run that was paused go on')
    .argument('<run-id>')
    .option('--json', 'print what became of it as JSON')
    .action(async (id: string, flags: Flags) => steer(id, 'resume', flags));
  program
    .command('drain')
    .description('end a run after the batches in flight; what is finished is kept')
    .argument('<run-id>')
    .option('--json', 'print what became of it as JSON')
    .action(async (id: string, flags: Flags) => steer(id, 'drain', flags));
}

const DONE = {
  pause: 'The run pauses; its engines stay up.',
  resume: 'The run goes on.',
  drain: 'The run ends after the batches in flight; the other rows become batch_cancelled lines.',
} as const;

async function steer(
  id: string,
  action: SteerRequest['action'],
  { now = false, json }: Flags,
): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { EXIT } = await import('../client/errors.js');
  const { runIdOf } = await import('../client/runs.js');
  const { steerRun } = await import('../client/steering.js');
  const { print, printJson, say } = await import('./output.js');

  const runId = runIdOf(id);
  const done = await withClient(async (client) => steerRun(client, runId, { action, now }));
  if (json) printJson({ runId, action, done });
  else print(runId);
  say(done ? DONE[action] : 'The run had ended already.');
  if (!done) process.exitCode = EXIT.usage;
}
