import type { Command } from 'commander';

import { setUp } from '../setup/index.js';
import { logToStderr } from '../setup/log.js';

/** `rankflow setup`. */
export function register(program: Command): void {
  program
    .command('setup')
    .description('install the Temporal CLI, the Python environment and a small model')
    .option('--jobs', 'also what the examples of jobs need: XGBoost, Optuna, datasets and others')
    .option('--json', 'print the places as JSON')
    .action(async (options: { jobs?: boolean; json?: boolean }) => {
      const installed = await setUp({ log: logToStderr, jobs: options.jobs ?? false });
      if (options.json) process.stdout.write(`${JSON.stringify(installed)}\n`);
      else logToStderr('Everything is set up. Next: npx rankflow demo');
    });
}
