/**
 * The supervisor of the local stack: a detached process that keeps the Temporal server and the workers
 * running, and ends them when it gets SIGTERM. `ensureStack` starts it: `node supervisor.js CONFIG_FILE`.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { pino } from 'pino';

import { paths } from '../../setup/paths.js';
import { ownProcess, sleep } from '../../setup/processes.js';
import { StackConfig } from './config.js';
import { connectTo } from './server.js';
import { removeState, writeState, type StackState } from './state.js';
import { SupervisedProcess } from './supervised.js';

const config = StackConfig.parse(JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')));
const log = pino(
  { name: 'supervisor' },
  pino.destination({ dest: path.join(paths.logs, 'supervisor.log'), sync: true, mkdir: true }),
);

const processes = config.processes.map(
  (spec) => new SupervisedProcess(spec, log, () => writeState(state())),
);
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

writeState(state());
log.info({ address: config.address }, 'starting');
for (const one of ofRole('server')) one.start();
await serverAnswers();
if (stopping === undefined) for (const one of ofRole('worker')) one.start();
