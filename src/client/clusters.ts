import { type Client, WithStartWorkflowOperation, type WorkflowHandle } from '@temporalio/client';
import type { Workflow } from '@temporalio/common';

import { ClusterSpec } from '../contracts/cluster.js';
import { clusterWorkflowId, CONTROL_QUEUE, UPDATE, WORKFLOW } from '../contracts/names.js';
import type {
  ChangeNodesRequest,
  ChangeNodesResult,
  ClusterStatus,
  ClusterWorkflowInput,
  CordonRequest,
  CordonResult,
  EnsureClusterRequest,
  EnsuredCluster,
  StopRequest,
  StopResult,
} from '../contracts/workflows.js';
import { startAttributes } from './attributes.js';
import { counted } from '../text.js';
import { isRunning, queryWorkflow, runningNames } from './entities.js';
import { ClientError } from './errors.js';
import { fleetStatus, listFleets, stopFleet } from './fleets.js';
import type { OptionName } from './inference.js';

/**
 * Checks what a user asks for.
 *
 * @param nameOf names an option in a message: gets a path such as `cluster.nodes.workers`
 * @throws ClientError `Usage` with all problems at once
 */
export function checkClusterSpec(spec: unknown, nameOf: OptionName = (name) => name): ClusterSpec {
  const { data, error } = ClusterSpec.safeParse(spec);
  if (data !== undefined) return data;
  const problems = error.issues.map(
    ({ path, message }) => `${nameOf(['cluster', ...path].join('.'))}: ${message}`,
  );
  throw new ClientError('Usage', problems.join('\n'));
}

/** What the workflow of a cluster shows in the web interface whatever happens, in Markdown. */
export function clusterStartDetails({ nodes }: ClusterSpec): string {
  if (nodes.provider === 'existing') return `Existing cluster at \`${nodes.address}\``;
  const workers = nodes.provider === 'ssh' ? nodes.workers.length : nodes.workers;
  return `Provider \`${nodes.provider}\`, ${counted(workers, 'worker node')}`;
}

/**
 * Brings a cluster up, or finds it up. Returns when its nodes are there.
 *
 * @throws the failure of the workflow, `ClusterStartFailed` or `ClusterMismatch`; see `describeFailure`
 */
export async function ensureCluster(client: Client, spec: ClusterSpec): Promise<EnsuredCluster> {
  const input: ClusterWorkflowInput = { spec };
  // No user: a cluster that a person asks for stays until a person stops it.
  const request: EnsureClusterRequest = { spec };
  const startWorkflowOperation = new WithStartWorkflowOperation(WORKFLOW.cluster, {
    workflowId: clusterWorkflowId(spec.name),
    taskQueue: CONTROL_QUEUE,
    args: [input],
    workflowIdConflictPolicy: 'USE_EXISTING',
    staticSummary: `Ray cluster ${spec.name}`,
    staticDetails: clusterStartDetails(spec),
    ...(await startAttributes(client, { cluster: spec.name, state: 'starting' })),
  });
  return client.workflow.executeUpdateWithStart<Workflow, EnsuredCluster, [EnsureClusterRequest]>(
    UPDATE.ensureCluster,
    { args: [request], startWorkflowOperation },
  );
}

/**
 * Takes a cluster down, whoever uses it, with the fleets that are on it: no process of it is left. Of an existing
 * cluster only the engines go.
 *
 * @returns `stopped: false` when it was not up; `left` names nodes whose hosts did not answer
 */
export async function takeClusterDown(client: Client, name: string): Promise<StopResult> {
  const workflowId = clusterWorkflowId(name);
  // Without their cluster they would look for it for ever.
  const fleets = await listFleets(client);
  const statuses = await Promise.all(fleets.map((fleet) => fleetStatus(client, fleet)));
  const there = statuses.flatMap((status) => (status?.cluster === name ? [status.name] : []));
  await Promise.all(there.map(async (fleet) => stopFleet(client, fleet)));
  if (!(await isRunning(client, workflowId))) return { stopped: false };
  const handle = client.workflow.getHandle(workflowId);
  return handle.executeUpdate<StopResult, [StopRequest]>(UPDATE.stopCluster, { args: [{}] });
}

/** {@link takeClusterDown}. Returns false when it was not up. */
export async function stopCluster(client: Client, name: string): Promise<boolean> {
  return (await takeClusterDown(client, name)).stopped;
}

/**
 * Changes which hosts are the nodes of a cluster over ssh.
 *
 * @throws ClientError `NotFound`; the refusal of the workflow, `ClusterMismatch`
 */
export async function changeNodes(
  client: Client,
  name: string,
  request: ChangeNodesRequest,
): Promise<ChangeNodesResult> {
  const handle = await runningCluster(client, name);
  return handle.executeUpdate<ChangeNodesResult, [ChangeNodesRequest]>(UPDATE.changeNodes, {
    args: [request],
  });
}

/**
 * Cordons nodes of a cluster of any kind, or takes that back: they stay as they are, and get no new engine and no
 * entrypoint of a job.
 *
 * @throws ClientError `NotFound`; the refusal of the workflow, `ClusterMismatch`
 */
export async function cordonNodes(
  client: Client,
  name: string,
  request: CordonRequest,
): Promise<CordonResult> {
  const handle = await runningCluster(client, name);
  return handle.executeUpdate<CordonResult, [CordonRequest]>(UPDATE.cordonNodes, {
    args: [request],
  });
}

async function runningCluster(client: Client, name: string): Promise<WorkflowHandle> {
  const workflowId = clusterWorkflowId(name);
  if (await isRunning(client, workflowId)) return client.workflow.getHandle(workflowId);
  throw new ClientError('NotFound', `There is no cluster ${name} up.`, {
    wayOut: 'See which are up with `rankflow cluster status`.',
  });
}

/**
 * The nodes to ask for so that a cluster that is up is used as it is: a user who names only a cluster means
 * that one, with the nodes that it has.
 *
 * @returns undefined when no cluster of this name is up
 */
export async function nodesOfRunningCluster(
  client: Client,
  name: string,
): Promise<ClusterSpec['nodes'] | undefined> {
  if (!(await isRunning(client, clusterWorkflowId(name)))) return undefined;
  const status = await clusterStatus(client, name);
  if (status?.spec !== undefined) return status.spec.nodes;
  if (status?.provider === 'existing' && status.address !== undefined) {
    const { address, dashboardUrl, tokenFile } = status.address;
    return { provider: 'existing', address, dashboardUrl, ...(tokenFile && { tokenFile }) };
  }
  if (status?.provider === 'ssh') return status.asked;
  if (status?.provider !== 'local') return undefined;
  const workers = status.nodes.filter(({ role }) => role === 'worker').length;
  return { provider: 'local', workers };
}

/** What a cluster is like; undefined when there was none of this name. */
export const clusterStatus = (client: Client, name: string): Promise<ClusterStatus | undefined> =>
  queryWorkflow<ClusterStatus>(client, clusterWorkflowId(name));

/** Names of the clusters that are up or coming up. */
export const listClusters = (client: Client): Promise<string[]> =>
  runningNames(client, WORKFLOW.cluster, clusterWorkflowId(''));
