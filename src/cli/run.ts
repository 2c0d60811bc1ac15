import type { Command } from 'commander';

import type { Prices } from '../client/cost.js';
import { addPriceOption } from './cost-text.js';
import {
  addModelOptions,
  addPlacementOptions,
  addRequestOptions,
  type RunFlags,
} from './run-options.js';

interface Flags extends RunFlags {
  readonly out?: string;
  readonly format?: string;
  readonly json?: boolean;
  /** False with `--no-start`. */
  readonly start: boolean;
  readonly pricePerHour: Prices;
}

/** `rankflow run`: from a request file to its results. */
export function register(program: Command): void {
  const command = program
    .command('run')
    .description('generate an answer for every request of a file')
    .argument('<file>', 'OpenAI Batch JSONL, simple JSONL, CSV or Parquet')
    .option('--out <file>', 'copy the results here; errors go beside it')
    .option('--format <format>', 'of --out: jsonl or parquet')
    .option('--json', 'print events as JSON lines')
    .option('--no-start', 'do not start Temporal and the workers on this machine');
  addPriceOption(addPlacementOptions(addRequestOptions(addModelOptions(command))));
  command.addHelpText(
    'after',
    `
Ctrl-C detaches: the run goes on. The same command again attaches to it, shows what is finished, or goes on
with what failed.

Exit codes: 0 all rows succeeded, 1 rows or the run failed, 2 bad input or usage, 3 infrastructure cannot be
reached, 130 detached.`,
  );
  command.action(run);
}

async function run(file: string, flags: Flags): Promise<void> {
  const { checkSpace, prepareOut, prepare, startOnCluster, startStackUnless } =
    await import('./prepare.js');
  const { finishedRun } = await import('../client/runs.js');
  const { concludeRun, resultFormat } = await import('./outcome.js');
  const { print, printJson, say } = await import('./output.js');

  const json = flags.json ?? false;
  const format = resultFormat(flags.format, flags.out ?? 'results.jsonl');
  const prepared = await prepare(file, flags);
  await prepareOut(flags.out);
  const { runId, store } = prepared.inference.run;
  const target = { store, out: flags.out, format };
  const announce = (outcome: string, notes: readonly string[]): void => {
    if (json) printJson({ event: outcome, runId });
    else print(runId);
    for (const note of notes) say(note);
  };

  const finished = await finishedRun(prepared);
  if (finished !== undefined) {
    const { state, output } = finished.stored;
    announce('finished', finished.notes);
    say('This run is finished: nothing is generated. Repeat it with --new.');
    await concludeRun({ ...finishedSnapshot(runId), state, output }, target, json);
    return;
  }
  await checkSpace(prepared);
  await startStackUnless(!flags.start);

  const { withClient } = await import('../client/connection.js');
  const { followRun, sayDetached } = await import('./progress/follow.js');
  const { EXIT } = await import('../client/errors.js');
  await withClient(async (client) => {
    const { outcome, notes } = await startOnCluster(client, prepared, flags, true);
    announce(outcome, notes);
    say(OUTCOME[outcome]);
    const last = await followRun(client, runId, json);
    if (last !== undefined) {
      await concludeRun(last, target, json, flags.pricePerHour);
      return;
    }
    sayDetached(runId);
    process.exitCode = EXIT.interrupted;
  });
}

const OUTCOME = {
  started: 'Started. Ctrl-C detaches, the run goes on.',
  continued: 'Going on with what an earlier try committed. Ctrl-C detaches.',
  attached: 'Attached to the run that goes on. Ctrl-C detaches.',
  finished: 'This run is finished: nothing is generated. Repeat it with --new.',
} as const;

/** A run that was found finished took no time. */
function finishedSnapshot(runId: string) {
  return {
    runId,
    phase: 'done' as const,
    startedAt: 0,
    at: 0,
    doneRows: 0,
    failedRows: 0,
    completionTokens: 0,
    ranks: 0,
    retries: 0,
    troubles: [],
    engines: [],
  };
}
