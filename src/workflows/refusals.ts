import type { ClusterObservation } from '../contracts/activities.js';
import type { ClusterSpec } from '../contracts/cluster.js';
import type { FleetSpec } from '../contracts/fleet.js';
import type { Problem } from '../contracts/workflows.js';
import { sameValue } from './same-value.js';

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

/** @param up the cluster as it is, with its nodes as updates have changed them */
export function otherNodes(up: ClusterSpec, asked: ClusterSpec): Problem {
  const { name, nodes } = up;
  const [there, wanted] = [nodesText(nodes), nodesText(asked.nodes)];
  const type = 'ClusterMismatch';
  if (there !== wanted && (nodes.provider !== 'ssh' || asked.nodes.provider !== 'ssh')) {
    return { type, message: `cluster ${name} is up as ${there}, and ${wanted} is asked for` };
  }
  const found = differences(nodes, asked.nodes);
  const message = `cluster ${name} is up with other settings: ${listed(found)}`;
  const hostsOnly =
    nodes.provider === 'ssh' && found.every(({ where: [first] }) => HOSTS.has(first ?? ''));
  return { type, message, wayOut: hostsOnly ? changeHosts(name) : bringUpAnew(name) };
}

/** What a cluster over ssh can change while it is up. */
const HOSTS: ReadonlySet<string> = new Set(['workers', 'count']);

const changeHosts = (name: string): string =>
  [
    'Change which hosts it has with `rankflow cluster add FILE`,',
    `\`rankflow cluster remove ${name} NODE\` and \`rankflow cluster scale ${name} COUNT\`;`,
    'a host with other settings is removed and added again.',
  ].join(' ');

const bringUpAnew = (name: string): string =>
  [
    `Take it down and bring it up anew (\`rankflow cluster down ${name}\`, \`rankflow cluster up FILE\`),`,
    'ask for it as it is, or name another one.',
  ].join(' ');

/** A setting that differs. */
interface Difference {
  readonly where: readonly string[];
  /** What a person is told of the values. */
  readonly how?: string;
}

/** What a cluster file calls otherwise than the specification. */
const NAMES_IN_FILES: Readonly<Record<string, string>> = {
  idleMinutes: 'idleTimeoutMinutes',
  stepTimeoutSeconds: 'setupTimeoutSeconds',
  count: 'count of workers',
};

/** More are not read. */
const MOST_DIFFERENCES = 8;

function listed(found: readonly Difference[]): string {
  const lines = found.slice(0, MOST_DIFFERENCES).map(({ where: [first = '', ...rest], how }) => {
    const what = [NAMES_IN_FILES[first] ?? first, ...rest].join('.');
    return how === undefined ? what : `${what} (${how})`;
  });
  const more = found.length - lines.length;
  return [...lines, ...(more > 0 ? [`and ${more} more`] : [])].join(', ');
}

/** In what two values differ, each at its deepest place; lists of nodes are compared by name, whatever their order. */
function differences(up: unknown, asked: unknown, where: readonly string[] = []): Difference[] {
  if (sameValue(up, asked)) return [];
  const [left, right] = [fieldsOf(up), fieldsOf(asked)];
  if (left === undefined || right === undefined) {
    const how = howOf(up, asked, where);
    return [{ where, ...(how !== undefined && { how }) }];
  }
  const keys = [...new Set([...Object.keys(left), ...Object.keys(right)])];
  return keys.flatMap((key) => differences(left[key], right[key], [...where, key]));
}

/** What is inside of a value; undefined of one that is shown as a whole. */
function fieldsOf(value: unknown): Readonly<Record<string, unknown>> | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  if (!Array.isArray(value)) return value as Record<string, unknown>;
  const nodes = value as readonly { readonly name?: unknown }[];
  if (!nodes.every((node) => typeof node.name === 'string')) return undefined;
  return Object.fromEntries(nodes.map((node) => [node.name, node]));
}

/** A longer text is no value that one compares by eye. */
const LONGEST_VALUE = 40;

function howOf(up: unknown, asked: unknown, [first = '']: readonly string[]): string | undefined {
  if (asked === undefined) return 'not asked for';
  if (up === undefined) return 'asked for, and not there';
  // Commands and variables may hold what nobody else is to read.
  if (first === 'environment' || first === 'setup') return undefined;
  const [there, wanted] = [textOf(up), textOf(asked)];
  if (there === undefined || wanted === undefined) return undefined;
  return `${there}, and ${wanted} is asked for`;
}

function textOf(value: unknown): string | undefined {
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  return typeof value === 'string' && value.length <= LONGEST_VALUE ? value : undefined;
}

function nodesText(nodes: ClusterSpec['nodes']): string {
  if (nodes.provider === 'existing') return `the existing cluster at ${nodes.address}`;
  if (nodes.provider === 'ssh') {
    return `a head node on ${nodes.head.host} with hosts over ssh`;
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

/** Of a cluster that somebody else brought up. */
export const notReached = (
  cluster: string,
  { problem = 'it has no nodes', refused = false }: ClusterObservation,
): Problem => ({
  type: 'ClusterStartFailed',
  message: `cluster ${cluster} ${refused ? 'cannot be used' : 'does not answer'}: ${problem}`,
  wayOut:
    'Check its address, its dashboard and its token file (--address, --dashboard-url, --ray-token-file).',
});

export const notChanged = (cluster: string, why: string): Problem => ({
  type: 'ClusterMismatch',
  message: `cluster ${cluster} cannot be changed so: ${why}`,
});

export const notCordoned = (cluster: string, why: string): Problem => ({
  type: 'ClusterMismatch',
  message: `cluster ${cluster}: ${why}`,
  wayOut: `Name nodes as \`rankflow cluster status ${cluster}\` does.`,
});
