import { Context } from '@temporalio/activity';
import {
  WithStartWorkflowOperation,
  WorkflowNotFoundError,
  WorkflowUpdateFailedError,
  type Client,
} from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';

import { startAttributes } from '../client/attributes.js';
import { clusterStartDetails } from '../client/clusters.js';
import { queryWorkflow } from '../client/entities.js';
import type { ReleaseInput } from '../contracts/activities.js';
import {
  CONTROL_QUEUE,
  QUERY,
  UPDATE,
  WORKFLOW,
  clusterWorkflowId,
  fleetQueue,
  fleetWorkflowId,
} from '../contracts/names.js';
import type {
  ClusterStatus,
  ClusterWorkflowInput,
  EnsureClusterRequest,
  EnsuredCluster,
  EnsuredFleet,
  EnsureFleetRequest,
  FleetWorkflowInput,
  StopRequest,
  StopResult,
} from '../contracts/workflows.js';
import { fleetAttributes, type AttributeValues } from '../contracts/search-attributes.js';
import { shortName } from '../text.js';

/** Well within the 30 s after which these activities are thought to be lost. */
const HEARTBEAT_MS = 5_000;

/** Which entity, and what is asked of it. */
interface EnsureCall {
  readonly workflow: string;
  readonly workflowId: string;
  readonly update: string;
  readonly start: ClusterWorkflowInput | FleetWorkflowInput;
  readonly request: EnsureClusterRequest | EnsureFleetRequest;
  readonly summary: string;
  /** Markdown for the web interface. */
  readonly details: string;
  /** What it is found by from its start. */
  readonly attributes: AttributeValues;
}

/** Brings a cluster up through its workflow, or finds it up. Claims it for the user; safe to repeat. */
export async function ensureCluster(request: EnsureClusterRequest): Promise<EnsuredCluster> {
  const { spec } = request;
  return ensure<EnsuredCluster>({
    workflow: WORKFLOW.cluster,
    workflowId: clusterWorkflowId(spec.name),
    update: UPDATE.ensureCluster,
    start: { spec },
    request,
    summary: `Ray cluster ${spec.name}`,
    details: clusterStartDetails(spec),
    attributes: { cluster: spec.name, state: 'starting' },
  });
}

/** Brings a fleet up through its workflow, or finds it up. Claims it for the user; safe to repeat. */
export async function ensureFleet(request: EnsureFleetRequest): Promise<EnsuredFleet> {
  const { spec } = request;
  return ensure<EnsuredFleet>({
    workflow: WORKFLOW.fleet,
    workflowId: fleetWorkflowId(spec.name),
    update: UPDATE.ensureFleet,
    start: { spec },
    request,
    summary: `Engines of ${shortName(spec.model.model)} on cluster ${spec.cluster.name}`,
    details: `Model \`${spec.model.model}\`, task queue \`${fleetQueue(spec.name, spec.specHash)}\``,
    attributes: fleetAttributes(spec),
  });
}

/** What the workflow of a cluster says; undefined when there is none or it does not answer. */
export async function clusterStatus(name: string): Promise<ClusterStatus | undefined> {
  const { client } = Context.current();
  try {
    return await queryWorkflow<ClusterStatus>(client, clusterWorkflowId(name), QUERY.status, 1);
  } catch {
    return undefined;
  }
}

/** Gives a cluster back; it goes when nobody else needs it. One that is gone already is well. */
export async function stopCluster({ name, user }: ReleaseInput): Promise<StopResult> {
  return release(clusterWorkflowId(name), UPDATE.stopCluster, { user });
}

/** Gives a fleet back; it goes when nobody else needs it. One that is gone already is well. */
export async function stopFleet({ name, user }: ReleaseInput): Promise<StopResult> {
  return release(fleetWorkflowId(name), UPDATE.stopFleet, { user });
}

async function ensure<R>(call: EnsureCall): Promise<R> {
  return waitFor(async (client, updateId) => {
    const startWorkflowOperation = new WithStartWorkflowOperation(call.workflow, {
      workflowId: call.workflowId,
      taskQueue: CONTROL_QUEUE,
      args: [call.start],
      workflowIdConflictPolicy: 'USE_EXISTING',
      staticSummary: call.summary,
      staticDetails: call.details,
      ...(await startAttributes(client, call.attributes)),
    });
    const options = { args: [call.request] as [unknown], updateId, startWorkflowOperation };
    const result: unknown = await client.workflow.executeUpdateWithStart(call.update, options);
    return result as R;
  });
}

async function release(
  workflowId: string,
  update: string,
  request: StopRequest,
): Promise<StopResult> {
  return waitFor(async (client, updateId) => {
    try {
      const handle = client.workflow.getHandle(workflowId);
      const options = { args: [request] as [unknown], updateId };
      return await handle.executeUpdate<StopResult, [unknown]>(update, options);
    } catch (error) {
      if (error instanceof WorkflowNotFoundError) return { stopped: true };
      throw error;
    }
  });
}

/**
 * Heartbeats while it waits for an update, and gives up waiting when the activity is cancelled. Every attempt is
 * an update of its own, as one that failed would answer the same again; the handlers may be called twice.
 */
async function waitFor<R>(call: (client: Client, updateId: string) => Promise<R>): Promise<R> {
  const context = Context.current();
  const { workflowExecution, activityId, attempt } = context.info;
  const timer = setInterval(() => context.heartbeat(), HEARTBEAT_MS);
  try {
    const updateId = `${workflowExecution?.runId}-${activityId}-${attempt}`;
    return await Promise.race([call(context.client, updateId), context.cancelled]);
  } catch (error) {
    throw error instanceof WorkflowUpdateFailedError ? refusal(error) : error;
  } finally {
    clearInterval(timer);
  }
}

/** Temporal's type for an update whose workflow has ended or was reset meanwhile. */
const LEFT_UNANSWERED = 'AcceptedUpdateCompletedWorkflow';

/**
 * What the entity said, without the wrapper, so that its type decides whether to try again. One that said nothing is
 * asked again: it was ended by hand or reset, and there is another one now, or will be.
 */
export function refusal(error: WorkflowUpdateFailedError): Error {
  const { cause } = error;
  if (!(cause instanceof ApplicationFailure)) return error;
  const unanswered = cause.type === LEFT_UNANSWERED;
  return ApplicationFailure.create({
    message: cause.message,
    nonRetryable: !unanswered && (cause.nonRetryable ?? false),
    ...(typeof cause.type === 'string' && { type: cause.type }),
    ...(cause.details && { details: cause.details }),
  });
}
