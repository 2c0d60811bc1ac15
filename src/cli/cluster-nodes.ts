import type { Command } from 'commander';

import type { ClusterSpec, SshProvider } from '../contracts/cluster.js';
import type { ChangeNodesRequest, ChangeNodesResult } from '../contracts/workflows.js';
import { clusterTarget } from './cluster-target.js';
import { numeric } from './run-options.js';

interface AddFlags {
  readonly spare?: boolean;
  readonly json?: boolean;
}

interface DrainFlags {
  readonly seconds: unknown;
  readonly json?: boolean;
}

interface LogFlags {
  readonly lines: unknown;
  readonly json?: boolean;
}

/** `rankflow cluster cordon|uncordon|logs` of any cluster; `add|drain|remove|scale` of one over ssh. */
export function registerNodeCommands(cluster: Command): void {
  cluster
    .command('add')
    .description(
      'make hosts or spares nodes of a cluster over ssh, or try nodes that failed or were drained again',
    )
    .argument('<file-or-name>', 'cluster')
    .argument(
      '[hosts...]',
      'new hosts, or names of nodes and spares (default: what the file has and the cluster lacks)',
    )
    .option('--spare', 'only to take the place of others: no more nodes are wanted')
    .addHelpText(
      'after',
      `
For each new host and each spare that is named one node more is wanted, and it is that one. A node that failed or was
drained is tried again and takes a place that is open; no more are wanted. A name that the cluster does not know is
taken for a host.`,
    )
    .option('--json', 'print the nodes as JSON')
    .action(add);
  cluster
    .command('cordon')
    .description('keep nodes up with what runs on them, but give them no new engine or job')
    .argument('<file-or-name>', 'cluster')
    .argument('<nodes...>', 'names of nodes, also head')
    .option('--json', 'print the cordoned nodes as JSON')
    .action(async (target: string, nodes: string[], { json }: AddFlags) =>
      cordon(target, nodes, true, json),
    );
  cluster
    .command('uncordon')
    .description('give cordoned nodes new engines and jobs again')
    .argument('<file-or-name>', 'cluster')
    .argument('<nodes...>', 'names of nodes')
    .option('--json', 'print the cordoned nodes as JSON')
    .action(async (target: string, nodes: string[], { json }: AddFlags) =>
      cordon(target, nodes, false, json),
    );
  cluster
    .command('drain')
    .description('give engines on nodes time to finish, then end the nodes')
    .argument('<file-or-name>', 'cluster')
    .argument('<nodes...>', 'names of nodes')
    .option('--seconds <n>', 'time that they have at most', numeric, 120)
    .option('--json', 'print the nodes as JSON')
    .action(async (target: string, nodes: string[], { seconds, json }: DrainFlags) =>
      change(target, { drain: { nodes, seconds: await wholeNumber(seconds, '--seconds') } }, json),
    );
  cluster
    .command('remove')
    .description('end nodes at once and forget them')
    .argument('<file-or-name>', 'cluster')
    .argument('<nodes...>', 'names of nodes')
    .option('--json', 'print the nodes as JSON')
    .action(async (target: string, nodes: string[], { json }: AddFlags) =>
      change(target, { remove: nodes }, json),
    );
  cluster
    .command('scale')
    .description('say how many worker nodes a cluster over ssh is to have; the others are spares')
    .argument('<file-or-name>', 'cluster')
    .argument('<count>', 'worker nodes', numeric)
    .option('--json', 'print the nodes as JSON')
    .action(async (target: string, count: unknown, { json }: AddFlags) =>
      change(target, { count: await wholeNumber(count, 'count') }, json),
    );
  cluster
    .command('logs')
    .description('show what happened on the nodes, and the end of what Ray said there')
    .argument('<file-or-name>', 'cluster')
    .argument('[nodes...]', 'names of nodes (default: all)')
    .option('--lines <n>', 'lines of each node', numeric, 50)
    .option('--json', 'print each line as JSON')
    .action(logs);
}

async function wholeNumber(value: unknown, what: string): Promise<number> {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0) return value;
  const { ClientError } = await import('../client/errors.js');
  throw new ClientError('Usage', `${what}: expected a whole number`);
}

async function add(target: string, hosts: string[], flags: AddFlags): Promise<void> {
  const { ClientError } = await import('../client/errors.js');
  const { clusterStatus } = await import('../client/clusters.js');
  const { withClient } = await import('../client/connection.js');
  const { nodesToAdd } = await import('../clusters/members.js');

  const { name, spec } = await clusterTarget(target);
  const status = await withClient(async (client) => clusterStatus(client, name));
  const nodes = nodesToAdd(hosts, status?.nodes ?? [], sshOf(spec?.nodes), status?.asked);
  if (nodes.length === 0) {
    throw new ClientError('Usage', `There is no node to add to ${name}: name a host.`);
  }
  await change(target, { add: nodes, ...(flags.spare && { spare: true }) }, flags.json);
}

const sshOf = (nodes: ClusterSpec['nodes'] | undefined): SshProvider | undefined =>
  nodes?.provider === 'ssh' ? nodes : undefined;

async function change(
  target: string,
  request: ChangeNodesRequest,
  json: boolean | undefined,
): Promise<void> {
  const { changeNodes } = await import('../client/clusters.js');
  const { withClient } = await import('../client/connection.js');
  const { print, printJson, say } = await import('./output.js');

  const { name } = await clusterTarget(target);
  const result = await withClient(async (client) => changeNodes(client, name, request));
  if (json) printJson({ name, ...result });
  else print(name);
  say(nodesText(result));
  say(`See how it goes with: rankflow cluster status ${name}`);
}

async function cordon(
  target: string,
  nodes: readonly string[],
  unschedulable: boolean,
  json: boolean | undefined,
): Promise<void> {
  const { cordonNodes } = await import('../client/clusters.js');
  const { withClient } = await import('../client/connection.js');
  const { print, printJson, say } = await import('./output.js');

  const { name } = await clusterTarget(target);
  const result = await withClient(async (client) =>
    cordonNodes(client, name, { nodes, unschedulable }),
  );
  const { changed } = result;
  if (json) printJson({ name, changed, cordoned: result.unschedulable });
  else print(name);
  const others = [...new Set(nodes)].filter((node) => !changed.includes(node));
  if (changed.length > 0)
    say(`${unschedulable ? 'Cordoned' : 'Uncordoned'}: ${changed.join(', ')}.`);
  if (others.length > 0) {
    say(`${unschedulable ? 'Already' : 'Not'} cordoned: ${others.join(', ')}.`);
  }
  say(`All that are cordoned: ${result.unschedulable.join(', ') || 'none'}.`);
}

const nodesText = ({ active, spares }: ChangeNodesResult): string =>
  `Worker nodes: ${active.join(', ') || 'none'}; others: ${spares.join(', ') || 'none'}.`;

async function logs(target: string, nodes: string[], flags: LogFlags): Promise<void> {
  const { clusterLogs } = await import('../clusters/logs.js');
  const { clusterStatus } = await import('../client/clusters.js');
  const { withClient } = await import('../client/connection.js');
  const { print, printJson } = await import('./output.js');

  const lines = await wholeNumber(flags.lines, '--lines');
  const { name, spec } = await clusterTarget(target);
  const status = await withClient(async (client) => clusterStatus(client, name)).catch(
    () => undefined,
  );
  const asked = status?.asked;
  const shown = spec ?? (asked && { name, nodes: asked });
  for await (const found of clusterLogs(name, shown, nodes, lines)) {
    if (flags.json) printJson(found);
    else print(found.source === 'ray' ? `${found.node} ray | ${found.line}` : found.line);
  }
}
