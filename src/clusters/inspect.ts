import { callAgent, NoAgent, StatusAnswer } from '../activities/ssh/agent.js';
import { nodeFolder, nodeMarker } from '../activities/ssh/node-settings.js';
import { ENVIRONMENTS_FOLDER, installPlan, isMadeOnNode } from '../activities/ssh/environment.js';
import { targetOf } from '../activities/ssh/hosts.js';
import { ClientError } from '../client/errors.js';
import type { ClusterSpec, SshNode, SshProvider } from '../contracts/cluster.js';
import type { HostReport } from '../hosts/alike/facts.js';
import { portsToReach } from '../hosts/alike/ports.js';
import { pythonMatchOf, type VersionRules } from '../hosts/alike/versions.js';
import { HostError } from '../hosts/host.js';
import { inspectHosts, type InspectedHost } from '../hosts/inspect.js';
import { localHost } from '../hosts/local.js';
import { sshHost } from '../hosts/ssh.js';
import { paths } from '../setup/paths.js';
import { HEAD } from '../workflows/names.js';

export interface ClusterInspection {
  /** Nodes that are looked at, those to compare others with first, and the head always; default all, spares included. */
  readonly nodes?: readonly string[];
  /** False: who reaches whom is not looked at. */
  readonly reach?: boolean;
  /** Whether its nodes run already, so that their ports are taken; default false. `ask`: each host is asked. */
  readonly running?: boolean | 'ask';
  /** Address of Temporal for engines on nodes; not looked at when absent. */
  readonly temporal?: string | undefined;
  readonly store?: string | undefined;
  readonly engine?: VersionRules['engine'];
  readonly signal?: AbortSignal;
}

/** This machine in tables: no node can be called so. */
const HERE = 'this machine';

/**
 * Looks at the hosts of a cluster and at this machine, whose drivers place engines on them; see {@link inspectHosts}.
 *
 * @throws ClientError `Usage` for an existing cluster: nobody here may log in on its hosts
 */
export async function inspectCluster(
  { name, nodes }: ClusterSpec,
  { nodes: wanted, reach = true, running = false, ...options }: ClusterInspection,
): Promise<HostReport> {
  if (nodes.provider === 'existing') {
    throw new ClientError('Usage', `The hosts of ${name} are not ours to look at.`, {
      wayOut: 'Run `rankflow doctor` on each of them, or describe them with provider ssh.',
    });
  }
  if (nodes.provider === 'local') {
    const alone = { ...here(), role: 'head', engines: true } as const;
    return inspectHosts([alone], { ...settings(options), ports: [] });
  }
  const names = wanted && [HEAD, ...wanted.filter((one) => one !== HEAD)];
  const all = [nodes.head, ...nodes.workers];
  const chosen = names?.flatMap((one) => all.find((node) => node.name === one) ?? []) ?? all;
  return inspectHosts([...chosen.map((node) => onSsh(name, nodes, node)), here()], {
    ...settings(options),
    ports: reach ? portsToReach(nodes.ports) : [],
    running: running === 'ask' ? await askWhetherRunning(name, nodes, chosen) : running,
    storeEnvironment: passedOn(nodes),
    rules: rulesOf(nodes, options.engine),
  });
}

/** Which nodes run, by name, as the hosts say; a node of which something is left has its ports, too. */
async function askWhetherRunning(
  cluster: string,
  nodes: SshProvider,
  chosen: readonly SshNode[],
): Promise<Record<string, boolean>> {
  const { python } = installPlan(nodes.environment);
  const asked = chosen.map(async (node): Promise<readonly [string, boolean][]> => {
    const { folder } = nodeFolder(cluster, nodes, node.name);
    const given = { folder, marker: nodeMarker(cluster, node.name) };
    try {
      const host = sshHost(targetOf(nodes, node));
      const { running, left } = await callAgent(host, python, 'status', given, StatusAnswer);
      return [[node.name, running || left === true]];
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      // A Python that is still to be installed has started nothing.
      return error instanceof NoAgent && isMadeOnNode(python) ? [[node.name, false]] : [];
    }
  });
  return Object.fromEntries((await Promise.all(asked)).flat());
}

function settings({ temporal, store, engine, signal }: Omit<ClusterInspection, 'running'>) {
  return {
    temporal,
    store,
    rules: { ...(engine && { engine }) },
    ...(signal && { signal }),
  };
}

const here = (): InspectedHost => ({
  host: localHost(HERE),
  role: 'control',
  engines: false,
  address: '127.0.0.1',
  python: [paths.python],
  env: { PYTHONPATH: paths.pythonProject },
  folders: { home: paths.home },
});

function onSsh(cluster: string, nodes: SshProvider, node: SshNode): InspectedHost {
  const { environment } = nodes;
  const { python, steps, room } = installPlan(environment);
  const { folder, package: files } = nodeFolder(cluster, nodes, node.name);
  return {
    // Not the bounded host of the activities: those that listen would keep the others from connecting.
    host: sshHost(targetOf(nodes, node)),
    role: node.name === HEAD ? 'head' : 'worker',
    engines: node.name !== HEAD || nodes.workers.length === 0,
    address: node.address,
    python: pythonCommand(python),
    env: { PYTHONPATH: files },
    environmentLater: steps.length > 0,
    ...(room !== undefined && { environmentRoom: room }),
    image: environment.image,
    packageLater: true,
    folders: { node: folder, ...(room !== undefined && { environments: ENVIRONMENTS_FOLDER }) },
  };
}

/** `~` is the home of the user over there, which only a shell of that host knows. */
const pythonCommand = (python: string): string[] =>
  python.startsWith('~/')
    ? ['sh', '-c', 'python=$1; shift; exec "$HOME/$python" "$@"', 'sh', python.slice(2)]
    : [python];

/** What the nodes get of this process' environment and of the cluster file: settings of the store are among it. */
function passedOn({ environment: { variables, pass = [] } }: SshProvider): Record<string, string> {
  const passed = pass.flatMap((name) => {
    const value = process.env[name];
    return value === undefined ? [] : [[name, value] as const];
  });
  return { ...variables, ...Object.fromEntries(passed) };
}

function rulesOf(
  { environment: { variables } }: SshProvider,
  engine: VersionRules['engine'] = 'vllm',
): VersionRules {
  return { engine, pythonMatch: pythonMatchOf(variables) };
}
