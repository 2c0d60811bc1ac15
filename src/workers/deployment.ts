/**
 * Which build of the control worker is the current one: Temporal gives it new workflows, and those that are not
 * pinned to the build that began them.
 */
import type { Client } from '@temporalio/client';
import proto from '@temporalio/proto';

import { DEPLOYMENT } from '../contracts/names.js';
import { isOlder, releaseOf, type Build } from './build.js';

const { WorkerDeploymentVersionStatus: Status } = proto.temporal.api.enums.v1;

/** What a build is for Temporal. */
export type BuildState =
  | 'current'
  /** Workflows that are pinned to it still run. */
  | 'draining'
  /** None of them does. */
  | 'drained'
  /** It has never been the current one. */
  | 'inactive';

export interface Deployment {
  readonly current?: string;
  readonly builds: ReadonlyMap<string, BuildState>;
  /** Changes with each change: whoever writes says which one he has read. */
  readonly token: Uint8Array;
}

export type DeploymentClient = Pick<Client, 'workflowService' | 'options'>;

/**
 * What Temporal knows of the builds of the control worker; undefined before the first of them has polled.
 *
 * @throws ServiceError when the server does not answer or has no worker deployments
 */
export async function readDeployment(client: DeploymentClient): Promise<Deployment | undefined> {
  const { namespace } = client.options;
  try {
    const { workerDeploymentInfo: info, conflictToken } =
      await client.workflowService.describeWorkerDeployment({
        namespace,
        deploymentName: DEPLOYMENT,
      });
    const current = info?.routingConfig?.currentDeploymentVersion?.buildId;
    const builds = (info?.versionSummaries ?? []).flatMap(({ deploymentVersion, status }) =>
      deploymentVersion?.buildId
        ? [[deploymentVersion.buildId, stateOf(status)] as [string, BuildState]]
        : [],
    );
    return {
      ...(current && { current }),
      builds: new Map(builds),
      token: conflictToken ?? new Uint8Array(),
    };
  } catch (error) {
    if ((error as { code?: number }).code === NOT_FOUND) return undefined;
    throw error;
  }
}

function stateOf(status: number | null | undefined): BuildState {
  if (status === Status.WORKER_DEPLOYMENT_VERSION_STATUS_INACTIVE) return 'inactive';
  if (status === Status.WORKER_DEPLOYMENT_VERSION_STATUS_DRAINED) return 'drained';
  if (status === Status.WORKER_DEPLOYMENT_VERSION_STATUS_DRAINING) return 'draining';
  return 'current';
}

/** gRPC's codes. */
const NOT_FOUND = 5;
const PERMISSION_DENIED = 7;
const UNIMPLEMENTED = 12;

export type Versioning =
  /** A build that begins to poll becomes the current one, unless a newer one is. */
  | 'auto'
  /** People say which build is the current one. */
  | 'manual'
  /** One build at a time: workflows go on with whatever serves them. */
  | 'off';

/** `RANKFLOW_VERSIONING`; what it does not know counts as `auto`. */
export function versioning(): Versioning {
  const asked = process.env['RANKFLOW_VERSIONING'];
  return asked === 'off' || asked === 'manual' ? asked : 'auto';
}

/** Whether control workers are versioned: unless that is off, or the server has no worker deployments. */
export async function isVersioned(client: DeploymentClient): Promise<boolean> {
  if (versioning() === 'off') return false;
  try {
    await readDeployment(client);
    return true;
  } catch (error) {
    const { code } = error as { code?: number };
    return code !== UNIMPLEMENTED && code !== PERMISSION_DENIED;
  }
}

export type TakeOver = 'take' | 'is current' | 'a newer release is current' | 'was current before';

/**
 * Whether a build that has begun to poll becomes the current one by itself. A release goes forward only, and a build
 * that another one has replaced stays so, however often its process is started again. Pure.
 */
export function mayTakeOver(own: Build, deployment: Deployment): TakeOver {
  const { current, builds } = deployment;
  if (current === undefined) return 'take';
  if (current === own.id) return 'is current';
  if (isOlder(own.release, releaseOf(current))) return 'a newer release is current';
  const state = builds.get(own.id);
  return state === 'draining' || state === 'drained' ? 'was current before' : 'take';
}

/** Pollers are known within a second; a server that is busy with a start takes longer. */
const TRY_EVERY_MS = 500;
const TRIES = 120;

/**
 * Makes a build that polls the current one, unless it may not be.
 *
 * @param told somebody wants it so, whatever was current before
 * @returns why it did not become the current one, or that it is
 * @throws Error when the server keeps refusing for a minute, as when nobody polls
 */
export async function becomeCurrent(
  client: DeploymentClient,
  own: Build,
  told: boolean,
  signal?: AbortSignal,
): Promise<TakeOver> {
  let last: unknown = new Error(`no worker of build ${own.id} polls`);
  for (let tries = 0; tries < TRIES && signal?.aborted !== true; tries += 1) {
    try {
      const deployment = await readDeployment(client);
      // It is known with its first poll.
      if (deployment?.builds.has(own.id) === true) {
        const verdict = mayTakeOver(own, deployment);
        if (verdict === 'is current' || (verdict !== 'take' && !told)) return verdict;
        await client.workflowService.setWorkerDeploymentCurrentVersion({
          namespace: client.options.namespace,
          deploymentName: DEPLOYMENT,
          buildId: own.id,
          identity: client.options.identity,
          // Another one that became it meanwhile is looked at again.
          conflictToken: deployment.token,
        });
        return 'is current';
      }
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => {
      setTimeout(resolve, TRY_EVERY_MS);
    });
  }
  throw new Error(`build ${own.id} could not become the current one: ${String(last)}`, {
    cause: last,
  });
}
