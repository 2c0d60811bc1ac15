import type { Command } from 'commander';

import { setUp } from '../setup/index.js';
import { logToStderr } from '../setup/log.js';

/** `rankflow setup`. */
export function register(program: Command): void {
  program
    .command('setup')
    .description('install the Temporal CLI, the Python environment and a small model')
    .option('--json', 'print the places as JSON')
    .action(async (options: { json?: boolean }) => {
      const installed = await setUp({ log: logToStderr });
      if (options.json) process.stdout.write(`${JSON.stringify(installed)}\n`);
      else logToStderr('Everything is set up. Next: npx rankflow demo');
    });
}
