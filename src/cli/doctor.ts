import Table from 'cli-table3';
import type { Command } from 'commander';

import { examineMachine, type Finding } from '../setup/machine.js';
import { paint } from '../setup/paint.js';

const MARK: Record<Finding['state'], string> = {
  ok: paint.green('ok'),
  warning: paint.yellow('warning'),
  missing: paint.red('missing'),
};

interface Flags {
  readonly cluster?: string;
  readonly store?: string;
  readonly simulated?: boolean;
  readonly json?: boolean;
}

/** `rankflow doctor`: exit code 1 when something required is missing, or a cluster would be refused. */
export function register(program: Command): void {
  program
    .command('doctor')
    .description('show what this machine has and lacks, or what the hosts of a cluster do')
    .option('--cluster <file>', 'cluster file: whether its hosts are alike and reach each other')
    .option('--store <root>', 'folder or s3://bucket/prefix that its hosts have to share')
    .option('--simulated', 'its engines are simulated: they need no vLLM')
    .option('--json', 'print the findings as JSON')
    .action(async (flags: Flags) =>
      flags.cluster === undefined ? machine(flags) : cluster(flags),
    );
}

async function machine({ json }: Flags): Promise<void> {
  const findings = await examineMachine();
  process.stdout.write(
    json ? `${JSON.stringify(findings, undefined, 2)}\n` : `${table(findings)}\n`,
  );
  if (findings.some(({ state }) => state === 'missing')) process.exitCode = 1;
}

function table(findings: readonly Finding[]): string {
  const rows = new Table({
    head: ['what', 'state', 'found', 'what to do'],
    style: { head: [], border: [] },
  });
  for (const { what, state, found, advice } of findings) {
    rows.push([what, MARK[state], found, advice]);
  }
  return rows.toString();
}

async function cluster({ cluster: file = '', store, simulated, json }: Flags): Promise<void> {
  const { readClusterFile } = await import('../clusters/cluster-file.js');
  const { inspectCluster } = await import('../clusters/inspect.js');
  const { temporalFor } = await import('../clusters/reach.js');
  const { paths } = await import('../setup/paths.js');
  const { print, printJson, say } = await import('./output.js');
  const { hostReportText } = await import('./host-report.js');

  const spec = readClusterFile(file);
  say(`Looking at the hosts of ${spec.name} ...`);
  const report = await inspectCluster(spec, {
    // Nobody need have brought it up yet, and no Temporal need be there to be asked.
    running: 'ask',
    temporal: temporalFor(spec),
    store: store ?? paths.store,
    engine: simulated ? 'simulated' : 'vllm',
  });
  if (json) printJson(report);
  else print(hostReportText(report));
  if (report.refused) process.exitCode = 1;
}
