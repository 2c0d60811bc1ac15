import { Client } from '@temporalio/client';
import { NativeConnection, Runtime, Worker, type Logger } from '@temporalio/worker';

import { controlActivities } from '../activities/index.js';
import { CONTROL_QUEUE, DEPLOYMENT } from '../contracts/names.js';
import { workerIdentity } from '../encryption/identity.js';
import { encryption, type Encryption } from '../encryption/index.js';
import { workerLogger } from '../logs/worker-logger.js';
import { metricsAddress, type MetricsAddress } from '../metrics/address.js';
import { serveControlMetrics } from '../metrics/index.js';
import { isProgram } from '../setup/program.js';
import { connectionError } from '../temporal/problem.js';
import { STICKY_MS } from '../temporal/sticky.js';
import { temporalSettings, type TemporalSettings } from '../temporal/settings.js';
import { tracing, type Tracing } from '../tracing/index.js';
import { installRuntimeWithMetrics } from '../metrics/runtime.js';
import { BEGUN_AGAIN } from './begun-again.js';
import { ownBuild, type Build } from './build.js';
import { becomeCurrent, isVersioned, versioning } from './deployment.js';
import { mendMisfits } from './misfits.js';
import { workflowCode } from './workflow-code.js';

/** Of Temporal's own defaults. */
const DEFAULT_ADDRESS = 'localhost:7233';
/** Time for running activities to end by themselves; the stack's supervisor kills after 10 s. */
const GRACE = '5 seconds';
/** Cancellation arrives with the answer to a heartbeat: people wait for it. The default is 0.8 of the time-out. */
const HEARTBEAT_AT_LEAST_EVERY = '2 seconds';
/**
 * For one step of a workflow. One that is broken off ends the process, as Node.js is left with a corrupt stack, and a
 * fleet of a thousand engines takes more than the default of 5 s on a machine that is busy with other things.
 * Temporal's SDK reads this option, but its types do not have it.
 */
const STEP = { isolateExecutionTimeout: '30 seconds' };

/**
 * A worker for all workflows and for the activities about clusters and entities.
 *
 * @param build Temporal gives it what is pinned to this build, and all else while it is the current one; absent: a
 *   worker for a server without worker deployments
 */
export async function createControlWorker(
  connection: NativeConnection,
  namespace: string,
  build?: Build,
  traced?: Tracing,
  { dataConverter, on }: Encryption = encryption(),
): Promise<Worker> {
  const plain = traced === undefined && dataConverter.failureConverterPath === undefined;
  const code = workflowCode(
    build !== undefined,
    plain,
    traced?.worker.interceptors.workflowModules,
  );
  const version = build && { buildId: build.id, deploymentName: DEPLOYMENT };
  return Worker.create({
    connection,
    namespace,
    taskQueue: CONTROL_QUEUE,
    ...code,
    activities: controlActivities,
    ...(version && {
      workerDeploymentOptions: {
        version,
        useWorkerVersioning: true,
        // What outlives builds says so itself.
        defaultVersioningBehavior: 'PINNED',
      },
    }),
    shutdownGraceTime: GRACE,
    stickyQueueScheduleToStartTimeout: STICKY_MS,
    workflowFailureErrorTypes: BEGUN_AGAIN,
    dataConverter,
    identity: workerIdentity(on),
    ...STEP,
    ...(traced && {
      sinks: traced.worker.sinks,
      interceptors: { ...traced.worker.interceptors, ...code.interceptors },
    }),
    maxHeartbeatThrottleInterval: HEARTBEAT_AT_LEAST_EVERY,
    defaultHeartbeatThrottleInterval: HEARTBEAT_AT_LEAST_EVERY,
  });
}

/** Connects to what Temporal's own settings name, else to a server on this machine, and serves until SIGTERM. */
async function main(): Promise<void> {
  const logger = workerLogger('control-worker');
  const address = addressOrNone(logger);
  const temporalPort = address && (await installRuntimeWithMetrics(logger));
  if (address === undefined) Runtime.install({ logger });
  const { address: server = DEFAULT_ADDRESS, namespace, options } = temporalSettings();
  const encrypted = encryption();
  const connection = await connected(server, options);
  try {
    const { dataConverter } = encrypted;
    const client = new Client({ connection, namespace, dataConverter });
    if (address !== undefined) await serveControlMetrics(address, client, temporalPort, logger);
    const traced = await tracing('rankflow-control-worker');
    const build = (await isVersioned(client)) ? ownBuild() : undefined;
    if (build === undefined) logger.warn('unversioned: an upgrade takes running workflows along');
    const worker = await createControlWorker(connection, namespace, build, traced, encrypted);
    const running = worker.run();
    const ended = new AbortController();
    if (build !== undefined) void takeOver(client, build, logger, ended.signal);
    const plain = dataConverter.failureConverterPath === undefined;
    const code = { ...workflowCode(build !== undefined, plain), dataConverter };
    void mendMisfits({ client, code, build, logger }, ended.signal);
    try {
      await running;
    } finally {
      ended.abort();
    }
    await traced?.flush();
  } finally {
    await connection.close();
  }
}

async function connected(
  address: string,
  options: TemporalSettings['options'],
): Promise<NativeConnection> {
  try {
    return await NativeConnection.connect({ address, ...options });
  } catch (error) {
    throw await connectionError(address, options, error);
  }
}

/** From now on workflows begin with this build, unless a newer one is there or people decide (`manual`). */
async function takeOver(client: Client, build: Build, logger: Logger, signal: AbortSignal) {
  const fields = { build: build.id };
  if (versioning() === 'manual') return;
  try {
    const verdict = await becomeCurrent(client, build, false, signal);
    logger.info(`build ${build.id}: ${verdict}`, fields);
  } catch (error) {
    if (!signal.aborted)
      logger.error(error instanceof Error ? error.message : String(error), fields);
  }
}

/** Metrics are no reason for a worker not to start. */
function addressOrNone(logger: Logger): MetricsAddress | undefined {
  try {
    return metricsAddress();
  } catch (error) {
    logger.warn('this worker serves no metrics', { error: String(error) });
    return undefined;
  }
}

if (isProgram(import.meta.url)) await main();
