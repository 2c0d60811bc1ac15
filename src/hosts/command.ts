import { once } from 'node:events';

import { execa } from 'execa';

import {
  DEFAULT_TIMEOUT_MS,
  HostError,
  NOT_FOUND,
  type CommandResult,
  type RunOptions,
} from './host.js';

/** Output kept of one command (characters): more belongs in a file on its host. */
const LONGEST_OUTPUT = 8 * 2 ** 20;
/** From SIGTERM to SIGKILL of a command that is given up. */
const KILL_AFTER_MS = 5_000;

/**
 * Runs a program of this machine for a host.
 *
 * @param timeoutMs of this very process, which may wait for one on another host
 * @throws HostError `HostTimedOut`; the reason of `signal` when that was aborted
 */
export async function runHere(
  host: string,
  [file = '', ...args]: readonly string[],
  { input, env, onLine, signal, timeoutMs = DEFAULT_TIMEOUT_MS }: RunOptions,
): Promise<CommandResult> {
  signal?.throwIfAborted();
  const child = execa(file, args, {
    reject: false,
    stripFinalNewline: false,
    timeout: timeoutMs,
    forceKillAfterDelay: KILL_AFTER_MS,
    maxBuffer: LONGEST_OUTPUT,
    ...(input === undefined ? { stdin: 'ignore' as const } : { input }),
    ...(env && { env }),
    ...(signal && { cancelSignal: signal }),
  });
  const lines =
    onLine === undefined ? [] : [forward(child.stdout, onLine), forward(child.stderr, onLine)];
  const result = await child;
  await Promise.all(lines);
  signal?.throwIfAborted();
  if (result.timedOut) throw timedOut(host, file, timeoutMs);
  const { exitCode, stdout, stderr } = result;
  if (result.code === 'ENOENT')
    return { exitCode: NOT_FOUND, stdout: '', stderr: `${file}: not found\n` };
  // Killed by a signal: as a shell would tell it, near enough to be told from success.
  return { exitCode: exitCode ?? 128, stdout, stderr };
}

export const timedOut = (host: string, program: string, timeoutMs: number): HostError =>
  new HostError(
    'HostTimedOut',
    host,
    `${program} did not end within ${Math.round(timeoutMs / 1000)} s`,
    'See whether the host is overloaded or its disk or network hangs, then run the same command again.',
  );

async function forward(
  stream: NodeJS.ReadableStream,
  onLine: (line: string) => void,
): Promise<void> {
  let rest = '';
  stream.setEncoding('utf8');
  stream.on('data', (text: string) => {
    const lines = `${rest}${text}`.split(/\r?\n/u);
    rest = lines.pop() ?? '';
    for (const line of lines) onLine(line);
  });
  await once(stream, 'close');
  if (rest !== '') onLine(rest);
}
