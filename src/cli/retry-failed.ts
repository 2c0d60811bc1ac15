import type { Command } from 'commander';

import { addPlacementOptions, type RunFlags } from './run-options.js';

interface Flags extends Omit<RunFlags, 'model'> {
  readonly json?: boolean;
  readonly start: boolean;
}

/** `rankflow retry-failed`: the failed rows of a finished run as a run of their own. */
export function register(program: Command): void {
  const command = program
    .command('retry-failed')
    .description('run the failed rows of a finished run again; prints the id of the new run')
    .argument('<run-id>')
    .option('--store <root>', 'where the run is (default: where it was started with)')
    .option('--run-id <id>', 'of the new run (default: the id of the old one and -retry-1)')
    .option('--deadline <when>', 'expire after 8h, or at 2026-01-31T06:00Z; what is done is kept')
    .option('--json', 'print the ids and the number of rows as JSON')
    .option('--no-start', 'do not start Temporal and the workers on this machine');
  addPlacementOptions(command);
  command.addHelpText(
    'after',
    `
Rows keep their custom_id. \`rankflow results NEW --combined\` prints the answers of both runs in the order of
the first input.`,
  );
  command.action(retryFailed);
}

async function retryFailed(id: string, flags: Flags): Promise<void> {
  const { prepareRetry } = await import('../client/retry.js');
  const { runIdOf } = await import('../client/runs.js');
  const { withClient } = await import('../client/connection.js');
  const { placementOf, storeOf } = await import('./only-stored.js');
  const { startOnCluster, startStackUnless } = await import('./prepare.js');
  const { toRunOptions } = await import('./run-options.js');
  const { print, printJson, say } = await import('./output.js');

  const runId = runIdOf(id);
  const store = flags.store ?? (await storeOf(runId));
  const placed = await placementOf(runId);
  const {
    input: _input,
    model: _model,
    fresh: _fresh,
    ...options
  } = toRunOptions('', {
    ...placed,
    ...flags,
    cluster: flags.cluster === 'local' ? (placed.cluster ?? 'local') : flags.cluster,
    model: '',
  });
  const { sampling: _sampling, onInvalid: _onInvalid, ...kept } = options;
  const { run, rows, invalid } = await prepareRetry(runId, { ...kept, store });
  await startStackUnless(!flags.start);
  await withClient(async (client) => {
    const {
      runId: retryId,
      outcome,
      notes,
    } = await startOnCluster(client, run, flags, flags.cluster !== 'local');
    if (flags.json) printJson({ runId: retryId, retryOf: runId, outcome, rows, invalid });
    else print(retryId);
    for (const note of notes) say(note);
    if (invalid > 0) say(`${invalid} rows were no valid requests and are left out.`);
    say(`${rows} rows. Watch it: rankflow watch ${retryId}`);
    say(`Then both in one: rankflow results ${retryId} --combined`);
  });
}
