/**
 * The supervisor of the local stack: a detached process that keeps the Temporal server and the workers
 * running, and ends them when it gets SIGTERM. `ensureStack` starts it: `node supervisor.js CONFIG_FILE`.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { pino } from 'pino';

import { withLock } from '../../setup/lock.js';
import { paths } from '../../setup/paths.js';
import { ownProcess, sleep } from '../../setup/processes.js';
import { forgetBuild } from './builds.js';
import { StackConfig, keyOf } from './config.js';
import { LOCK, endedBuilds } from './draining.js';
import { connectTo } from './server.js';
import { removeState, writeState, type StackState } from './state.js';
import { SupervisedProcess } from './supervised.js';

const configFile = process.argv[2] ?? '';
const readConfig = (): StackConfig =>
  StackConfig.parse(JSON.parse(readFileSync(configFile, 'utf8')));
let config = readConfig();
const log = pino(
  { name: 'supervisor' },
  pino.destination({ dest: path.join(paths.logs, 'supervisor.log'), sync: true, mkdir: true }),
);

const supervised = (spec: StackConfig['processes'][number]): SupervisedProcess =>
  new SupervisedProcess(spec, log, () => writeState(state()));
let processes = config.processes.map(supervised);
const startedAt = Date.now();

function state(): StackState {
  const { address, namespace, uiUrl, ownsServer } = config;
  return {
    version: 1,
    supervisor: ownProcess(),
    address,
    namespace,
    ...(uiUrl === undefined ? {} : { uiUrl }),
    ownsServer,
    ...(config.build !== undefined && { build: config.build }),
    startedAt,
    processes: processes.map((one) => one.state),
  };
}

const ofRole = (role: 'server' | 'worker'): SupervisedProcess[] =>
  processes.filter((one) => one.state.role === role);

let stopping: Promise<void> | undefined;

/** Workers first: what they are doing is given back to a server that is still there. */
async function stop(reason: string): Promise<void> {
  log.info({ reason }, 'stopping');
  await Promise.all(ofRole('worker').map((one) => one.stop()));
  await Promise.all(ofRole('server').map((one) => one.stop()));
  removeState();
  log.info('stopped');
}

function stopAndExit(reason: string, code: number): void {
  stopping ??= stop(reason);
  void stopping.finally(() => process.exit(code));
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => stopAndExit(signal, 0));
}
process.on('uncaughtException', (error) => {
  log.fatal({ err: error }, 'the supervisor failed');
  stopAndExit('failure', 1);
});

let changes = Promise.resolve();

/** Does what the configuration says now: ends what is not in it, begins what is new, and leaves the rest alone. */
async function change(): Promise<void> {
  const next = readConfig();
  const known = new Map(processes.map((one) => [one.key, one]));
  const wanted = new Map(next.processes.map((spec) => [keyOf(spec), spec]));
  // A worker that another one replaces gives back what it does first.
  await Promise.all([...known].map(async ([key, one]) => wanted.has(key) || one.stop()));
  if (stopping !== undefined) return;
  config = next;
  const fresh: SupervisedProcess[] = [];
  processes = next.processes.map((spec) => {
    const one = known.get(keyOf(spec)) ?? supervised(spec);
    if (!known.has(one.key)) fresh.push(one);
    one.drain(spec.draining ?? false);
    return one;
  });
  for (const one of fresh) one.start();
  writeState(state());
}

/** One change after the other, each reads what is to be then. */
async function changed(): Promise<void> {
  changes = changes.then(change).catch((error: unknown) => {
    log.error({ err: error }, 'the new configuration could not be followed');
  });
  return changes;
}

process.on('SIGHUP', () => {
  log.info('told of a new configuration');
  void changed();
});

/** The server itself looks every few minutes whether anything is pinned to a build. */
const LOOK_FOR_ENDED_MS = 15_000;

/** Builds that nothing is pinned to any more go. What cannot be asked now is asked again later. */
async function retire(): Promise<void> {
  const ended = await endedBuilds(configFile, log).catch((error: unknown) => {
    log.warn({ err: error }, 'could not look for builds that ended');
    return [];
  });
  if (ended.length === 0) return;
  log.info({ ended }, 'nothing is pinned to these builds any more');
  await changed();
  await withLock(
    LOCK,
    (text) => log.info(text),
    'waiting for a command',
    async () => {
      // Somebody may have gone back to one of them meanwhile.
      const needed = new Set(readConfig().processes.map(({ build }) => build));
      ended.filter((build) => !needed.has(build)).forEach(forgetBuild);
    },
  );
}

function lookForEnded(): void {
  const draining = stopping === undefined && config.processes.some((spec) => spec.draining);
  void (draining ? retire() : Promise.resolve()).finally(() =>
    setTimeout(lookForEnded, LOOK_FOR_ENDED_MS).unref(),
  );
}

/** Returns once the server knows the namespace. Waits for ever: without a server there is nothing to do. */
async function serverAnswers(): Promise<void> {
  for (let tries = 1; stopping === undefined; tries += 1) {
    try {
      const connection = await connectTo(config.address, config.namespace);
      await connection.close();
      return;
    } catch (error) {
      if (tries % 20 === 0) log.warn({ err: error, address: config.address }, 'no server yet');
      await sleep(250);
    }
  }
}

/** Between two looks at the sizes of the logs. */
const BOUND_LOGS_MS = 60_000;

setInterval(() => {
  for (const one of processes) one.boundLog();
}, BOUND_LOGS_MS).unref();

writeState(state());
log.info({ address: config.address }, 'starting');
for (const one of ofRole('server')) one.start();
await serverAnswers();
// Builds whose last workflow ended while the stack was down need not be started.
if (config.processes.some((spec) => spec.draining)) await retire();
if (stopping === undefined) {
  // Told of another one meanwhile: those have been started.
  for (const one of ofRole('worker')) if (one.state.status === 'waiting') one.start();
  lookForEnded();
}
