import type { Command } from 'commander';

import type { ClusterSpec } from '../contracts/cluster.js';
import type { ClusterStatus } from '../contracts/workflows.js';
import { registerNodeCommands } from './cluster-nodes.js';
import { clusterTable } from './cluster-table.js';
import { clusterTarget } from './cluster-target.js';
import { clusterOf, flagOf, numeric } from './run-options.js';

interface UpFlags {
  readonly nodes?: unknown;
  readonly cpusPerNode?: unknown;
  readonly gcsStorage?: string;
  readonly address?: string;
  readonly dashboardUrl?: string;
  readonly rayTokenFile?: string;
  readonly dryRun?: boolean;
  readonly json?: boolean;
  readonly start: boolean;
}

interface StatusFlags {
  readonly ray?: boolean;
  readonly json?: boolean;
}

/** `rankflow cluster up|down|status` and what is about single nodes. */
export function register(program: Command): void {
  const cluster = program
    .command('cluster')
    .description(
      'Ray clusters: up, down, status, cordon, uncordon; over ssh also add, drain, remove, scale, logs',
    );
  cluster
    .command('up')
    .description('bring a cluster up and keep it until it is taken down')
    .argument('[file-or-name]', 'cluster file, or name of the cluster', 'local')
    .option('--dry-run', 'print each step for each node, and do nothing')
    .option('--nodes <n>', 'local worker nodes (default: engines run on the head)', numeric)
    .option('--cpus-per-node <n>', 'logical CPUs of each (default: the cores, shared out)', numeric)
    .option('--gcs-storage <kind>', 'memory, or rocksdb: engines outlive a lost head')
    .option('--address <host:port>', 'existing Ray cluster: its GCS')
    .option('--dashboard-url <url>', 'existing Ray cluster: its dashboard')
    .option('--ray-token-file <file>', 'existing Ray cluster: its token')
    .option('--json', 'print its address as JSON')
    .option('--no-start', 'do not start Temporal and the workers on this machine')
    .action(up);
  cluster
    .command('down')
    .description('take a cluster down with its engines; no process of it is left')
    .argument('[file-or-name]', 'cluster file, or name of the cluster', 'local')
    .option('--json', 'print what became of it as JSON')
    .action(down);
  cluster
    .command('status')
    .description('show a cluster, or all that are up')
    .argument('[file-or-name]')
    .option('--ray', 'also what `ray status` says')
    .option('--json', 'print it as JSON')
    .action(status);
  registerNodeCommands(cluster);
}

async function up(target: string, flags: UpFlags): Promise<void> {
  const { ensureCluster } = await import('../client/clusters.js');
  const { withClient } = await import('../client/connection.js');
  const { startStackUnless } = await import('./prepare.js');
  const { print, printJson, say } = await import('./output.js');

  const spec = await specOf(target, flags);
  const { name } = spec;
  if (flags.dryRun) {
    const { describePlan } = await import('../clusters/describe.js');
    const steps = describePlan(spec);
    if (flags.json) printJson({ name, steps });
    else print(steps.join('\n'));
    return;
  }
  await startStackUnless(!flags.start);
  say(`Bringing up the cluster ${name} ...`);
  const { address } = await withClient(async (client) => {
    const { farServerWarning, noNodeWarning } = await import('../clusters/reach.js');
    // Without a start the workers may be anywhere.
    const warnings = [farServerWarning(spec), flags.start && (await noNodeWarning(spec))];
    for (const warning of warnings) if (warning) say(warning);
    return ensureCluster(client, spec);
  });
  if (flags.json) {
    printJson(address);
    return;
  }
  print(name);
  say(`Ray at ${address.address}, dashboard ${address.dashboardUrl}`);
  say(`Take it down with: rankflow cluster down ${name}`);
}

/** Flags that describe nodes, which a cluster file does instead. */
const NODE_FLAGS = ['nodes', 'gcsStorage', 'address', 'dashboardUrl', 'rayTokenFile'] as const;

async function specOf(target: string, flags: UpFlags): Promise<ClusterSpec> {
  const { checkClusterSpec } = await import('../client/clusters.js');
  const { ClientError } = await import('../client/errors.js');
  const { name, spec } = await clusterTarget(target);
  if (spec === undefined) {
    return checkClusterSpec(clusterOf({ ...flags, cluster: name }), (path) =>
      path === 'cluster.name' ? 'name' : flagOf(path),
    );
  }
  const given = NODE_FLAGS.filter((flag) => flags[flag] !== undefined);
  if (given.length === 0) return spec;
  const names = given.map((flag) =>
    flagOf(flag === 'rayTokenFile' ? 'cluster.nodes.tokenFile' : flag),
  );
  throw new ClientError('Usage', `${names.join(', ')}: say it in ${target} instead.`);
}

async function down(target: string, { json }: { readonly json?: boolean }): Promise<void> {
  const { hasLocalNodes, removeLocalCluster } = await import('../activities/local-cluster.js');
  const { takeClusterDown } = await import('../client/clusters.js');
  const { withClient } = await import('../client/connection.js');
  const { print, printJson, say } = await import('./output.js');

  const { name, spec } = await clusterTarget(target);
  const known = await withClient(async (client) => takeClusterDown(client, name));
  // Nodes of a lost Temporal database, or of a workflow that was terminated, have nobody else to end them.
  const orphaned = !known.stopped && hasLocalNodes(name);
  if (orphaned) await removeLocalCluster({ name });
  const unknown = known.stopped || spec?.nodes.provider !== 'ssh' ? undefined : spec;
  const left = unknown === undefined ? (known.left ?? []) : await endUnknown(unknown);
  const stopped = known.stopped || orphaned || unknown !== undefined;
  if (json) printJson({ name, stopped, ...(left.length > 0 && { left }) });
  else print(name);
  if (left.length > 0) process.exitCode = EXIT_UNREACHABLE;
  for (const { problem } of left) say(`Not ended: ${problem.message}`);
  if (!stopped) say('There was no such cluster up.');
  else say(left.length > 0 ? 'The rest of the cluster is down.' : 'The cluster is down.');
}

/** As for everything that cannot be reached. */
const EXIT_UNREACHABLE = 3;

/** Ends what no workflow knows of: the file says where to look. */
async function endUnknown(spec: ClusterSpec) {
  const { removeNodes } = await import('../activities/ssh-cluster.js');
  if (spec.nodes.provider !== 'ssh') return [];
  const nodes = ['head', ...spec.nodes.workers.map(({ name }) => name)];
  return removeNodes({ spec, nodes });
}

async function status(target: string | undefined, flags: StatusFlags): Promise<void> {
  const { clusterStatus, listClusters } = await import('../client/clusters.js');
  const { ClientError } = await import('../client/errors.js');
  const { withClient } = await import('../client/connection.js');
  const { print, printJson, say } = await import('./output.js');

  const name = target && (await clusterTarget(target)).name;
  const statuses = await withClient(async (client) => {
    const names = name === undefined ? await listClusters(client) : [name];
    const found = await Promise.all(names.map((one) => clusterStatus(client, one)));
    return found.filter((one) => one !== undefined);
  });
  if (name !== undefined && statuses.length === 0) {
    throw new ClientError('NotFound', `There is no cluster ${name}.`);
  }
  const shown = flags.ray ? await Promise.all(statuses.map(withRayStatus)) : statuses;
  if (flags.json) printJson(name === undefined ? shown : shown[0]);
  else if (shown.length === 0) say('No cluster is up.');
  else print(shown.map(textOf).join('\n\n'));
}

interface ShownCluster extends ClusterStatus {
  /** What `ray status` says, when it was asked for. */
  readonly ray?: string;
}

const textOf = (cluster: ShownCluster): string =>
  [clusterTable(cluster), ...(cluster.ray === undefined ? [] : [cluster.ray])].join('\n');

/** Adds what Ray itself says. */
async function withRayStatus(cluster: ClusterStatus): Promise<ShownCluster> {
  const { ClientError } = await import('../client/errors.js');
  const { rayStatus } = await import('../client/python.js');
  const { name, address } = cluster;
  if (address === undefined) {
    throw new ClientError('ClusterUnavailable', `The cluster ${name} has no address yet.`);
  }
  return { ...cluster, ray: await rayStatus(address) };
}
