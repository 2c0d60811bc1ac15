/**
 * The fault campaign: `npm run chaos -- --help`. Faults are injected into real processes: Temporal's dev server,
 * Ray nodes, vLLM and simulated engines; what must hold is checked from the store, the histories and the process
 * table alone.
 */
import { readFileSync, writeFileSync } from 'node:fs';

import { Command, Option } from 'commander';

import { runCampaign } from './campaign.js';
import { PHASES, type Phase } from './phases.js';
import { markdown } from './report/markdown.js';
import { mergeReports } from './report/merge.js';
import type { Report } from './report/record.js';

interface Flags {
  readonly faults: number;
  readonly minutes: number;
  readonly seed: number;
  readonly engines: 'simulated' | 'vllm' | 'both';
  readonly partitions: boolean;
  readonly only?: string;
  readonly phase?: Phase;
  readonly short: boolean;
  readonly report?: string;
}

const program = new Command('chaos')
  // `--report` behind `merge` is its own.
  .enablePositionalOptions()
  .description(
    'kill, stop, starve and cut off parts of Rankflow, and check that every row is answered once',
  )
  .option('--faults <n>', 'stop after this many faults of each kind of engine', Number, 40)
  .option(
    '--minutes <n>',
    'inject no fault after this many minutes of each kind of engine',
    Number,
    10,
  )
  .option('--seed <n>', 'repeat the choices of an earlier campaign', Number, Date.now() % 1_000_000)
  .addOption(
    new Option('--engines <kind>', 'which engines')
      .choices(['simulated', 'vllm', 'both'])
      .default('simulated'),
  )
  .option('--no-partitions', 'do not cut nodes off from one another (needs network namespaces)')
  .option('--only <fault>', 'only this fault')
  .addOption(new Option('--phase <phase>', 'only in this phase').choices(PHASES))
  .option('--short', 'each fault once, in the phase where it hurts most', false)
  .option('--report <file>', 'write the report here as JSON, and beside it as Markdown')
  .action(campaign);
program
  .command('merge')
  .description('make one report of several')
  .argument('<files...>', 'JSON reports')
  .option('--report <file>', 'write it here as JSON, and beside it as Markdown')
  .action((files: string[], flags: { readonly report?: string }) => {
    const reports = files.map((file) => JSON.parse(readFileSync(file, 'utf8')) as Report);
    show(mergeReports(reports), flags.report);
  });

async function campaign(flags: Flags): Promise<void> {
  const { only, phase, report, ...rest } = flags;
  say(`seed ${flags.seed}`);
  show(
    await runCampaign({
      ...rest,
      selection: { only, phase },
      log: say,
    }),
    report,
  );
}

function show(report: Report, file: string | undefined): void {
  const text = markdown(report);
  process.stdout.write(`${text}\n`);
  if (file !== undefined) {
    writeFileSync(file, `${JSON.stringify(report, undefined, 2)}\n`);
    writeFileSync(file.replace(/(?:\.json)?$/u, '.md'), `${text}\n`);
  }
  if (report.violations.length > 0) process.exitCode = 1;
}

function say(line: string): void {
  process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${line}\n`);
}

await program.parseAsync();
