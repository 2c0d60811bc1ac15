import type { Command } from 'commander';

import { logToStderr } from '../setup/log.js';
import { stopStack } from '../workers/stack/index.js';

interface Flags {
  readonly keep?: boolean;
  readonly json?: boolean;
}

/** `rankflow down`. */
export function register(program: Command): void {
  program
    .command('down')
    .description(
      'stop Temporal, the workers and local Ray nodes with their engines; runs go on after the next `up`',
    )
    .option('--keep', 'leave the Ray nodes and their engines running')
    .option('--json', 'print what was done as JSON')
    .action(down);
}

async function down({ keep, json }: Flags): Promise<void> {
  // The workers first: they would start the nodes again.
  const stopped = await stopStack({ log: logToStderr });
  const { endAllLocalNodes } = await import('../activities/local-cluster.js');
  const nodes = keep ? [] : await endAllLocalNodes();
  if (json) {
    process.stdout.write(`${JSON.stringify({ stopped, nodes })}\n`);
    return;
  }
  logToStderr(stopped ? 'The stack is stopped.' : 'No stack was running.');
  if (nodes.length === 0) return;
  logToStderr(`Ray nodes ended: ${nodes.join(', ')}`);
  logToStderr(
    'The next `up` brings back clusters that were not taken down (`rankflow cluster down`).',
  );
}
