import type { Command } from 'commander';

import type { ScaleRequest } from '../contracts/workflows.js';
import { duration, numeric } from './run-options.js';

interface Flags {
  readonly minEngines?: unknown;
  readonly maxEngines?: unknown;
  readonly scaleDownAfter?: unknown;
  readonly json?: boolean;
}

/** `rankflow scale`: another number of engines for a fleet that is up. */
export function register(program: Command): void {
  program
    .command('scale')
    .description('change the number of engines of a fleet that is up')
    .argument('<fleet>')
    .argument('[engines]', 'so many from now on', numeric)
    .option('--min-engines <n>', 'let it scale by itself: never fewer; 0 for none', numeric)
    .option('--max-engines <n>', 'let it scale by itself: never more', numeric)
    .option('--scale-down-after <time>', 'how long fewer have to suffice (default: 2m)', duration)
    .option('--json', 'print the numbers before and after as JSON')
    .action(scale);
}

async function scale(name: string, engines: unknown, flags: Flags): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { ClientError } = await import('../client/errors.js');
  const { scaleFleet } = await import('../client/fleets.js');
  const { print, printJson, say } = await import('./output.js');

  const { minEngines, maxEngines, scaleDownAfter } = flags;
  if (scaleDownAfter !== undefined && minEngines === undefined && maxEngines === undefined) {
    throw new ClientError('Usage', '--scale-down-after is for a fleet that scales by itself.', {
      wayOut: 'Give --min-engines and --max-engines, too.',
    });
  }
  const request = requestOf(engines, flags);
  const scaled = await withClient(async (client) => scaleFleet(client, name, request));
  if (flags.json) printJson({ name, ...scaled });
  else print(name);
  const change = `${scaled.before} before, ${scaled.engines} now`;
  say(`${change}. See how they come and go: rankflow fleet status ${name}`);
}

/** What it asks for is not checked here: the fleet says what is wrong. */
function requestOf(engines: unknown, flags: Flags): ScaleRequest {
  const { minEngines, maxEngines, scaleDownAfter: idleSeconds } = flags;
  const limits = { minEngines, maxEngines, idleSeconds: idleSeconds ?? 120 };
  const scaling = minEngines !== undefined || maxEngines !== undefined;
  return {
    ...(engines !== undefined && { engines }),
    ...(scaling && { scaling: limits }),
  } as ScaleRequest;
}
