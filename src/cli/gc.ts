import path from 'node:path';

import { type Command, InvalidArgumentError } from 'commander';

import { secondsOf } from '../client/duration.js';
import type { Garbage, GarbageRules } from '../client/gc.js';
import { bytesOf } from '../client/size.js';

interface Flags {
  readonly store?: string;
  readonly runsOlderThan?: number;
  readonly keepLast?: number;
  readonly maxSize?: number;
  readonly unfinishedOlderThan?: number;
  readonly scheduled?: boolean;
  readonly batches?: boolean;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

/** `rankflow gc`: frees a store of what nobody needs. */
export function register(program: Command): void {
  program
    .command('gc')
    .description('free a store: attempts of finished runs, and whole runs when there is a rule')
    .option('--store <root>', 'a folder or bucket (default: the data folder)')
    .option('--runs-older-than <length>', 'finished runs that ended so long ago, e.g. 30d', seconds)
    .option('--keep-last <n>', 'all finished runs but the newest n', count)
    .option('--max-size <size>', 'the oldest finished runs, until the rest takes 100GB', bytes)
    .option(
      '--unfinished-older-than <length>',
      'also runs that never finished, were not written to for so long and are not running',
      seconds,
    )
    .option('--scheduled', 'also runs of schedules, whose own retention removes them otherwise')
    .option('--batches', 'also batches of the batch API whose results clients may still ask for')
    .option('--dry-run', 'print what would go and how much that frees')
    .option('--json', 'print it as JSON')
    .addHelpText(
      'after',
      `
Results stay as long as their run does. Runs that another run retries, batches of the batch API that have not ended and
runs whose workflow is running stay whatever the rules are. A batch whose results were deleted or have expired goes by
the rules, with what the API tells of it.`,
    )
    .action(gc);
}

const seconds = (text: string): number => parsed(secondsOf(text), 'a length of time such as 30d');
const bytes = (text: string): number => parsed(bytesOf(text), 'a size such as 100GB');
const count = (text: string): number =>
  parsed(/^\d+$/u.test(text) ? Number(text) : undefined, '0 or more');

function parsed(value: number | undefined, what: string): number {
  if (value === undefined) throw new InvalidArgumentError(`Expected ${what}.`);
  return value;
}

async function gc(flags: Flags): Promise<void> {
  const { connect } = await import('../client/connection.js');
  const { collectGarbage } = await import('../client/gc.js');
  const { paths } = await import('../setup/paths.js');
  const { isAbsent } = await import('./only-stored.js');
  const { print, printJson, say } = await import('./output.js');

  const { store = paths.store, runsOlderThan, keepLast, maxSize, unfinishedOlderThan } = flags;
  const rules: GarbageRules = {
    ...(runsOlderThan !== undefined && { olderThanSeconds: runsOlderThan }),
    ...(keepLast !== undefined && { keepLast }),
    ...(maxSize !== undefined && { maxBytes: maxSize }),
    ...(unfinishedOlderThan !== undefined && { unfinishedOlderThanSeconds: unfinishedOlderThan }),
  };
  // Attempts of finished runs are nobody's: only whole runs may have a workflow that works at them.
  const forRuns = Object.keys(rules).length > 0;
  const client = forRuns
    ? await connect().catch((error: unknown) => {
        if (!isAbsent(error)) throw error;
        say('Temporal does not answer: unfinished runs stay.');
        return undefined;
      })
    : undefined;
  try {
    const root = store.includes('://') ? store : path.resolve(store);
    const garbage = await collectGarbage(
      client,
      root,
      { ...rules, scheduled: flags.scheduled ?? false, batches: flags.batches ?? false },
      { dryRun: flags.dryRun ?? false },
    );
    if (flags.json) printJson(garbage);
    else {
      const { formatBytes } = await import('../client/input.js');
      print(garbageText(garbage, formatBytes, maxSize));
    }
  } finally {
    await client?.connection.close();
  }
}

/** What went, for people: a line for each run, and the sum. */
export function garbageText(
  { dryRun, removed, collected, kept, freedBytes, leftBytes }: Garbage,
  formatBytes: (bytes: number) => string,
  maxBytes?: number,
): string {
  const would = dryRun ? 'would be ' : '';
  return [
    ...removed.map(
      ({ runId, bytes: size, why }) => `${runId}  ${would}removed (${formatBytes(size)}): ${why}`,
    ),
    ...collected.map(
      ({ runId, bytes: size }) => `${runId}  attempts ${would}collected (${formatBytes(size)})`,
    ),
    ...kept.map(({ runId, why }) => `${runId}  kept: ${why}`),
    `${formatBytes(freedBytes)} ${would}freed; the runs ${dryRun ? 'would then' : 'now'} take ${formatBytes(leftBytes)}`,
    ...(maxBytes !== undefined && leftBytes > maxBytes
      ? [`That is more than ${formatBytes(maxBytes)}: the others are kept or not finished.`]
      : []),
  ].join('\n');
}
