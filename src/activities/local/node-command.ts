import { tmpdir, userInfo } from 'node:os';
import path from 'node:path';

import type { ClusterSpec } from '../../contracts/cluster.js';
import { paths } from '../../setup/paths.js';
import { HEAD } from '../../workflows/cluster-plan.js';
import { rayAuthEnvironment } from '../ray-state.js';

type LocalNodes = Extract<ClusterSpec['nodes'], { provider: 'local' }>;

/** What one `ray start` needs to know. */
export interface NodePlacement {
  readonly node: string;
  readonly nodes: LocalNodes;
  readonly temporaryFolder: string;
  readonly tokenFile: string;
  /** Folder of the GCS state when it is to outlive the head. */
  readonly gcsFolder: string;
  /** GCS address of the head, `host:port`. */
  readonly address: string;
  /** Of the head: ports of its dashboard and of the Ray client server. */
  readonly dashboardPort: number;
  readonly clientPort: number;
  /** Its presence is notice of preemption for this node. */
  readonly noticeFile: string;
  /** Marks every process below this node, whatever group or session it moves to. */
  readonly marker: string;
}

/** Environment variable that all processes of a node inherit; see {@link NodePlacement.marker}. */
export const MARKER = 'RANKFLOW_NODE';

/** Rows never pass through Ray's object store: the smallest that Ray runs well with (bytes). */
export const OBJECT_STORE_BYTES = 128 * 1024 * 1024;
/** Engines are killed before a node ends: Ray need not wait 30 s for them to leave. */
export const DRAIN_SECONDS = 5;

/** Number of a worker node, from 1; 0 for the head. */
const numberOf = (node: string): number => (node === HEAD ? 0 : Number(node.split('-').at(-1)));

/**
 * Logical CPUs of a node. The head has none when there are workers: what runs beside the GCS can take it down.
 *
 * @param cores cores of this host
 */
export function cpusOf(node: string, nodes: LocalNodes, cores: number): number {
  if (node === HEAD && nodes.workers > 0) return 0;
  const share = nodes.workers === 0 ? cores : Math.floor(cores / nodes.workers);
  return Math.max(1, Math.floor(nodes.cpusPerNode ?? share));
}

/**
 * GPUs of a node, undefined to let Ray count them. Several nodes on one host would each count all of them, so
 * they have none unless `gpusPerNode` says how many.
 */
export function gpusOf(node: string, nodes: LocalNodes): number | undefined {
  if (node === HEAD && nodes.workers > 0) return 0;
  if (nodes.gpusPerNode !== undefined) return Math.floor(nodes.gpusPerNode);
  return nodes.workers > 1 ? 0 : undefined;
}

/** `CUDA_VISIBLE_DEVICES` of a worker node that shares this host's GPUs with others; undefined: as it is. */
export function visibleGpus(
  node: string,
  nodes: LocalNodes,
  inherited: string | undefined,
): string | undefined {
  const gpus = gpusOf(node, nodes);
  if (gpus === undefined || gpus === 0 || nodes.workers < 2) return undefined;
  const first = (numberOf(node) - 1) * gpus;
  const all = inherited?.split(',');
  return Array.from({ length: gpus }, (_, index) => all?.[first + index] ?? first + index).join(
    ',',
  );
}

/**
 * Address of a node: one for each, as on hosts of their own, on the loopback alone. Ray replaces 127.0.0.1 by an
 * outside address of the host, so counting starts at 127.0.0.2, which Linux has without being told.
 */
export const nodeIp = (node: string): string =>
  process.platform === 'linux' ? `127.0.0.${2 + numberOf(node)}` : '127.0.0.1';

/** Arguments of Python that run `ray start` for a node, in the foreground. */
export function nodeArguments(placement: NodePlacement, cores: number): string[] {
  const { node, nodes, address } = placement;
  const gpus = gpusOf(node, nodes);
  return [
    ...['-m', 'ray.scripts.scripts', 'start', '--block', '--disable-usage-stats'],
    ...(node === HEAD ? headArguments(placement) : [`--address=${address}`]),
    `--node-ip-address=${nodeIp(node)}`,
    `--node-name=${node}`,
    `--labels=rankflow-node=${node}`,
    `--temp-dir=${placement.temporaryFolder}`,
    `--num-cpus=${cpusOf(node, nodes, cores)}`,
    ...(gpus === undefined ? [] : [`--num-gpus=${gpus}`]),
    `--object-store-memory=${OBJECT_STORE_BYTES}`,
    // Ray's default ranges are those of a host for itself; nodes that share one take any free port.
    ...['--min-worker-port=0', '--max-worker-port=0', '--dashboard-agent-listen-port=0'],
  ];
}

function headArguments({ address, dashboardPort, clientPort }: NodePlacement): string[] {
  return [
    '--head',
    `--port=${address.split(':').at(-1)}`,
    '--include-dashboard=true',
    '--dashboard-host=127.0.0.1',
    `--dashboard-port=${dashboardPort}`,
    `--ray-client-server-port=${clientPort}`,
  ];
}

/** Below the temporary folder of a node: what its processes call theirs. */
export const temporaryFiles = (folder: string): string => path.join(folder, 't');

/**
 * Environment of a node. Engines inherit it, so it lets them find the Python environment, this project's
 * activities and Temporal, and it is where their secrets come from.
 */
export function nodeEnvironment(
  placement: NodePlacement,
  inherited: NodeJS.ProcessEnv,
): NodeJS.ProcessEnv {
  const gpus = visibleGpus(placement.node, placement.nodes, inherited['CUDA_VISIBLE_DEVICES']);
  return {
    ...inherited,
    ...rayAuthEnvironment(placement.tokenFile),
    [MARKER]: placement.marker,
    PATH: [path.dirname(paths.python), inherited['PATH']].filter(Boolean).join(':'),
    PYTHONPATH: [paths.pythonProject, inherited['PYTHONPATH']].filter(Boolean).join(':'),
    VIRTUAL_ENV: paths.venv,
    RANKFLOW_HOME: paths.home,
    // What is killed leaves its temporary files: they go with the node, but for what makes the next engine quicker.
    TMPDIR: temporaryFiles(placement.temporaryFolder),
    TORCHINDUCTOR_CACHE_DIR:
      inherited['TORCHINDUCTOR_CACHE_DIR'] ??
      path.join(tmpdir(), `torchinductor-${userInfo().uid}`),
    RAY_USAGE_STATS_ENABLED: '0',
    // Ray runs its workers at niceness 15: next to anything else that computes, an engine would starve.
    RAY_worker_niceness: '0',
    RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S: String(DRAIN_SECONDS),
    ...(placement.nodes.gcsStorage === 'rocksdb' && {
      RAY_gcs_storage: 'rocksdb',
      RAY_gcs_storage_path: placement.gcsFolder,
    }),
    // Whatever machine this is: that its processes are nodes does not make it one of a cloud's spot machines.
    RANKFLOW_PREEMPTION: inherited['RANKFLOW_PREEMPTION'] ?? 'off',
    RANKFLOW_PREEMPTION_FILE: placement.noticeFile,
    ...(gpus !== undefined && { CUDA_VISIBLE_DEVICES: gpus }),
  };
}
