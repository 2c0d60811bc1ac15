import { readdirSync, readFileSync } from 'node:fs';
import os from 'node:os';

import type { ClusterSpec, SshProvider } from '../contracts/cluster.js';
import { ClientError } from './errors.js';

/** Milliseconds for one answer of a Ray dashboard; it answers in tens of them. */
const DASHBOARD_TIMEOUT_MS = 5_000;

/** Logical resources that engines may be placed on. */
export interface Hardware {
  readonly cpus: number;
  readonly gpus: number;
}

/** This machine's cores and NVIDIA devices. */
export function localHardware(): Hardware {
  return { cpus: os.availableParallelism(), gpus: countGpus() };
}

function countGpus(): number {
  try {
    return readdirSync('/dev').filter((name) => /^nvidia\d+$/u.test(name)).length;
  } catch {
    return 0;
  }
}

/**
 * Resources of the cluster that engines are going to run on: this machine, or what an existing cluster's
 * dashboard reports.
 *
 * @throws ClientError `ClusterUnavailable` when the dashboard does not answer
 */
export async function clusterHardware(nodes: ClusterSpec['nodes']): Promise<Hardware> {
  if (nodes.provider === 'local') return localHardware();
  if (nodes.provider === 'ssh') return declaredHardware(nodes);
  try {
    const token = nodes.tokenFile && readFileSync(nodes.tokenFile, 'utf8').trim();
    const response = await fetch(new URL('/api/v0/nodes?detail=1', nodes.dashboardUrl), {
      headers: token ? { authorization: `Bearer ${token}` } : {},
      signal: AbortSignal.timeout(DASHBOARD_TIMEOUT_MS),
    });
    if (!response.ok) throw new Error(`status ${response.status}`);
    return sumResources(await response.json());
  } catch (error) {
    throw new ClientError(
      'ClusterUnavailable',
      `The Ray dashboard ${nodes.dashboardUrl} does not answer: ${String(error)}`,
      {
        wayOut: 'Check --dashboard-url and --ray-token-file, or give --gpus-per-engine.',
        cause: error,
      },
    );
  }
}

/** What the cluster file says about its nodes: they may not be up yet. */
function declaredHardware({ workers, count }: SshProvider): Hardware {
  const used = workers.slice(0, count);
  if (used.length > 0 && used.every(({ resources }) => resources?.num_cpus !== undefined)) {
    const sum = (key: 'num_cpus' | 'num_gpus'): number =>
      used.reduce((total, { resources }) => total + (resources?.[key] ?? 0), 0);
    return { cpus: sum('num_cpus'), gpus: sum('num_gpus') };
  }
  throw new ClientError(
    'Usage',
    'What an engine takes of its node has to be said for this cluster.',
    {
      wayOut:
        'Give --cpus-per-engine and --gpus-per-engine, or num_cpus of every node in the cluster file.',
    },
  );
}

interface NodesResponse {
  readonly data?: { readonly result?: { readonly result?: readonly RayNode[] } };
}
interface RayNode {
  readonly state?: string;
  readonly resources_total?: Readonly<Record<string, number>>;
}

/** Adds up the resources of all live nodes in a response of Ray's state API. */
export function sumResources(response: unknown): Hardware {
  const nodes = (response as NodesResponse).data?.result?.result ?? [];
  const alive = nodes.filter((node) => node.state === 'ALIVE');
  const sum = (name: string): number =>
    alive.reduce((total, node) => total + (node.resources_total?.[name] ?? 0), 0);
  return { cpus: sum('CPU'), gpus: sum('GPU') };
}

/**
 * Resources of one engine when the user does not say: whole GPUs where there are some; else an equal share of
 * the cores, as one CPU engine uses every core that it is given. Nodes on one host share its cores, so a share
 * fits on any of them.
 *
 * @param shares how many engines, or nodes if they are more, the cores are for
 */
export function engineResources(
  hardware: Hardware,
  shares: number,
  gpusPerReplica: number,
): { cpusPerEngine: number; gpusPerEngine: number } {
  if (hardware.gpus > 0) return { cpusPerEngine: 1, gpusPerEngine: gpusPerReplica };
  return { cpusPerEngine: Math.max(1, Math.floor(hardware.cpus / shares)), gpusPerEngine: 0 };
}
