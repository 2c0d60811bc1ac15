import type { Command } from 'commander';

import { setUp } from '../setup/index.js';
import { logToStderr } from '../setup/log.js';
import { ensureStack } from '../workers/stack/index.js';

/** `rankflow up`: does nothing when the stack runs. */
export function register(program: Command): void {
  program
    .command('up')
    .description('start Temporal and the workers on this machine, in the background')
    .option('--rollback', 'go back to this release, though a newer one ran last')
    .option('--json', 'print the addresses as JSON')
    .action(async (options: { json?: boolean; rollback?: boolean }) => {
      await setUp({ log: logToStderr });
      const { rollback = false } = options;
      const stack = await ensureStack({ log: logToStderr, rollback });
      if (options.json) {
        process.stdout.write(`${JSON.stringify(stack)}\n`);
        return;
      }
      logToStderr('The stack is up. Stop it with: npx rankflow down');
      process.stdout.write(`Temporal     ${stack.address}\n`);
      if (stack.build !== undefined) process.stdout.write(`Build        ${stack.build}\n`);
      if (stack.uiUrl !== undefined) process.stdout.write(`Temporal UI  ${stack.uiUrl}\n`);
      if (stack.metricsUrl !== undefined) {
        process.stdout.write(`Metrics      ${stack.metricsUrl}\n`);
      }
    });
}
