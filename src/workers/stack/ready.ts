import type { Connection } from '@temporalio/client';

import { readIfExists } from '../../setup/files.js';
import type { Log } from '../../setup/log.js';
import { isAlive, sleep } from '../../setup/processes.js';
import { connectionError, NO_ANSWER } from '../../temporal/problem.js';
import { temporalSettings } from '../../temporal/settings.js';
import { keyOf, type StackConfig } from './config.js';
import { connectTo, hasPoller } from './server.js';
import { readState, type ProcessState } from './state.js';

/** A Python worker takes half a minute to import what it needs when the disk is cold. */
const READY_MS = 180_000;
/** A process that ended this often while the stack starts will not get better by waiting. */
const GIVE_UP_AFTER = 4;
const TAIL_LINES = 15;

/**
 * Waits until the server answers and each worker polls its queue.
 *
 * @throws Error naming what is not ready, with the end of its log
 */
export async function waitUntilReady(config: StackConfig, log: Log): Promise<void> {
  const deadline = Date.now() + READY_MS;
  let missing: string[] = [];
  let connection: Connection | undefined;
  try {
    while (Date.now() < deadline) {
      connection ??= await tryConnect(config);
      const waiting = await notReady(config, connection);
      if (waiting.length === 0) return;
      if (waiting.join() !== missing.join()) log(`waiting for ${waiting.join(', ')} ...`);
      missing = waiting;
      throwIfHopeless(missing);
      await sleep(300);
    }
  } finally {
    await connection?.close();
  }
  throw new Error(explain(missing, `not ready after ${READY_MS / 1000} s`));
}

/** Tries of a server that somebody else runs: a connection may fail by chance, a wrong address always does. */
const TRIES = 3;

/**
 * Makes sure that a server which the user named is there, before anything is started beside it.
 *
 * @throws Error with the address and the reason, after ten seconds or so
 */
export async function requireServer({ address, namespace }: StackConfig): Promise<void> {
  let reason = '';
  for (let tries = 0; tries < TRIES; tries += 1) {
    try {
      return await (await connectTo(address, namespace)).close();
    } catch (error) {
      const problem = await connectionError(address, temporalSettings().options, error);
      // What is refused once is refused each time.
      if (!problem.message.endsWith(NO_ANSWER)) throw problem;
      reason = error instanceof Error ? error.message : String(error);
      await sleep(500);
    }
  }
  throw new Error(
    `Temporal at ${address}, which TEMPORAL_ADDRESS or temporal.toml names, does not answer for the ` +
      `namespace ${namespace}: ${reason}`,
  );
}

async function tryConnect(config: StackConfig): Promise<Connection | undefined> {
  try {
    return await connectTo(config.address, config.namespace);
  } catch {
    return undefined;
  }
}

async function notReady(config: StackConfig, connection?: Connection): Promise<string[]> {
  if (connection === undefined) return [config.ownsServer ? 'temporal' : config.address];
  const states = new Map(readState()?.processes.map((one) => [keyOf(one), one]));
  // Whoever waits for a stack does not wait for what is on its way out.
  const wanted = config.processes.filter(({ draining }) => draining !== true);
  const checks = wanted.map(async (spec) => {
    const { name, queue } = spec;
    const state = states.get(keyOf(spec));
    if (state?.status !== 'running') return [name];
    if (queue === undefined) return [];
    try {
      const since = state.startedAt ?? 0;
      return (await hasPoller(connection, config.namespace, queue, since)) ? [] : [name];
    } catch {
      return [name];
    }
  });
  return (await Promise.all(checks)).flat();
}

function throwIfHopeless(missing: readonly string[]): void {
  const state = readState();
  if (state === undefined || !isAlive(state.supervisor)) {
    throw new Error('The supervisor of the stack ended: see supervisor.log in the logs folder.');
  }
  const failing = state.processes.filter(
    (one) => missing.includes(one.name) && one.draining !== true && one.restarts >= GIVE_UP_AFTER,
  );
  if (failing.length > 0) {
    throw new Error(
      explain(
        failing.map((one) => one.name),
        'ends again and again',
      ),
    );
  }
}

function explain(names: readonly string[], what: string): string {
  const states: ProcessState[] = readState()?.processes ?? [];
  const parts = names.map((name) => {
    const state = states.find((one) => one.name === name);
    if (state === undefined) return `${name}: ${what}`;
    const tail = (readIfExists(state.log) ?? '').trimEnd().split('\n').slice(-TAIL_LINES);
    const end = state.lastEnd === undefined ? '' : ` (${state.lastEnd})`;
    return `${name}: ${what}${end}; the end of ${state.log}:\n  ${tail.join('\n  ')}`;
  });
  return parts.join('\n');
}
