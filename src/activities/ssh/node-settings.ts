import { createHash } from 'node:crypto';
import path from 'node:path';

import type { NodeEnvironment, SshNode, SshProvider } from '../../contracts/cluster.js';
import { HEAD } from '../../workflows/cluster-plan.js';
import { DRAIN_SECONDS, OBJECT_STORE_BYTES } from '../local/node-command.js';
import { clusterHash } from '../local/node-state.js';
import { rayAuthEnvironment } from '../ray-state.js';

/** Where things of one node are on its host. */
export interface NodeFolder {
  readonly folder: string;
  readonly token: string;
  /** Ray's own files; short, as the paths of its sockets are limited to 107 bytes. */
  readonly ray: string;
  readonly gcs: string;
  /** The Python package that engines are made of. */
  readonly package: string;
  /** Its presence is notice of preemption. */
  readonly notice: string;
}

/**
 * The folder of a node on its host: one for each node, also where several hosts share a file system.
 *
 * @param cluster name of the cluster
 */
export function nodeFolder(cluster: string, { directory }: SshProvider, node: string): NodeFolder {
  const folder = path.posix.join(directory, `rf-${clusterHash(cluster)}`, shortName(node));
  const at = (name: string): string => path.posix.join(folder, name);
  return {
    folder,
    token: at('token'),
    ray: at('r'),
    gcs: at('gcs'),
    package: at('package'),
    notice: at('preempted'),
  };
}

/** Names of nodes may be long. */
const shortName = (node: string): string =>
  node === HEAD ? 'h' : createHash('sha256').update(node).digest('hex').slice(0, 8);

/** Marks every process of a node, whatever group or session it moves to. */
export const nodeMarker = (cluster: string, node: string): string =>
  `${clusterHash(cluster)}/${shortName(node)}`;

/** What of a node stays when it is started again on its host; with its record, its state is known as its own. */
export const KEPT_FILES = ['token', 'package', 'gcs', 'node.json'] as const;

export interface NodePlace {
  readonly cluster: string;
  readonly nodes: SshProvider;
  readonly node: SshNode;
  /** Address of this node. */
  readonly address: string;
  /** Address of the head. */
  readonly head: string;
}

/** `10.0.0.1:6379`, `[fe80::1]:6379`. */
export const hostPort = (host: string, port: number): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;

/** Ports that a node has to have to itself, by their names in the cluster file. */
export function fixedPorts({ name }: SshNode, ports: SshProvider['ports']): Record<string, number> {
  const { gcs, dashboard, client, workers: _, ...each } = ports;
  return { ...(name === HEAD && { gcs, dashboard, client }), ...definedOf(each) };
}

const definedOf = (ports: Readonly<Record<string, number | undefined>>): Record<string, number> =>
  Object.fromEntries(
    Object.entries(ports).flatMap(([name, port]) => (port === undefined ? [] : [[name, port]])),
  );

/** What each node listens on, by the keys of the cluster file, as `ray start` is told. */
const PORT_FLAGS = {
  nodeManager: '--node-manager-port',
  objectManager: '--object-manager-port',
  dashboardAgentGrpc: '--dashboard-agent-grpc-port',
  dashboardAgentListen: '--dashboard-agent-listen-port',
  runtimeEnvAgent: '--runtime-env-agent-port',
  metricsExport: '--metrics-export-port',
} as const;

function portArguments(ports: SshProvider['ports']): string[] {
  // Other servers of the host may have the fixed one that Ray takes.
  const given = { ...ports, dashboardAgentListen: ports.dashboardAgentListen ?? 0 };
  return (Object.keys(PORT_FLAGS) as (keyof typeof PORT_FLAGS)[]).flatMap((key) => {
    const port = given[key];
    return port === undefined ? [] : [`${PORT_FLAGS[key]}=${port}`];
  });
}

/** Arguments of `ray start`, in the foreground: the node's log and process are those of `ray start`. */
export function startArguments({ cluster, nodes, node, address, head }: NodePlace): string[] {
  const { ports, workers } = nodes;
  const { num_cpus: cpus, num_gpus: gpus, custom } = resourcesOf(node, workers.length > 0);
  const labels = Object.entries({ 'rankflow-node': node.name, ...node.labels });
  const [firstPort, lastPort] = ports.workers ?? [];
  return [
    ...['--block', '--disable-usage-stats'],
    ...(node.name === HEAD
      ? [
          ...['--head', `--port=${ports.gcs}`, '--include-dashboard=true'],
          ...[`--dashboard-host=${address}`, `--dashboard-port=${ports.dashboard}`],
          `--ray-client-server-port=${ports.client}`,
        ]
      : [`--address=${hostPort(head, ports.gcs)}`]),
    `--node-ip-address=${address}`,
    `--node-name=${node.name}`,
    `--labels=${labels.map(([name, value]) => `${name}=${value}`).join(',')}`,
    `--temp-dir=${nodeFolder(cluster, nodes, node.name).ray}`,
    ...(cpus === undefined ? [] : [`--num-cpus=${cpus}`]),
    ...(gpus === undefined ? [] : [`--num-gpus=${gpus}`]),
    ...(custom === undefined ? [] : [`--resources=${JSON.stringify(custom)}`]),
    `--object-store-memory=${OBJECT_STORE_BYTES}`,
    ...(firstPort === undefined ? [] : [`--min-worker-port=${firstPort}`]),
    ...(lastPort === undefined ? [] : [`--max-worker-port=${lastPort}`]),
    ...portArguments(ports),
  ];
}

/** What runs beside the GCS can take it down: a head that has workers has no resources unless it is told. */
function resourcesOf(
  { name, resources }: SshNode,
  hasWorkers: boolean,
): NonNullable<SshNode['resources']> {
  return name === HEAD && hasWorkers
    ? { num_cpus: 0, num_gpus: 0, ...resources }
    : { ...resources };
}

/**
 * Variables of a node that engines inherit. The token is a file, named by its path. The agent puts the folder of the
 * node's Python before `PATH`: only over there is known where it is.
 *
 * @param inherited environment of this process, for what the cluster file passes on
 */
export function nodeVariables(
  { cluster, nodes, node }: NodePlace,
  inherited: NodeJS.ProcessEnv,
): Record<string, string> {
  const files = nodeFolder(cluster, nodes, node.name);
  const { variables, pass = [] } = nodes.environment;
  const passed = pass.flatMap((name) => {
    const value = inherited[name];
    return value === undefined ? [] : [[name, value] as const];
  });
  return {
    RANKFLOW_PREEMPTION_FILE: files.notice,
    RAY_USAGE_STATS_ENABLED: '0',
    // Ray runs its workers at niceness 15: next to anything else that computes, an engine would starve.
    RAY_worker_niceness: '0',
    RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S: String(DRAIN_SECONDS),
    ...variables,
    ...Object.fromEntries(passed),
    ...rayAuthEnvironment(nodes.tokenAuth ? files.token : undefined),
    PYTHONPATH: [files.package, variables?.['PYTHONPATH']].filter(Boolean).join(':'),
    ...(nodes.gcsStorage === 'rocksdb' && {
      RAY_gcs_storage: 'rocksdb',
      RAY_gcs_storage_path: files.gcs,
    }),
  };
}

/** What the agent is told of the container that a node runs in; nothing where it runs in none. */
export function containerSettings({
  environment: { image, python, mounts },
}: SshProvider): Pick<NodeEnvironment, 'image' | 'python' | 'mounts'> {
  if (image === undefined) return {};
  return { image, ...(python !== undefined && { python }), ...(mounts && { mounts }) };
}
