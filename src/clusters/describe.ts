import type { ClusterSpec, SshNode, SshProvider } from '../contracts/cluster.js';
import { installPlan } from '../activities/ssh/environment.js';
import { nodeFolder, startArguments } from '../activities/ssh/node-settings.js';
import { quote } from '../hosts/ssh.js';
import { START_PATIENCE_S } from '../workflows/cluster-plan.js';

/** What `cluster up` would do, for people: each step for each node, in order. Nothing is asked or changed. */
export function describePlan(spec: ClusterSpec): string[] {
  const { name, nodes } = spec;
  if (nodes.provider === 'existing') return [`attach to the Ray cluster at ${nodes.address}`];
  if (nodes.provider === 'local') {
    return [`start a head and ${nodes.workers} worker nodes on this machine`];
  }
  const wanted = nodes.workers.slice(0, nodes.count);
  const spares = nodes.workers.slice(nodes.count);
  return [
    `check all hosts side by side, ${nodes.parallelism} at once: ssh, Python, Ray, disk, ports`,
    ...nodeSteps(name, nodes, nodes.head),
    ...wanted.flatMap((node) => nodeSteps(name, nodes, node)),
    ...spares.map((node) => `${node.name} on ${node.host}: spare`),
    'watch: nodes that are lost are joined again, or replaced by spares',
  ];
}

/** Stand for addresses that are found out on the host. */
const ADDRESS = 'ADDRESS';
const HEAD_ADDRESS = 'HEAD';

function nodeSteps(cluster: string, nodes: SshProvider, node: SshNode): string[] {
  const files = nodeFolder(cluster, nodes, node.name);
  const { python, steps } = installPlan(nodes.environment);
  const place = {
    ...{ cluster, nodes, node, address: node.address ?? ADDRESS },
    head: nodes.head.address ?? HEAD_ADDRESS,
  };
  const { image, mounts = [] } = nodes.environment;
  const seen = mounts.length === 0 ? '' : `, with ${mounts.join(', ')}`;
  const words = ['ray', 'start', ...startArguments(place)];
  const lines = [
    ...steps.map(({ what }) => what),
    ...nodes.setup.map((command) => `run ${command.map(quote).join(' ')}`),
    `make ${files.folder}, for this user only${nodes.tokenAuth ? ', with the token (0600)' : ''} and the Python package`,
    image === undefined
      ? `with ${python}:`
      : `in a container of ${image}, in the host's network${seen}:`,
    `  ${words.map(quote).join(' ')}`,
    `wait until Ray knows it, ${START_PATIENCE_S} s at most`,
  ];
  return [`${node.name} on ${node.host}:`, ...lines.map((line) => `  ${line}`)];
}
