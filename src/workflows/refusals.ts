import type { ClusterSpec } from '../contracts/cluster.js';
import type { FleetSpec } from '../contracts/fleet.js';
import type { Problem } from '../contracts/workflows.js';

/** Retryable: one of this name can be brought up as soon as this one is gone. */
export const beingStopped = (what: string): Problem => ({
  type: 'ClusterUnavailable',
  message: `${what} is being stopped`,
});

/** Retryable: it is there in a moment. */
export const comingUp = (what: string): Problem => ({
  type: 'ClusterUnavailable',
  message: `${what} is coming up`,
});

export const otherNodes = ({ name, nodes }: ClusterSpec, asked: ClusterSpec): Problem => ({
  type: 'ClusterMismatch',
  message: `cluster ${name} is up as ${nodesText(nodes)}, and ${nodesText(asked.nodes)} is asked for`,
});

function nodesText(nodes: ClusterSpec['nodes']): string {
  if (nodes.provider === 'existing') return `the existing cluster at ${nodes.address}`;
  if (nodes.provider === 'ssh') {
    const { head, workers, count } = nodes;
    return `a head node on ${head.host} with ${count} of ${workers.length} hosts over ssh`;
  }
  const { workers, cpusPerNode, gpusPerNode } = nodes;
  const parts = [
    workers === 0 ? 'a head node alone' : `a head node with ${workers} worker nodes`,
    ...(cpusPerNode === undefined ? [] : [`${cpusPerNode} CPUs each`]),
    ...(gpusPerNode === undefined ? [] : [`${gpusPerNode} GPUs each`]),
  ];
  return parts.join(', ');
}

export const otherModel = ({ name, model, specHash }: FleetSpec): Problem => ({
  type: 'ModelMismatch',
  message: `fleet ${name} serves ${model.model} with other settings (spec ${specHash.slice(0, 12)})`,
});

export const otherCluster = ({ name, cluster }: FleetSpec): Problem => ({
  type: 'ClusterMismatch',
  message: `fleet ${name} is on cluster ${cluster.name}`,
});

export const notChanged = (cluster: string, why: string): Problem => ({
  type: 'ClusterMismatch',
  message: `cluster ${cluster} cannot be changed so: ${why}`,
});
