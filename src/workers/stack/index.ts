import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import path from 'node:path';

import { readIfExists, writeAtomically } from '../../setup/files.js';
import { withLock } from '../../setup/lock.js';
import type { Log } from '../../setup/log.js';
import { paths } from '../../setup/paths.js';
import { endGroup, identityOf, isAlive, waitUntil } from '../../setup/processes.js';
import { configuredServer } from '../../temporal/settings.js';
import { stackConfig, type ProcessSpec, type StackConfig } from './config.js';
import { requireServer, waitUntilReady } from './ready.js';
import { readState, removeState, type ProcessState, type StackState } from './state.js';

export type { ProcessSpec } from './config.js';

/** A running stack. */
export interface StackInfo {
  /** `host:port` of the Temporal server. */
  readonly address: string;
  readonly namespace: string;
  /** Address of Temporal's web interface; absent when the server is not ours. */
  readonly uiUrl?: string;
  /** Where Prometheus finds the control worker's metrics; absent when they are off. */
  readonly metricsUrl?: string;
  readonly ownsServer: boolean;
}

export interface StackStatus {
  /** `broken`: the supervisor was killed; `up` and `down` both mend it. */
  readonly status: 'running' | 'broken' | 'stopped';
  readonly stack?: StackState;
}

const LOCK = 'stack';
const WAITING = 'another command starts or stops the stack, waiting for it ...';
const configFile = path.join(paths.stack, 'config.json');
const supervisorFile = path.join(paths.packageRoot, 'dist/workers/stack/supervisor.js');

/** The supervisor needs a moment to load; it writes its state before it starts anything. */
const SUPERVISOR_START_MS = 30_000;
/** Longer than the graces of the workers and of the server together. */
const STOP_MS = 30_000;

/** What the recorded stack is like now. Starts and stops nothing. */
export function stackStatus(): StackStatus {
  const stack = readState();
  if (stack === undefined) return { status: 'stopped' };
  return { status: isAlive(stack.supervisor) ? 'running' : 'broken', stack };
}

/** `host:port` of the stack's Temporal server; undefined when no stack was started in this data folder. */
export const stackAddress = (): string | undefined => readState()?.address;

/**
 * Starts the stack unless it runs, and waits until the server answers and the workers poll.
 *
 * @param options.workers other workers than Rankflow's own, for tests
 * @throws Error when it does not come up; the message holds the last lines of the log
 */
export async function ensureStack(options: {
  readonly log: Log;
  readonly workers?: readonly ProcessSpec[];
}): Promise<StackInfo> {
  const { log, workers } = options;
  const config = await withLock(LOCK, log, WAITING, async () => {
    const { status, stack } = stackStatus();
    if (stack !== undefined && status === 'running') return adopt(stack);
    if (stack !== undefined) {
      log('the supervisor of the last stack was killed; ending what it left ...');
      await endProcesses(stack.processes);
    }
    const fresh = await stackConfig(workers && [...workers]);
    if (!fresh.ownsServer) await requireServer(fresh);
    await startSupervisor(fresh, log);
    return fresh;
  });
  await waitUntilReady(config, log);
  const { address, namespace, uiUrl, metricsUrl, ownsServer } = config;
  const urls = {
    ...(uiUrl !== undefined && { uiUrl }),
    ...(metricsUrl !== undefined && { metricsUrl }),
  };
  return { address, namespace, ownsServer, ...urls };
}

/** The configuration of the stack that runs already. */
function adopt(stack: StackState): StackConfig {
  const { address } = configuredServer();
  if (address !== undefined && address !== stack.address) {
    throw new Error(
      `A stack runs on ${stack.address}, but TEMPORAL_ADDRESS is ${address}. Run \`rankflow down\` first.`,
    );
  }
  const text = readIfExists(configFile);
  if (text === undefined) throw new Error('The stack has no configuration: run `rankflow down`.');
  return JSON.parse(text) as StackConfig;
}

async function startSupervisor(config: StackConfig, log: Log): Promise<void> {
  log(config.ownsServer ? 'starting Temporal and the workers ...' : 'starting the workers ...');
  removeState();
  mkdirSync(paths.logs, { recursive: true });
  writeAtomically(configFile, JSON.stringify(config, undefined, 2));
  const errors = path.join(paths.logs, 'supervisor.err.log');
  const output = openSync(errors, 'w');
  const child = spawn(process.execPath, ['--enable-source-maps', supervisorFile, configFile], {
    cwd: paths.packageRoot,
    env: { ...process.env, RANKFLOW_HOME: paths.home },
    detached: true,
    stdio: ['ignore', output, output],
  });
  closeSync(output);
  child.unref();
  const { pid } = child;
  if (pid === undefined) throw new Error('The supervisor could not be started');
  const started = (): boolean => readState()?.supervisor.pid === pid;
  await waitUntil(() => started() || identityOf(pid) === undefined, SUPERVISOR_START_MS);
  if (!started()) throw new Error(`The supervisor did not start:\n${readIfExists(errors) ?? ''}`);
}

/** Workers first, the server last, as the supervisor would have done. */
async function endProcesses(processes: readonly ProcessState[]): Promise<void> {
  for (const role of ['worker', 'server'] as const) {
    const ids = processes.flatMap((one) =>
      one.role === role && one.process !== undefined ? [one.process] : [],
    );
    await Promise.all(ids.map((id) => endGroup(id, 5000)));
  }
}

/**
 * Ends the stack and leaves no process of it, even when its supervisor hangs or was killed.
 *
 * @returns whether there was one
 */
export async function stopStack(options: { readonly log: Log }): Promise<boolean> {
  return withLock(LOCK, options.log, WAITING, async () => {
    const recorded = readState();
    if (recorded === undefined) return false;
    await endGroup(recorded.supervisor, STOP_MS);
    // Read again: while it stopped, the supervisor may have started or ended processes.
    await endProcesses((readState() ?? recorded).processes);
    removeState();
    return true;
  });
}
