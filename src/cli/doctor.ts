import Table from 'cli-table3';
import type { Command } from 'commander';
import pc from 'picocolors';

import { examineMachine, type Finding } from '../setup/machine.js';

const MARK: Record<Finding['state'], string> = {
  ok: pc.green('ok'),
  warning: pc.yellow('warning'),
  missing: pc.red('missing'),
};

/** `rankflow doctor`: exit code 1 when something required is missing. */
export function register(program: Command): void {
  program
    .command('doctor')
    .description('show what this machine has and lacks')
    .option('--json', 'print the findings as JSON')
    .action(async (options: { json?: boolean }) => {
      const findings = await examineMachine();
      process.stdout.write(
        options.json ? `${JSON.stringify(findings, undefined, 2)}\n` : `${table(findings)}\n`,
      );
      if (findings.some(({ state }) => state === 'missing')) process.exitCode = 1;
    });
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
