import type { LocalProcess } from '../../contracts/activities.js';
import type { ClusterAddress, SshNode, SshProvider } from '../../contracts/cluster.js';
import { HostError } from '../../hosts/host.js';
import { HEAD } from '../../workflows/cluster-plan.js';
import { tokenFile } from '../local/node-state.js';
import { callAgent, NoAgent, StatusAnswer } from './agent.js';
import { installPlan, isMadeOnNode } from './environment.js';
import { hostOf } from './hosts.js';
import { hostPort, nodeFolder } from './node-settings.js';

/** A look is repeated every few seconds: a host that hangs is told from one that is well by this. */
const LOOK_MS = 15_000;

/** What the hosts of these nodes say, all asked side by side. */
export async function observeNodes(
  cluster: string,
  nodes: SshProvider,
  names: readonly string[],
): Promise<{ readonly address?: ClusterAddress; readonly processes: LocalProcess[] }> {
  const asked = [nodes.head, ...nodes.workers].filter(({ name }) => names.includes(name));
  const seen = await Promise.all(asked.map(async (node) => lookAt(cluster, nodes, node)));
  const head = seen.find(({ process }) => process.name === HEAD)?.answer;
  const processes = seen.map(({ process }) => process);
  const { address, gcs, dashboard } = head ?? {};
  if (address === undefined || gcs === undefined || dashboard === undefined) return { processes };
  return { address: clusterAddress(cluster, nodes, { address, gcs, dashboard }), processes };
}

/** How to reach the head of a cluster from this machine. */
export function clusterAddress(
  cluster: string,
  { tokenAuth }: SshProvider,
  { address, gcs, dashboard }: { address: string; gcs: number; dashboard: number },
): ClusterAddress {
  return {
    name: cluster,
    address: hostPort(address, gcs),
    dashboardUrl: `http://${hostPort(address, dashboard)}`,
    ...(tokenAuth && { tokenFile: tokenFile(cluster) }),
  };
}

async function lookAt(
  cluster: string,
  nodes: SshProvider,
  node: SshNode,
): Promise<{ process: LocalProcess; answer?: StatusAnswer }> {
  const { folder } = nodeFolder(cluster, nodes, node.name);
  const { python } = installPlan(nodes.environment);
  try {
    const host = hostOf(cluster, nodes, node);
    const answer = await callAgent(host, python, 'status', { folder }, StatusAnswer, {
      timeoutMs: LOOK_MS,
    });
    const { running, ageSeconds } = answer;
    return { process: { name: node.name, running, ageSeconds }, answer };
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    const process = { name: node.name, running: false, ageSeconds: 0 };
    // A Python that is still to be made has started nothing.
    if (error instanceof NoAgent && isMadeOnNode(python)) return { process };
    // The node may be well.
    return { process: { ...process, unreachable: error.message } };
  }
}
