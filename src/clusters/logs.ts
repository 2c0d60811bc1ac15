import { readIfExists } from '../setup/files.js';
import { logFile, loggedNodes } from '../activities/local/node-state.js';
import { nodeTail } from '../activities/ssh-cluster.js';
import { ClientError } from '../client/errors.js';
import type { ClusterSpec } from '../contracts/cluster.js';
import { HostError } from '../hosts/host.js';

export interface LogLine {
  readonly node: string;
  /** `ray`: what Ray said on the node; `rankflow`: what was done to it. */
  readonly source: 'rankflow' | 'ray';
  readonly line: string;
}

/**
 * The last lines about nodes of a cluster: what this machine has, and of nodes over ssh what Ray says on their hosts.
 *
 * @param nodes names of nodes; all when there are none
 */
export async function* clusterLogs(
  cluster: string,
  spec: ClusterSpec | undefined,
  nodes: readonly string[],
  lines: number,
): AsyncGenerator<LogLine> {
  const overSsh = spec?.nodes.provider === 'ssh' ? spec.nodes : undefined;
  const members = overSsh ? [overSsh.head, ...overSsh.workers].map(({ name }) => name) : [];
  const known = [...new Set([...members, ...loggedNodes(cluster)])];
  const unknown = nodes.find((node) => !known.includes(node));
  if (unknown !== undefined || known.length === 0) {
    const what =
      unknown === undefined
        ? `There are no logs of a cluster ${cluster}`
        : `There is no node ${unknown}`;
    throw new ClientError(
      'NotFound',
      `${what}. ${known.length > 0 ? `Nodes: ${known.join(', ')}.` : ''}`.trim(),
    );
  }
  for (const node of nodes.length > 0 ? nodes : known) {
    for (const line of lastLines(readIfExists(logFile(cluster, node)) ?? '', lines)) {
      yield { node, source: 'rankflow', line };
    }
    if (spec === undefined || !members.includes(node)) continue;
    for (const line of await tailOf(spec, node, lines)) {
      yield { node, source: 'ray', line };
    }
  }
}

const lastLines = (text: string, lines: number): string[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .slice(-lines);

async function tailOf(spec: ClusterSpec, node: string, lines: number): Promise<string[]> {
  try {
    return lastLines(await nodeTail(spec, node, lines), lines);
  } catch (error) {
    if (error instanceof HostError) return [`(not to be had: ${error.message})`];
    throw error;
  }
}
