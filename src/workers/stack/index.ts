import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import path from 'node:path';

import { Client } from '@temporalio/client';

import { readIfExists, writeAtomically } from '../../setup/files.js';
import { withLock } from '../../setup/lock.js';
import type { Log } from '../../setup/log.js';
import { paths } from '../../setup/paths.js';
import { endGroup, identityOf, isAlive, waitUntil } from '../../setup/processes.js';
import { configuredServer } from '../../temporal/settings.js';
import { isOlder, ownBuild, releaseOf } from '../build.js';
import { becomeCurrent, isVersioned, readDeployment, versioning } from '../deployment.js';
import { StackConfig, stackConfig, upgradedConfig, type ProcessSpec } from './config.js';
import { LOCK } from './draining.js';
import { requireServer, waitUntilReady } from './ready.js';
import { connectTo } from './server.js';
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
  /** Build of the workers that new work goes to. */
  readonly build?: string;
}

export interface StackStatus {
  /** `broken`: the supervisor was killed; `up` and `down` both mend it. */
  readonly status: 'running' | 'broken' | 'stopped';
  readonly stack?: StackState;
}

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
 * Starts the stack unless it runs, and waits until the server answers and the workers poll. Workers of an older release
 * or of another build of this one get the caller's build beside them, which everything new goes to from then on.
 *
 * @param options.rollback also when the caller's release is the older one
 * @param options.workers other workers than Rankflow's own, for tests
 * @throws Error when it does not come up; the message holds the last lines of the log
 */
export async function ensureStack(options: {
  readonly log: Log;
  readonly rollback?: boolean;
  readonly workers?: readonly ProcessSpec[];
}): Promise<StackInfo> {
  const { log, workers, rollback = false } = options;
  const config = await withLock(LOCK, log, WAITING, async () => {
    const { status, stack } = stackStatus();
    if (stack !== undefined && status === 'running') {
      const running = adopt(stack);
      if (workers !== undefined) return running;
      if (running.build !== undefined) return upgrade(stack, running, rollback, log);
      log('the stack is of a Rankflow that knows no builds; starting it again ...');
      await end(stack);
    } else if (workers === undefined) refuseOlder(rollback);
    if (stack !== undefined && status === 'broken') {
      log('the supervisor of the last stack was killed; ending what it left ...');
      await endProcesses(stack.processes);
    }
    const fresh = await stackConfig(workers && [...workers]);
    if (!fresh.ownsServer) await requireServer(fresh);
    await startSupervisor(fresh, log);
    return fresh;
  });
  await waitUntilReady(config, log);
  if (workers === undefined && config.build === ownBuild().id) await makeCurrent(config, rollback);
  const { address, namespace, uiUrl, metricsUrl, ownsServer, build } = config;
  const urls = {
    ...(uiUrl !== undefined && { uiUrl }),
    ...(metricsUrl !== undefined && { metricsUrl }),
    ...(build !== undefined && { build }),
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
  return StackConfig.parse(JSON.parse(text));
}

/** A release goes forward only, unless somebody says so: what a newer one began may be beyond an older one. */
function refuseOlder(rollback: boolean): void {
  const text = readIfExists(configFile);
  const { build } = text === undefined ? {} : (JSON.parse(text) as Partial<StackConfig>);
  const { release } = ownBuild();
  if (rollback || build === undefined || !isOlder(release, releaseOf(build))) return;
  throw new Error(
    `The stack ran Rankflow ${releaseOf(build)} last, and this is ${release}. Run the newer one, or go back with ` +
      '`rankflow up --rollback`.',
  );
}

/** Has the supervisor run the caller's build, beside the one that it runs. */
async function upgrade(
  stack: StackState,
  running: StackConfig,
  rollback: boolean,
  log: Log,
): Promise<StackConfig> {
  const own = ownBuild();
  const before = running.build ?? '';
  if (before !== own.id && !rollback && isOlder(own.release, releaseOf(before))) {
    log(
      `the stack runs Rankflow ${releaseOf(before)}, which is newer than this ${own.release}, and goes on with it ` +
        '(`rankflow up --rollback` goes back)',
    );
    return running;
  }
  let next = running;
  if (before !== own.id) {
    log(`the stack runs build ${before}; starting ${own.id} beside it ...`);
    const beside = await withClient(running, isVersioned);
    next = await upgradedConfig(running, beside);
    writeAtomically(configFile, JSON.stringify(next, undefined, 2));
  } else if (stack.build === own.id) return running;
  const { pid } = stack.supervisor;
  process.kill(pid, 'SIGHUP');
  const follows = (): boolean => readState()?.build === own.id;
  await waitUntil(() => follows() || identityOf(pid) === undefined, SUPERVISOR_START_MS);
  if (!follows()) {
    throw new Error(
      'The supervisor does not take the new build: see supervisor.log, then run `rankflow up` again.',
    );
  }
  return next;
}

/**
 * The build that the stack was told to run is the one that everything new goes to; on a server that several stacks share
 * only a rollback takes that from a newer release.
 */
async function makeCurrent(config: StackConfig, rollback: boolean): Promise<void> {
  if (versioning() !== 'auto') return;
  await withClient(config, async (client) => {
    if (!(await isVersioned(client))) return;
    const own = ownBuild();
    const current = (await readDeployment(client))?.current;
    const isNewer = current !== undefined && isOlder(own.release, releaseOf(current));
    if (rollback || !isNewer) await becomeCurrent(client, own, true);
  });
}

async function withClient<T>(
  { address, namespace }: StackConfig,
  work: (client: Client) => Promise<T>,
): Promise<T> {
  const connection = await connectTo(address, namespace);
  try {
    return await work(new Client({ connection, namespace }));
  } finally {
    await connection.close();
  }
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
    await end(recorded);
    return true;
  });
}

async function end(recorded: StackState): Promise<void> {
  await endGroup(recorded.supervisor, STOP_MS);
  // Read again: while it stopped, the supervisor may have started or ended processes.
  await endProcesses((readState() ?? recorded).processes);
  removeState();
}
