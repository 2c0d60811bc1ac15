import type { FleetSpec } from '../contracts/fleet.js';
import type { Problem } from '../contracts/workflows.js';

/** Retryable: one of this name can be brought up as soon as this one is gone. */
export const beingStopped = (what: string): Problem => ({
  type: 'ClusterUnavailable',
  message: `${what} is being stopped`,
});

export const otherNodes = (cluster: string): Problem => ({
  type: 'RunMismatch',
  message: `cluster ${cluster} is up with other nodes: stop it first, or use another name`,
});

export const otherModel = ({ name, model, specHash }: FleetSpec): Problem => ({
  type: 'ModelMismatch',
  message: `fleet ${name} serves ${model.model} with other settings (spec ${specHash.slice(0, 12)})`,
});

export const otherCluster = ({ name, cluster }: FleetSpec): Problem => ({
  type: 'RunMismatch',
  message: `fleet ${name} is on cluster ${cluster.name}: stop it first, or use another name`,
});
