import type { Command } from 'commander';

import {
  addModelOptions,
  addPlacementOptions,
  addRequestOptions,
  type RunFlags,
} from './run-options.js';

interface Flags extends RunFlags {
  readonly json?: boolean;
  readonly start: boolean;
}

/** `rankflow submit`: starts a run and returns at once. */
export function register(program: Command): void {
  const command = program
    .command('submit')
    .description('start a run and return; prints its id')
    .argument('<file>', 'OpenAI Batch JSONL, simple JSONL, CSV or Parquet')
    .option('--json', 'print the id and what became of the start as JSON')
    .option('--no-start', 'do not start Temporal and the workers on this machine');
  addPlacementOptions(addRequestOptions(addModelOptions(command)));
  command.action(submit);
}

async function submit(file: string, flags: Flags): Promise<void> {
  const { checkSpace, prepare, startOnCluster, startStackUnless } = await import('./prepare.js');
  const { finishedRun } = await import('../client/runs.js');
  const { withClient } = await import('../client/connection.js');
  const { print, printJson, say } = await import('./output.js');

  const prepared = await prepare(file, flags);
  const { runId } = prepared.inference.run;
  const finished = await finishedRun(prepared);
  const announce = (outcome: string, notes: readonly string[]): void => {
    if (flags.json) printJson({ runId, outcome });
    else print(runId);
    for (const note of notes) say(note);
  };
  if (finished !== undefined) {
    announce('finished', finished.notes);
    say(`This run is finished. Its results: rankflow results ${runId}`);
    return;
  }
  await checkSpace(prepared);
  await startStackUnless(!flags.start);
  await withClient(async (client) => {
    const { outcome, notes } = await startOnCluster(client, prepared, flags, true);
    announce(outcome, notes);
    say(`Watch it: rankflow watch ${runId}`);
  });
}
