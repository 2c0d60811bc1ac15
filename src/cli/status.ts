import type { Command } from 'commander';

import type { Prices } from '../client/cost.js';
import { addPriceOption } from './cost-text.js';

/** `rankflow status`: one look at a run. Exit code 1 when it failed or rows of it did. */
export function register(program: Command): void {
  const command = program
    .command('status')
    .description('show how far a run is')
    .argument('<run-id>')
    .option(
      '--store <root>',
      'where to look when Temporal does not know it (default: the data folder)',
    )
    .option('--json', 'print it as JSON');
  addPriceOption(command).action(status);
}

interface Flags {
  readonly store?: string;
  readonly json?: boolean;
  readonly pricePerHour: Prices;
}

async function status(id: string, { store, json, pricePerHour }: Flags): Promise<void> {
  const { runIdOf } = await import('../client/runs.js');
  const { EXIT } = await import('../client/errors.js');
  const { failureText, print, printJson } = await import('./output.js');
  const { lookAtRun } = await import('./only-stored.js');
  const { costOf } = await import('../client/cost.js');
  const { costText } = await import('./cost-text.js');
  const { renderProgress } = await import('./progress/render.js');

  const snapshot = await lookAtRun(runIdOf(id), store);
  const { build, failure, output, state, failedRows, usage, completionTokens } = snapshot;
  const cost = usage && costOf(usage, completionTokens, pricePerHour);
  if (state === 'failed' || failedRows > 0) process.exitCode = EXIT.failed;
  if (json) {
    printJson({ ...snapshot, ...(cost && { cost }) });
    return;
  }
  print(renderProgress(snapshot, undefined, 100));
  if (build !== undefined) print(`build    ${build}`);
  if (cost !== undefined) print(costText(cost));
  if (failure !== undefined) print(failureText(failure));
  if (output !== undefined) print(`results  ${output.outputUri}\nerrors   ${output.errorsUri}`);
}
