import { ClientError } from '../client/errors.js';
import type { SshFile } from '../contracts/cluster-file.js';
import { SshNode, type SshProvider } from '../contracts/cluster.js';
import type { ClusterNodeStatus } from '../contracts/workflows.js';

/** What is wrong with a value of the cluster file. */
export interface Complaint {
  readonly path: readonly PropertyKey[];
  /** The key that is wrong, when it is not the value at `path`. */
  readonly key?: string;
  readonly message: string;
}

export interface Members {
  readonly head: SshNode;
  /** Worker nodes that are wanted, then the spares. */
  readonly workers: SshNode[];
  readonly count: number;
}

/** A range stands for this many hosts at most: more is a slip of the finger. */
const LONGEST_RANGE = 1024;
/** Where ssh logs in when nobody says otherwise. */
const SSH_PORT = 22;

/**
 * `10.0.0.[8-10]` → `10.0.0.8`, `10.0.0.9`, `10.0.0.10`; numbers keep the width of the first.
 *
 * @returns the hosts, or what is wrong with the range
 */
export function expandHosts(pattern: string): string[] | string {
  const match = /^(?<before>.*)\[(?<first>\d+)-(?<last>\d+)\](?<after>.*)$/u.exec(pattern);
  if (match?.groups === undefined) return [pattern];
  const { before = '', first = '', last = '', after = '' } = match.groups;
  const length = Number(last) - Number(first) + 1;
  if (length < 1) return `${pattern} stands for no host`;
  if (length > LONGEST_RANGE) {
    return `${pattern} stands for ${length} hosts, and a range for ${LONGEST_RANGE} at most`;
  }
  return Array.from(
    { length },
    (_, index) => `${before}${String(Number(first) + index).padStart(first.length, '0')}${after}`,
  );
}

/** The nodes of a cluster file: groups and ranges spelt out, each node with a name of its own. */
export function membersOf(file: SshFile, complaints: Complaint[]): Members {
  const placed: { readonly node: SshNode; readonly path: readonly PropertyKey[] }[] = [];
  const spares: typeof placed = [];
  const head = typeof file.head === 'string' ? { host: file.head } : file.head;
  placed.push({ node: { ...head, name: 'head' }, path: ['head'] });
  if (head.name !== undefined && head.name !== 'head') {
    complaints.push({ path: ['head', 'name'], message: 'the head is called head' });
  }
  for (const [index, entry] of file.workers.entries()) {
    const path = ['workers', index];
    if (typeof entry === 'string') placed.push(...hostsOf(entry, path, complaints));
    else if ('group' in entry) {
      const { wanted, others } = groupOf(entry, path, complaints);
      placed.push(...wanted);
      spares.push(...others);
    } else placed.push({ node: named(entry), path });
  }
  for (const [index, entry] of file.spares.entries()) {
    const path = ['spares', index];
    if (typeof entry === 'string') spares.push(...hostsOf(entry, path, complaints));
    else spares.push({ node: named(entry), path });
  }
  checkUnique([...placed, ...spares], file.ssh.port, complaints);
  const count = placed.length - 1;
  const workers = [...placed.slice(1), ...spares].map(({ node }) => node);
  return { head: { ...head, name: 'head' }, workers, count };
}

type Placed = { readonly node: SshNode; readonly path: readonly PropertyKey[] };

function hostsOf(pattern: string, path: readonly PropertyKey[], complaints: Complaint[]): Placed[] {
  const hosts = expandHosts(pattern);
  if (typeof hosts !== 'string') return hosts.map((host) => ({ node: named({ host }), path }));
  complaints.push({ path, message: hosts });
  return [];
}

type Group = Extract<SshFile['workers'][number], { group: string }>;

function groupOf(
  { group, hosts: patterns, count, ...shared }: Group,
  path: readonly PropertyKey[],
  complaints: Complaint[],
): { wanted: Placed[]; others: Placed[] } {
  const placed = patterns.flatMap((pattern, index) =>
    hostsOf(pattern, [...path, 'hosts', index], complaints),
  );
  const nodes = placed.map(({ node, path: at }, index) => ({
    node: { ...shared, ...node, name: `${group}-${index + 1}` },
    path: at,
  }));
  if (count !== undefined && count > nodes.length) {
    complaints.push({
      path: [...path, 'count'],
      message: `${count} nodes are wanted of ${nodes.length} hosts`,
    });
  }
  const wanted = count ?? nodes.length;
  return { wanted: nodes.slice(0, wanted), others: nodes.slice(wanted) };
}

/** A host without a name is called as it is addressed; Ray takes no name that ends in a sign. */
export const named = (
  node: Omit<SshNode, 'name'> & { readonly name?: string | undefined },
): SshNode => ({
  ...node,
  name:
    node.name ??
    node.host
      .toLowerCase()
      .replaceAll(/[^a-z0-9.-]/gu, '-')
      .replaceAll(/^[.-]+|[.-]+$/gu, ''),
});

/**
 * The nodes that somebody wants to add. What the cluster file says of a node goes before what the cluster was asked for
 * when it was brought up: a host may have been mended in the file since.
 *
 * @param hosts hosts or names of nodes; none: what the file has, or was asked for without one, and the cluster lacks
 * @param present nodes of the cluster
 * @throws ClientError `Usage` with all that no node can be made of
 */
export function nodesToAdd(
  hosts: readonly string[],
  present: readonly Pick<ClusterNodeStatus, 'name' | 'host'>[],
  file: SshProvider | undefined,
  asked: SshProvider | undefined,
): SshNode[] {
  const there = new Map(present.map((node) => [node.name, node]));
  if (hosts.length === 0) {
    return ((file ?? asked)?.workers ?? []).filter(({ name }) => !there.has(name));
  }
  const workers = [...(asked?.workers ?? []), ...(file?.workers ?? [])];
  const known = new Map(workers.map((node) => [node.name, node]));
  const complaints: Complaint[] = [];
  const chosen = hosts.flatMap((pattern): Placed[] => {
    const expanded = expandHosts(pattern);
    if (typeof expanded !== 'string') {
      return expanded.map((host) => ({ node: nodeOf(host, known, there), path: [pattern] }));
    }
    complaints.push({ path: [pattern], message: expanded });
    return [];
  });
  for (const { node, path } of chosen) {
    const { error } = SshNode.safeParse(node);
    for (const { message } of error?.issues ?? []) complaints.push({ path, message });
  }
  const others = [...(asked ? [asked.head] : []), ...known.values()].filter(
    ({ name }) => there.has(name) && chosen.every(({ node }) => node.name !== name),
  );
  const unchanged = others.map((node) => ({ node, path: [node.name] }));
  checkUnique([...unchanged, ...chosen], (file ?? asked)?.ssh.port, complaints);
  if (complaints.length === 0) return chosen.map(({ node }) => node);
  const problems = complaints.map(({ path, message }) => `${path.join('.')}: ${message}`);
  throw new ClientError('Usage', [...new Set(problems)].join('\n'));
}

function nodeOf(
  host: string,
  known: ReadonlyMap<string, SshNode>,
  there: ReadonlyMap<string, Pick<ClusterNodeStatus, 'name' | 'host'>>,
): SshNode {
  const own = there.get(host);
  return (
    known.get(host) ?? named({ host: own?.host ?? host, ...(own !== undefined && { name: host }) })
  );
}

function checkUnique(
  placed: readonly Placed[],
  sshPort: number | undefined,
  complaints: Complaint[],
): void {
  const names = new Map<string, number>();
  const hosts = new Map<string, string>();
  for (const { node, path } of placed) {
    if (names.has(node.name))
      complaints.push({ path, message: `there are two nodes called ${node.name}` });
    names.set(node.name, 1);
    // Two nodes on one host would each count all of its CPUs and GPUs.
    const where = `${node.host}:${node.ssh?.port ?? sshPort ?? SSH_PORT}`;
    const other = hosts.get(where);
    if (other !== undefined)
      complaints.push({ path, message: `${node.host} is the host of ${other}, too` });
    else hosts.set(where, node.name);
  }
}
