import { type Command, InvalidArgumentError } from 'commander';

import type { RunListing } from '../client/runs.js';

interface Flags {
  readonly limit: number;
  readonly store?: string;
  readonly json?: boolean;
}

/** `rankflow list`: the newest runs. */
export function register(program: Command): void {
  program
    .command('list')
    .description('show the newest runs')
    .option('--limit <n>', 'at most so many', positive, 20)
    .option('--store <root>', 'also the runs that only this store knows (default: the data folder)')
    .option('--json', 'print them as JSON')
    .action(list);
}

function positive(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('Expected 1 or more.');
  return value;
}

async function list({ limit, store: root, json }: Flags): Promise<void> {
  const { paths } = await import('../setup/paths.js');
  const { print, printJson, say, table } = await import('./output.js');
  const { allRuns } = await import('./only-stored.js');

  const runs = await allRuns(root ?? paths.store, limit);
  if (json) {
    printJson(
      runs.map(({ memo, ...run }) => ({
        ...run,
        fleet: memo?.fleet,
        retryOf: memo?.retryOf,
      })),
    );
    return;
  }
  if (runs.length === 0) {
    say('There are no runs yet. Start one with: rankflow run FILE --model MODEL');
    return;
  }
  const head = ['run', 'state', 'started', 'fleet', 'store'];
  const rows = runs.map((run) => [
    ...[run.runId, stateText(run), run.startedAt?.toISOString().slice(0, 19) ?? ''],
    ...[run.memo?.fleet ?? '', run.store ?? ''],
  ]);
  print(table([head, ...rows]));
}

/** A run that only a store knows is as far as its files say, and nobody works at it. */
const stateText = ({ state, onlyStored }: RunListing): string =>
  onlyStored ? `${state} (stored)` : state;
