import type { Command } from 'commander';

import type { ClusterStatus } from '../contracts/workflows.js';
import { clusterOf, flagOf, numeric } from './run-options.js';

interface UpFlags {
  readonly nodes?: unknown;
  readonly cpusPerNode?: unknown;
  readonly gcsStorage?: string;
  readonly address?: string;
  readonly dashboardUrl?: string;
  readonly rayTokenFile?: string;
  readonly json?: boolean;
  readonly start: boolean;
}

interface StatusFlags {
  readonly ray?: boolean;
  readonly json?: boolean;
}

/** `rankflow cluster up|down|status`. */
export function register(program: Command): void {
  const cluster = program.command('cluster').description('Ray clusters: up, down, status');
  cluster
    .command('up')
    .description('bring a cluster up and keep it until it is taken down')
    .argument('[name]', 'name of the cluster', 'local')
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
    .argument('[name]', 'name of the cluster', 'local')
    .option('--json', 'print what became of it as JSON')
    .action(down);
  cluster
    .command('status')
    .description('show a cluster, or all that are up')
    .argument('[name]')
    .option('--ray', 'also what `ray status` says')
    .option('--json', 'print it as JSON')
    .action(status);
}

async function up(name: string, flags: UpFlags): Promise<void> {
  const { checkClusterSpec, ensureCluster } = await import('../client/clusters.js');
  const { withClient } = await import('../client/connection.js');
  const { startStackUnless } = await import('./prepare.js');
  const { print, printJson, say } = await import('./output.js');

  const spec = checkClusterSpec(clusterOf({ ...flags, cluster: name }), (path) =>
    path === 'cluster.name' ? 'name' : flagOf(path),
  );
  await startStackUnless(!flags.start);
  say(`Bringing up the cluster ${name} ...`);
  const { address } = await withClient((client) => ensureCluster(client, spec));
  if (flags.json) {
    printJson(address);
    return;
  }
  print(name);
  say(`Ray at ${address.address}, dashboard ${address.dashboardUrl}`);
  say(`Take it down with: rankflow cluster down ${name}`);
}

async function down(name: string, { json }: { readonly json?: boolean }): Promise<void> {
  const { hasLocalNodes, removeLocalCluster } = await import('../activities/local-cluster.js');
  const { stopCluster } = await import('../client/clusters.js');
  const { withClient } = await import('../client/connection.js');
  const { print, printJson, say } = await import('./output.js');

  const known = await withClient(async (client) => stopCluster(client, name));
  // Nodes of a lost Temporal database, or of a workflow that was terminated, have nobody else to end them.
  const left = !known && hasLocalNodes(name);
  if (left) await removeLocalCluster({ name });
  const stopped = known || left;
  if (json) printJson({ name, stopped });
  else print(name);
  say(stopped ? 'The cluster is down.' : 'There was no such cluster up.');
}

async function status(name: string | undefined, flags: StatusFlags): Promise<void> {
  const { clusterStatus, listClusters } = await import('../client/clusters.js');
  const { ClientError } = await import('../client/errors.js');
  const { withClient } = await import('../client/connection.js');
  const { print, printJson, say } = await import('./output.js');

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
  else print(shown.map(clusterText).join('\n\n'));
}

interface ShownCluster extends ClusterStatus {
  /** What `ray status` says, when it was asked for. */
  readonly ray?: string;
}

/** A cluster and its nodes, for people. */
export function clusterText(cluster: ShownCluster): string {
  const { name, state, provider, address, nodes, users, problem, ray } = cluster;
  const resources = (cpus: number, gpus: number): string =>
    gpus > 0 ? `${cpus} CPUs, ${gpus} GPUs` : `${cpus} CPUs`;
  return [
    `${name}: ${state} (${provider})`,
    ...(address ? [`  Ray ${address.address}, dashboard ${address.dashboardUrl}`] : []),
    ...nodes.map((node) => {
      const where = node.ip === undefined ? '' : ` at ${node.ip}`;
      const until = node.deadline === undefined ? '' : ` until ${node.deadline}`;
      return `  ${node.name}${where}: ${node.state}${until}, ${resources(node.cpus, node.gpus)}`;
    }),
    ...(users.length > 0 ? [`  used by ${users.join(', ')}`] : []),
    ...(problem ? [`  last problem: ${problem.message}`] : []),
    ...(ray === undefined ? [] : [ray]),
  ].join('\n');
}

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
