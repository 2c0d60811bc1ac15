import type { Command } from 'commander';

import { counted } from '../text.js';
import type { InputProblem } from '../contracts/run.js';
import {
  addModelOptions,
  addPlacementOptions,
  addRequestOptions,
  type RunFlags,
} from './run-options.js';

interface Flags extends RunFlags {
  readonly json?: boolean;
}

interface Validated {
  readonly summary: {
    readonly rows: number;
    readonly invalidRows: number;
    readonly promptTokens: number;
    readonly maxOutputTokens: number;
    readonly batches: readonly number[];
  };
  /** Most bytes that the run adds to its store. */
  readonly estimatedOutputBytes: number;
  /** What is wrong with the lines that a run would record as errors, and how many problems there are. */
  readonly problems: readonly InputProblem[];
  readonly total: number;
}

/** `rankflow validate`: all checks of a run, with nothing running and nothing generated. */
export function register(program: Command): void {
  const command = program
    .command('validate')
    .description('check a request file and the options; generates nothing')
    .argument('<file>', 'OpenAI Batch JSONL, simple JSONL, CSV or Parquet')
    .option('--json', 'print the counts or the problems as JSON');
  addPlacementOptions(addRequestOptions(addModelOptions(command)));
  command.action(validate);
}

async function validate(file: string, flags: Flags): Promise<void> {
  const { prepare } = await import('./prepare.js');
  const { pythonError, pythonInstalled, runPython } = await import('../client/python.js');
  const { formatBytes } = await import('../client/input.js');
  const { infrastructure, print, printJson, problemLines } = await import('./output.js');

  const { inference } = await prepare(file, flags);
  const { modelIsReady, SMALL_MODEL } = await import('../setup/model.js');
  const { model, backend } = inference.run.model;
  const modelMissing = backend === 'vllm' && model === SMALL_MODEL && !modelIsReady();
  if (modelMissing || !pythonInstalled()) {
    const { setUp } = await import('../setup/index.js');
    const { logToStderr } = await import('../setup/log.js');
    await infrastructure(() => setUp({ log: logToStderr }));
  }
  const result = await runPython(['rankflow.rows', 'validate'], {
    input: JSON.stringify(inference.run),
  });
  if (result.exitCode !== 0) throw pythonError('The check', result);
  const validated = JSON.parse(result.stdout) as Validated;
  const { summary, estimatedOutputBytes, problems, total: totalProblems } = validated;
  if (flags.json) {
    const { runId } = inference.run;
    printJson({ valid: true, runId, ...summary, estimatedOutputBytes, problems, totalProblems });
    return;
  }
  const { rows, invalidRows, promptTokens, maxOutputTokens, batches } = summary;
  print(
    invalidRows === 0
      ? `${counted(rows, 'row')}, all of them valid`
      : `${counted(rows, 'row')}, ${invalidRows} of them invalid and recorded as errors:`,
  );
  for (const line of problemLines(problems, totalProblems)) print(line);
  print(`${counted(promptTokens, 'prompt token')}, at most ${maxOutputTokens} to generate`);
  const count = batches.reduce((sum, some) => sum + some, 0);
  print(`${counted(count, 'batch', 'batches')} in ${counted(batches.length, 'rank')}`);
  print(`at most ${formatBytes(estimatedOutputBytes)} more in the store`);
}
