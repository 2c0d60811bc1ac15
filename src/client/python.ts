import { once } from 'node:events';
import { existsSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';

import { execa } from 'execa';

import type { ClusterAddress } from '../contracts/cluster.js';
import { paths } from '../setup/paths.js';
import { ClientError, isErrorType, readProblems } from './errors.js';

export interface PythonOptions {
  /** Text for standard input. */
  readonly input?: string;
  /** Takes standard output as it comes, for results larger than memory. An error is not passed on. */
  readonly sink?: Writable;
  /** Ends the child when aborted. */
  readonly signal?: AbortSignal;
}

export interface PythonResult {
  readonly exitCode: number;
  /** Without what went to the sink. */
  readonly stdout: string;
  readonly stderr: string;
}

/** Whether the Python environment is there at all. */
export const pythonInstalled = (): boolean => existsSync(paths.python);

/**
 * Runs a module of the Python project in a child process of the environment that `rankflow setup` made.
 *
 * @throws ClientError `Usage` when there is no environment
 */
export async function runPython(
  args: readonly string[],
  options: PythonOptions = {},
): Promise<PythonResult> {
  if (!pythonInstalled()) {
    throw new ClientError('Usage', `There is no Python environment in ${paths.venv}.`, {
      wayOut: 'Run `rankflow setup`.',
    });
  }
  const { sink, input = '', signal } = options;
  const child = execa(paths.python, ['-m', ...args], {
    reject: false,
    input,
    buffer: { stdout: sink === undefined, stderr: true },
    // USE_TF=0 saves seconds: transformers does not look for TensorFlow then.
    env: { PYTHONPATH: paths.pythonProject, USE_TF: '0', PYTHONUNBUFFERED: '1' },
    ...(signal && { cancelSignal: signal }),
  });
  const held = sink && (await forward(child.stdout, sink));
  const result = await child;
  if (held !== undefined && result.exitCode === 0) await write(sink, held);
  return {
    exitCode: result.exitCode ?? 1,
    stdout: held?.toString() ?? result.stdout ?? '',
    stderr: result.stderr ?? '',
  };
}

/** `ray status` imports Ray first: 5 s, on a busy host a minute. */
const RAY_STATUS_MS = 90_000;

/**
 * What `ray status` prints: nodes, resources in use and demands that wait. The address is always given: with two
 * clusters on a machine Ray would not know which is meant.
 *
 * @throws ClientError `ClusterUnavailable` with what Ray says when it does not answer
 */
export async function rayStatus({ address, tokenFile }: ClusterAddress): Promise<string> {
  const args = ['-m', 'ray.scripts.scripts', 'status', '--address', address];
  const { failed, stdout, stderr, shortMessage } = await execa(paths.python, args, {
    reject: false,
    timeout: RAY_STATUS_MS,
    env: tokenFile ? { RAY_AUTH_MODE: 'token', RAY_AUTH_TOKEN_PATH: tokenFile } : {},
  });
  if (!failed) return stdout;
  const said = stderr.trim().split('\n').slice(-5).join('\n');
  throw new ClientError('ClusterUnavailable', said === '' ? (shortMessage ?? '') : said);
}

/** An error is one JSON line: output up to this many bytes waits for the exit code. */
const HELD_BYTES = 65_536;

/** Copies a stream; returns what is too short to be told from an error yet. */
async function forward(from: Readable, to: Writable): Promise<Buffer> {
  let held: Buffer | undefined = Buffer.alloc(0);
  for await (const chunk of from as AsyncIterable<Buffer>) {
    if (held === undefined) await write(to, chunk);
    else {
      held = Buffer.concat([held, chunk]);
      if (held.length <= HELD_BYTES) continue;
      await write(to, held);
      held = undefined;
    }
  }
  return held ?? Buffer.alloc(0);
}

async function write(to: Writable | undefined, data: Buffer): Promise<void> {
  if (data.length > 0 && to?.write(data) === false) await once(to, 'drain');
}

/**
 * The error of a Python command: `{"error", "message", "problems", "total"}` as the last line of its standard
 * output, or else the end of what it said on standard error.
 */
export function pythonError(what: string, result: PythonResult): ClientError {
  const known = parseError(result.stdout.trim().split('\n').at(-1) ?? '');
  if (known !== undefined) return known;
  const tail = result.stderr.trim().split('\n').slice(-5).join('\n');
  return new ClientError('Internal', `${what} failed with exit code ${result.exitCode}.\n${tail}`);
}

function parseError(line: string): ClientError | undefined {
  if (!line.startsWith('{"error"')) return undefined;
  try {
    const answer = JSON.parse(line) as Record<string, unknown>;
    const { error: type, message } = answer;
    if (!isErrorType(type) || typeof message !== 'string') return undefined;
    const { problems, total: totalProblems } = readProblems(answer);
    return new ClientError(type, message, { problems, totalProblems });
  } catch {
    return undefined;
  }
}
