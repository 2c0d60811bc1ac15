import { type Command, InvalidArgumentError } from 'commander';

interface Flags {
  readonly limit: number;
  readonly json?: boolean;
}

/** `rankflow list`: the newest runs. */
export function register(program: Command): void {
  program
    .command('list')
    .description('show the newest runs')
    .option('--limit <n>', 'at most so many', positive, 20)
    .option('--json', 'print them as JSON')
    .action(list);
}

function positive(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('Expected 1 or more.');
  return value;
}

async function list({ limit, json }: Flags): Promise<void> {
  const { withClient } = await import('../client/connection.js');
  const { listRuns } = await import('../client/runs.js');
  const { print, printJson, say, table } = await import('./output.js');

  const runs = await withClient((client) => listRuns(client, limit));
  if (json) {
    printJson(runs.map(({ memo, ...run }) => ({ ...run, store: memo?.store, fleet: memo?.fleet })));
    return;
  }
  if (runs.length === 0) {
    say('There are no runs yet. Start one with: rankflow run FILE --model MODEL');
    return;
  }
  const head = ['run', 'status', 'started', 'fleet', 'store'];
  const rows = runs.map(({ runId, status, startedAt, memo }) => [
    ...[runId, status.toLowerCase(), startedAt.toISOString().slice(0, 19)],
    ...[memo?.fleet ?? '', memo?.store ?? ''],
  ]);
  print(table([head, ...rows]));
}
