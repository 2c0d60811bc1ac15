import { readFileSync } from 'node:fs';
import path from 'node:path';

import type { z } from 'zod';

import {
  Connected,
  Fingerprint,
  HostClock,
  Listening,
  StoreTrip,
  type ReachOutcome,
} from '../contracts/hosts.js';
import { paths } from '../setup/paths.js';
import type { ClockBounds } from './alike/facts.js';
import type { Host, RunOptions } from './host.js';

/** A Python on a host, and how it is called there. */
export interface PythonOnHost {
  readonly host: Host;
  /** Program and arguments: a path, or that of a container such as `docker run --rm -i IMAGE python`. */
  readonly python: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** A Python that cannot do what it is asked; the message is what it says. */
export class ProbeError extends Error {
  override readonly name = 'ProbeError';
}

/** nvidia-smi may take 20 s twice, and a cold disk some more to find all distributions. */
const FINGERPRINT_MS = 90_000;
/** Reading waits 5 s for a lagging file system; a bucket that is away is tried for a minute. */
const STORE_MS = 120_000;
/** Starting Python on a busy host, beside the connections themselves. */
const MARGIN_MS = 30_000;

const scripts = new Map<string, string>();

/** A module that needs nothing of the host but a Python. */
function script(name: 'fingerprint' | 'reach'): string {
  const known = scripts.get(name);
  if (known !== undefined) return known;
  const text = readFileSync(path.join(paths.pythonProject, `rankflow/hosts/${name}.py`), 'utf8');
  scripts.set(name, text);
  return text;
}

export interface Asked {
  /** Names of distributions. */
  readonly requirements: readonly string[];
  readonly folders: Readonly<Record<string, string>>;
}

/**
 * Asks a host what it is. The clock is read twice here, before the question and when its answer comes: the host's
 * is compared with both.
 *
 * @throws ProbeError when that Python is not there or too old
 * @throws HostError when the host does not answer
 */
export async function takeFingerprint(
  on: PythonOnHost,
  asked: Asked,
): Promise<{ fingerprint: Fingerprint; clock: ClockBounds }> {
  const sent = Date.now() / 1000;
  let clock: ClockBounds | undefined;
  const onLine = (line: string): void => {
    if (clock !== undefined || !line.startsWith('{"clock"')) return;
    const told = HostClock.parse(JSON.parse(line)).clock;
    clock = { least: told - Date.now() / 1000, most: told - sent };
  };
  const lines = await ask(on, 'fingerprint', [JSON.stringify(asked)], {
    onLine,
    timeoutMs: FINGERPRINT_MS,
  });
  const fingerprint = parse(Fingerprint, lines.at(-1));
  if (clock === undefined) throw new ProbeError('it did not tell its clock');
  return { fingerprint, clock };
}

export interface ListenRequest {
  readonly address: string;
  readonly ports: readonly number[];
  /** Tells this host from whatever else answers. */
  readonly nonce: string;
  readonly seconds: number;
}

/** A host that listens. */
export interface Listener {
  readonly ports: readonly Listening[];
  /** Ends it, and waits until it is gone. */
  close(): Promise<void>;
}

/** Listens on ports of a host until it is closed, `seconds` at most. Errors as {@link takeFingerprint}. */
export async function listen(on: PythonOnHost, request: ListenRequest): Promise<Listener> {
  const stop = new AbortController();
  const signal = on.signal ? AbortSignal.any([stop.signal, on.signal]) : stop.signal;
  let heard: (line: string) => void = () => undefined;
  const first = new Promise<string>((resolve) => {
    heard = resolve;
  });
  const running = ask({ ...on, signal }, 'reach', ['listen', JSON.stringify(request)], {
    onLine: (line) => {
      if (line.startsWith('{"listening"')) heard(line);
    },
    timeoutMs: request.seconds * 1000 + MARGIN_MS,
  });
  const line = await Promise.race([first, running.then((lines) => lines[0] ?? '')]);
  return {
    ports: parse(Listening, line).listening,
    close: async () => {
      stop.abort();
      // It was told to end, or has ended by itself: either is what is wanted.
      await running.catch(() => undefined);
    },
  };
}

export interface Target {
  readonly host: string;
  readonly port: number;
  /** What a listener of ours says; without one any connection will do. */
  readonly nonce?: string | undefined;
}

export interface Reached {
  readonly outcome: ReachOutcome;
  readonly milliseconds?: number | undefined;
}

/** Connections of one host that are tried at once; see `AT_ONCE` of `reach.py`. */
const AT_ONCE = 64;

/**
 * Tries to reach targets from a host, each for `seconds` at most. Errors as {@link takeFingerprint}.
 *
 * @returns the outcomes in the order of the targets
 */
export async function connect(
  on: PythonOnHost,
  targets: readonly Target[],
  seconds: number,
): Promise<Reached[]> {
  const rounds = Math.ceil(targets.length / AT_ONCE);
  const lines = await ask(on, 'reach', ['connect', JSON.stringify({ targets, seconds })], {
    timeoutMs: rounds * seconds * 1000 + MARGIN_MS,
  });
  return parse(Connected, lines.at(-1)).outcomes;
}

export interface StoreRequest {
  readonly action: 'write' | 'read' | 'remove';
  readonly store: string;
  readonly trip: string;
  readonly host: string;
  readonly hosts?: readonly string[];
  /** Settings and credentials of the store; they go over standard input. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** Asks a host's environment to use the store. Errors as {@link takeFingerprint}. */
export async function storeTrip(on: PythonOnHost, request: StoreRequest): Promise<StoreTrip> {
  const { host, python, env, signal } = on;
  const result = await host.run([...python, '-m', 'rankflow.hosts.store_trip'], {
    input: JSON.stringify(request),
    timeoutMs: STORE_MS,
    ...(env && { env }),
    ...(signal && { signal }),
  });
  return parse(StoreTrip, checked(result)[0]);
}

/** Runs a piped module; returns the lines that it printed. */
async function ask(
  { host, python, env, signal }: PythonOnHost,
  name: 'fingerprint' | 'reach',
  args: readonly string[],
  options: Pick<RunOptions, 'onLine' | 'timeoutMs'>,
): Promise<string[]> {
  const result = await host.run([...python, '-', ...args], {
    input: script(name),
    ...(env && { env }),
    ...(signal && { signal }),
    ...options,
  });
  return checked(result);
}

function checked(result: { exitCode: number; stdout: string; stderr: string }): string[] {
  const { exitCode, stdout, stderr } = result;
  if (exitCode === 0) return stdout.trim().split('\n');
  const said = stderr.trim().split('\n').at(-1);
  throw new ProbeError(said === undefined || said === '' ? `exit code ${exitCode}` : said);
}

function parse<T extends z.ZodType>(schema: T, line = ''): z.infer<T> {
  try {
    return schema.parse(JSON.parse(line));
  } catch (error) {
    throw new ProbeError(`not understood: ${line.slice(0, 200)}`, { cause: error });
  }
}
