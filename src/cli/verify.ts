import type { Command } from 'commander';

import type { Verification } from '../client/verify.js';

interface Flags {
  readonly store?: string;
  readonly json?: boolean;
}

/** `rankflow verify`: exit code 1 when anything of a finished run is not as it should be. */
export function register(program: Command): void {
  program
    .command('verify')
    .description('check a finished run again: manifest, hashes, commits, and every row once')
    .argument('<run-id>')
    .option('--store <root>', 'where the run is (default: where it was started with)')
    .option('--json', 'print what was found as JSON')
    .action(verify);
}

async function verify(id: string, flags: Flags): Promise<void> {
  const { EXIT } = await import('../client/errors.js');
  const { runIdOf } = await import('../client/runs.js');
  const { verifyRun } = await import('../client/verify.js');
  const { storeOf } = await import('./only-stored.js');
  const { print, printJson } = await import('./output.js');

  const runId = runIdOf(id);
  const found = await verifyRun(flags.store ?? (await storeOf(runId)), runId);
  if (!found.valid) process.exitCode = EXIT.failed;
  if (flags.json) printJson(found);
  else print(verificationText(found));
}

/** What was found, for people: every problem, or that there is none. */
export function verificationText(found: Verification): string {
  const { runId, state, rows, succeeded, failed, batches, committed, problems } = found;
  const hidden = found.totalProblems - problems.length;
  const head =
    `${runId}  ${state ?? 'not finished'}: ${rows} rows, ${succeeded} succeeded, ${failed} failed; ` +
    `${committed} of ${batches} batches committed`;
  const gone = found.attemptsCollected
    ? ['its attempts were collected: answers are compared with the manifest alone']
    : [];
  if (found.valid)
    return [head, 'valid: every request has one result, and every file is whole', ...gone].join(
      '\n',
    );
  return [
    head,
    ...gone,
    `${found.totalProblems} ${found.totalProblems === 1 ? 'problem' : 'problems'}:`,
    ...problems.map(({ code, message }) => `  [${code}] ${message}`),
    ...(hidden > 0 ? [`  ... and ${hidden} more`] : []),
  ].join('\n');
}
