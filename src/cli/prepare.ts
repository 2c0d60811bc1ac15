import { access, constants, mkdir, stat } from 'node:fs/promises';
import path from 'node:path';

import type { Client } from '@temporalio/client';

import { nodesOfRunningCluster } from '../client/clusters.js';
import { temporalConfigured } from '../client/connection.js';
import { ClientError } from '../client/errors.js';
import { prepareRun, type PreparedRun } from '../client/inference.js';
import { checkStoreSpace } from '../client/input.js';
import { pythonInstalled } from '../client/python.js';
import { startRun, type StartedRun } from '../client/runs.js';
import { logToStderr } from '../setup/log.js';
import { infrastructure, say } from './output.js';
import { flagOf, type RunFlags, toRunOptions } from './run-options.js';

/**
 * Everything that can be checked before anything is started: the options, the input file, the space in the store.
 *
 * @throws ClientError with all problems of the options at once
 */
export async function prepare(file: string, flags: RunFlags): Promise<PreparedRun> {
  if (isBucket(file) || isBucket(flags.store ?? '')) await installPython();
  const run = await prepareRun(toRunOptions(file, flags), flagOf);
  if (run.inference.run.model.backend === 'simulated') {
    say('The simulated backend makes its answers up: they are good for tests only.');
  }
  return run;
}

const isBucket = (address: string): boolean => /^[a-z0-9+.-]+:\/\//iu.test(address);

/** Only the Python side has a client for buckets, and it is needed before anything else is. */
async function installPython(): Promise<void> {
  if (pythonInstalled()) return;
  const { setUp } = await import('../setup/index.js');
  await infrastructure(async () => setUp({ log: logToStderr }));
}

/** Refuses a run that its store has no room for. Separate, as a finished run needs none. */
export async function checkSpace(run: PreparedRun): Promise<void> {
  if (run.inputBytes !== undefined) await checkStoreSpace(run.inference.run.store, run.inputBytes);
}

/**
 * Makes the folder that a file goes to and sees that it can be written to, so that a run of hours does not end
 * there.
 *
 * @throws ClientError `Usage`
 */
export async function prepareOut(file: string | undefined): Promise<void> {
  if (file === undefined) return;
  const out = path.resolve(file);
  const there = await stat(out).catch(() => undefined);
  if (there?.isDirectory()) throw new ClientError('Usage', `--out: ${out} is a folder, not a file`);
  try {
    await mkdir(path.dirname(out), { recursive: true });
    await access(path.dirname(out), constants.W_OK);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new ClientError('Usage', `--out: ${message}`, { cause: error });
  }
}

/** Starts a run on the cluster that is up, when the flags say nothing about its nodes. */
export async function startOnCluster(
  client: Client,
  run: PreparedRun,
  flags: Pick<RunFlags, 'nodes'>,
): Promise<StartedRun> {
  const { cluster } = run.inference;
  if (flags.nodes === undefined && cluster.nodes.provider === 'local') {
    cluster.nodes = (await nodesOfRunningCluster(client, cluster.name)) ?? cluster.nodes;
  }
  return startRun(client, run);
}

/**
 * Brings up what is missing on this machine: the installation, Temporal unless another server is configured,
 * and the workers.
 */
export async function startStack(): Promise<void> {
  await infrastructure(async () => {
    const { setUp } = await import('../setup/index.js');
    const { ensureStack } = await import('../workers/stack/index.js');
    await setUp({ log: logToStderr });
    const { address, uiUrl } = await ensureStack({ log: logToStderr });
    say(
      uiUrl === undefined
        ? `Temporal at ${address}`
        : `Temporal at ${address}, web interface ${uiUrl}`,
    );
  });
}

/** Whether a command may start the local stack: not when told so. */
export async function startStackUnless(noStart: boolean): Promise<void> {
  if (!noStart) await startStack();
  else if (temporalConfigured()) say('Using the Temporal server that the environment names.');
}
