import type { Command } from 'commander';

import { logToStderr } from '../setup/log.js';
import { stopStack } from '../workers/stack/index.js';

/** `rankflow down`. */
export function register(program: Command): void {
  program
    .command('down')
    .description('stop Temporal and the workers on this machine; runs go on after the next `up`')
    .option('--json', 'print what was done as JSON')
    .action(async (options: { json?: boolean }) => {
      const stopped = await stopStack({ log: logToStderr });
      if (options.json) process.stdout.write(`${JSON.stringify({ stopped })}\n`);
      else logToStderr(stopped ? 'The stack is stopped.' : 'No stack was running.');
    });
}
