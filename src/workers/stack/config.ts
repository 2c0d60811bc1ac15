import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import getPort, { clearLockedPorts, portNumbers } from 'get-port';
import { z } from 'zod';

import { CONTROL_QUEUE, PYTHON_QUEUE } from '../../contracts/names.js';
import { metricsAddress } from '../../metrics/address.js';
import { ATTRIBUTE } from '../../contracts/search-attributes.js';
import { findTemporal } from '../../setup/temporal.js';
import { configuredServer } from '../../temporal/settings.js';
import { paths } from '../../setup/paths.js';
import { ownBuild } from '../build.js';
import { buildFolder, keepBuild, keptBuilds } from './builds.js';
import { readPorts, writePorts, type Ports } from './state.js';

/** A process that the supervisor keeps running. */
export const ProcessSpec = z.object({
  name: z.string().regex(/^[a-z-]+$/u),
  /** Servers start first and end last. */
  role: z.enum(['server', 'worker']),
  command: z.string(),
  args: z.array(z.string()),
  cwd: z.string().optional(),
  /** Added to the environment of `up`. */
  env: z.record(z.string(), z.string()).default({}),
  /** How long it may take to end by itself after SIGTERM, in ms. */
  graceMs: z.int().nonnegative(),
  /** It is ready when this queue has a poller. */
  queue: z
    .object({
      name: z.string(),
      kind: z.enum(['workflow', 'activity']),
      /** … of this build. */
      build: z.string().optional(),
    })
    .optional(),
  /** Build that it is of, when it is Rankflow's own worker. */
  build: z.string().optional(),
  /** It serves only what is pinned to its build. */
  draining: z.boolean().optional(),
});
export type ProcessSpec = z.infer<typeof ProcessSpec>;

/** What tells the processes of a stack apart: two builds of one worker run side by side. */
export const keyOf = ({ name, build }: Pick<ProcessSpec, 'name' | 'build'>): string =>
  build === undefined ? name : `${name} ${build}`;

/** What the supervisor is started with; holds no credentials: those stay in the environment. */
export const StackConfig = z.object({
  address: z.string(),
  namespace: z.string(),
  uiUrl: z.string().optional(),
  /** Where Prometheus finds the control worker's metrics; absent when they are off. */
  metricsUrl: z.string().optional(),
  ownsServer: z.boolean(),
  /** Build that new work goes to; absent with workers that are not Rankflow's own. */
  build: z.string().optional(),
  processes: z.array(ProcessSpec),
});
export type StackConfig = z.infer<typeof StackConfig>;

/** Workers finish what they do or give it back: longer than a heartbeat, shorter than people's patience. */
const WORKER_GRACE_MS = 10_000;
/** The server writes its state file continuously; it needs only to close it. */
const SERVER_GRACE_MS = 5_000;

const HOST = '127.0.0.1';
const DATABASE = path.join(paths.stack, 'temporal.db');

/**
 * What a stack consists of on this machine: Temporal's dev server, unless the user named a server, and the
 * two workers.
 *
 * @param given other workers, for tests
 * @throws Error when the set-up was not done
 */
export async function stackConfig(given?: ProcessSpec[]): Promise<StackConfig> {
  const { address: configured, namespace } = configuredServer();
  const chosen = given === undefined ? await ownWorkers(olderBuilds()) : { processes: given };
  if (configured !== undefined) {
    return withAddress({ ...chosen, address: configured, namespace, ownsServer: false });
  }
  const ports = await choosePorts();
  return withAddress({
    ...chosen,
    address: `${HOST}:${ports.port}`,
    namespace,
    uiUrl: `http://${HOST}:${ports.uiPort}`,
    ownsServer: true,
    processes: [await devServer(ports, namespace), ...chosen.processes],
  });
}

/**
 * A running stack with the caller's build in place of the one that it runs. That one stays beside it until what is
 * pinned to it has ended.
 *
 * @param beside false where the server has no worker deployments: one build replaces the other
 */
export async function upgradedConfig(running: StackConfig, beside: boolean): Promise<StackConfig> {
  const servers = running.processes.filter(({ role }) => role === 'server');
  const { metricsUrl: _before, ...rest } = running;
  const own = withAddress({ ...rest, ...(await ownWorkers(beside ? olderBuilds() : [])) });
  // Those that run go on as they are, at the ports that they have.
  const known = new Map(running.processes.map((spec) => [keyOf(spec), spec]));
  const workers = own.processes.map((spec) => {
    const { draining: _was, ...kept } = known.get(keyOf(spec)) ?? spec;
    return { ...kept, ...(spec.draining && { draining: true }) };
  });
  return { ...own, ...metricsOf(workers), processes: [...servers, ...workers] };
}

/** Where the metrics of the control worker are that new work goes to. */
function metricsOf(workers: readonly ProcessSpec[]): Pick<StackConfig, 'metricsUrl'> {
  const current = workers.find(({ name, draining }) => name === CONTROL && draining !== true);
  const address = current?.env['RANKFLOW_METRICS_ADDRESS'] ?? OFF;
  return address === OFF ? {} : { metricsUrl: `http://${address}/metrics` };
}

/** Tells every process the address and the data folder. */
function withAddress(config: StackConfig): StackConfig {
  const env = {
    TEMPORAL_ADDRESS: config.address,
    TEMPORAL_NAMESPACE: config.namespace,
    RANKFLOW_HOME: paths.home,
  };
  return {
    ...config,
    processes: config.processes.map((spec) => ({ ...spec, env: { ...env, ...spec.env } })),
  };
}

/** The ports of last time or Temporal's usual ones if they are free, else any. */
async function choosePorts(): Promise<Ports> {
  const last = readPorts();
  // get-port keeps the ports that it gave away reserved: the port of a stack that is gone would be lost.
  clearLockedPorts();
  const port = await getPort({ host: HOST, port: last ? [last.port, 7233] : 7233 });
  const uiPort = await getPort({
    host: HOST,
    port: last ? [last.uiPort, 8233] : 8233,
    exclude: [port],
  });
  writePorts({ port, uiPort });
  return { port, uiPort };
}

/**
 * Tasks are spread over four partitions of a queue, each in order for itself, so priorities and weights would be kept
 * about, not exactly. The other three are still read: tasks that an older Rankflow left there are not lost.
 */
const EXACTLY = ['--dynamic-config-value', 'matching.numTaskqueueWritePartitions=1'];

/**
 * How soon the server notices that nothing is pinned to a build any more. By default it looks every three minutes, at what
 * its list of workflows had three minutes before; in one process with SQLite that list is there at once.
 */
const DRAINED_SOON = ['VisibilityGracePeriod', 'RefreshInterval'].flatMap((name) => [
  '--dynamic-config-value',
  `matching.wv.VersionDrainageStatus${name}="10s"`,
]);

/** Where the two workers serve their metrics: at the usual ports if they are free, else above them. */
interface MetricsAddresses {
  readonly control: string;
  readonly python: string;
}

const OFF = 'off';
/** How many ports are tried: stacks of other data folders are on the same machine. */
const METRICS_PORTS = 50;

async function chooseMetrics(): Promise<MetricsAddresses> {
  const wanted = metricsAddress();
  if (wanted === undefined) return { control: OFF, python: OFF };
  const { host, port } = wanted;
  const ports = portNumbers(port, Math.min(port + METRICS_PORTS, 65_535));
  const control = await getPort({ host, port: ports });
  const python = await getPort({ host, port: ports, exclude: [control] });
  const name = host.includes(':') ? `[${host}]` : host;
  return { control: `${name}:${control}`, python: `${name}:${python}` };
}

/** The kinds of search attributes as Temporal's command line has them. */
const TYPES = { KEYWORD: 'Keyword', INT: 'Int' } as const;

async function devServer(ports: Ports, namespace: string): Promise<ProcessSpec> {
  const temporal = await findTemporal();
  if (temporal === undefined) throw new Error('No Temporal CLI: run `rankflow setup` first.');
  mkdirSync(paths.stack, { recursive: true });
  return {
    name: 'temporal',
    role: 'server',
    command: temporal.command,
    args: [
      ...['server', 'start-dev', '--ip', HOST, '--port', String(ports.port)],
      ...['--ui-ip', HOST, '--ui-port', String(ports.uiPort), '--log-level', 'warn'],
      ...Object.values(ATTRIBUTE).flatMap(({ name, type }) => [
        '--search-attribute',
        `${name}=${TYPES[type]}`,
      ]),
      ...(sharesFairly() ? ['--dynamic-config-value', 'matching.enableFairness=true'] : []),
      ...EXACTLY,
      ...DRAINED_SOON,
      // One fsync for each transaction instead of three; as durable.
      ...['--db-filename', DATABASE, '--sqlite-pragma', 'journal_mode=WAL'],
      ...(namespace === 'default' ? [] : ['--namespace', namespace]),
    ],
    env: {},
    graceMs: SERVER_GRACE_MS,
  };
}

/**
 * Whether runs share engines by their weights, which is off by default in a server of one's own. Server 1.29 keeps
 * the tasks of fair queues in a table of their own: in a database that was begun without, what waits would be lost.
 */
function sharesFairly(): boolean {
  const marker = path.join(paths.stack, 'fairness');
  if (!existsSync(DATABASE)) writeFileSync(marker, '');
  return existsSync(marker);
}

const CONTROL = 'control-worker';

/** Builds that ran here and may have workflows that are pinned to them. */
const olderBuilds = (): string[] => keptBuilds().filter((id) => id !== ownBuild().id);

/** Rankflow's own workers, and the control workers of older builds, last. */
async function ownWorkers(
  older: readonly string[],
): Promise<Pick<StackConfig, 'build' | 'metricsUrl' | 'processes'>> {
  const build = ownBuild();
  keepBuild(build);
  const workers = workersOf(build.id, await chooseMetrics());
  // What an older build does is nearly over: it needs no metrics, whose port would be another one.
  const others = older.map((id) => ({ ...controlWorker(id, OFF), draining: true }));
  return { build: build.id, ...metricsOf(workers), processes: [...workers, ...others] };
}

/** It runs from a copy: what is installed may be replaced while it runs, and be gone when it is started again. */
function controlWorker(build: string, metricsAddressOf: string): ProcessSpec {
  return {
    name: CONTROL,
    role: 'worker',
    command: process.execPath,
    args: ['--enable-source-maps', path.join(buildFolder(build), 'dist/workers/control.js')],
    env: { RANKFLOW_METRICS_ADDRESS: metricsAddressOf },
    graceMs: WORKER_GRACE_MS,
    queue: { name: CONTROL_QUEUE, kind: 'workflow', build },
    build,
  };
}

function workersOf(build: string, metrics: MetricsAddresses): ProcessSpec[] {
  return [
    controlWorker(build, metrics.control),
    {
      // Its activities can be done again by any build: the next one replaces it.
      name: 'python-worker',
      build,
      role: 'worker',
      command: paths.python,
      args: ['-m', 'rankflow.worker'],
      cwd: paths.pythonProject,
      env: {
        PYTHONPATH: paths.pythonProject,
        PYTHONUNBUFFERED: '1',
        RANKFLOW_METRICS_ADDRESS: metrics.python,
      },
      graceMs: WORKER_GRACE_MS,
      queue: { name: PYTHON_QUEUE, kind: 'activity' },
    },
  ];
}
