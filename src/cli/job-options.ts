import { type Command, InvalidArgumentError } from 'commander';

import type { JobOptions } from '../client/job-spec.js';
import { collect } from './collect.js';
import { clusterOf, flagOf, numeric } from './run-options.js';

/** Flags of `job submit`, as commander hands them over: numbers are not checked yet. */
export interface JobFlags {
  readonly name?: string;
  readonly workingDir?: string;
  readonly exclude?: readonly string[];
  readonly runtimeEnv?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly secret?: readonly string[];
  readonly numCpus?: unknown;
  readonly numGpus?: unknown;
  readonly memoryBytes?: unknown;
  readonly resource?: Readonly<Record<string, unknown>>;
  readonly timeout?: unknown;
  readonly retries?: unknown;
  readonly restarts?: unknown;
  readonly stopGrace?: unknown;
  readonly store?: string;
  readonly new?: boolean;
  readonly keep?: boolean;
  readonly cluster: string;
  readonly nodes?: unknown;
  readonly cpusPerNode?: unknown;
  readonly gcsStorage?: string;
  readonly address?: string;
  readonly dashboardUrl?: string;
  readonly rayTokenFile?: string;
}

/** `K=V`, as it is typed: unlike an engine argument a variable is always text. */
export function variable(
  text: string,
  earlier: Readonly<Record<string, string>> = {},
): Record<string, string> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('Expected NAME=VALUE.');
  return { ...earlier, [text.slice(0, at)]: text.slice(at + 1) };
}

function resource(
  text: string,
  earlier: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  const at = text.lastIndexOf('=');
  if (at < 1) throw new InvalidArgumentError('Expected NAME=AMOUNT.');
  return { ...earlier, [text.slice(0, at)]: numeric(text.slice(at + 1)) };
}

const SECONDS_OF: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** `90`, `90s`, `30m`, `2h` or `1d` in seconds. */
export function duration(text: string): number {
  const match = /^(?<amount>\d+(?:\.\d+)?)(?<unit>[smhd]?)$/u.exec(text.trim());
  const { amount = '', unit = '' } = match?.groups ?? {};
  if (match === null) throw new InvalidArgumentError('Expected a time such as 90s, 30m or 2h.');
  return Number(amount) * (SECONDS_OF[unit || 's'] ?? 1);
}

/** Options of what is run, and where. */
export function addJobOptions(command: Command): Command {
  return command
    .option('--name <id>', 'id of the job (default: derived from what is run)')
    .option('--working-dir <dir>', 'folder that the nodes get a copy of and run it in')
    .option('--exclude <pattern>', 'not in that copy; as in .gitignore; repeat it', collect)
    .option('--runtime-env <file>', "Ray's runtime environment, YAML or JSON")
    .option('--env <k=v>', 'environment variable; repeat it for more', variable)
    .option(
      '--secret <name[=file]>',
      'variable that the nodes have, or get from a file of theirs',
      collect,
    )
    .option('--num-cpus <n>', 'CPUs held for the entrypoint itself', numeric)
    .option('--num-gpus <n>', 'GPUs held for the entrypoint itself', numeric)
    .option('--memory-bytes <n>', 'memory held for the entrypoint itself', numeric)
    .option('--resource <name=n>', 'another resource held for it; repeat it', resource)
    .option('--timeout <time>', 'for the whole job: 90s, 30m, 2h', duration)
    .option('--retries <n>', 'starts after it failed by itself (default: 0)', numeric)
    .option('--restarts <n>', 'starts after nodes were lost below it (default: 20)', numeric)
    .option('--stop-grace <time>', 'from SIGTERM to SIGKILL (default: 10s)', duration)
    .option('--store <folder>', 'folder that holds logs and checkpoints')
    .option('--new', 'run it again under a fresh id')
    .option('--cluster <name>', 'name of the cluster', 'local')
    .option('--nodes <n>', 'local worker nodes (default: all runs on the head)', numeric)
    .option('--cpus-per-node <n>', 'logical CPUs of each (default: the cores, shared out)', numeric)
    .option('--gcs-storage <kind>', 'memory, or rocksdb: local jobs outlive a lost head')
    .option('--address <host:port>', 'existing Ray cluster: its GCS')
    .option('--dashboard-url <url>', 'existing Ray cluster: its dashboard')
    .option('--ray-token-file <file>', 'existing Ray cluster: its token')
    .option('--keep', 'leave the cluster up afterwards');
}

/** What the user asks for. Nothing is checked here. */
export function toJobOptions(entrypoint: readonly string[], flags: JobFlags): JobOptions {
  return {
    entrypoint,
    name: flags.name,
    workingDir: flags.workingDir,
    excludes: flags.exclude,
    runtimeEnv: flags.runtimeEnv,
    env: flags.env,
    secrets: flags.secret,
    resources: {
      numCpus: flags.numCpus,
      numGpus: flags.numGpus,
      memoryBytes: flags.memoryBytes,
      custom: flags.resource,
    },
    timeoutSeconds: flags.timeout,
    retries: flags.retries,
    restarts: flags.restarts,
    stopGraceSeconds: flags.stopGrace,
    store: flags.store,
    cluster: clusterOf(flags),
    keep: flags.keep,
    fresh: flags.new,
  };
}

const SPECIAL_NAMES: Readonly<Record<string, string>> = {
  jobId: '--name',
  entrypoint: 'ENTRYPOINT',
  timeoutSeconds: '--timeout',
  stopGraceSeconds: '--stop-grace',
};

/** The flag that sets a field of a job. */
export function jobFlagOf(path: string): string {
  if (path.startsWith('env.')) return '--env';
  if (path.startsWith('secrets.')) return '--secret';
  if (path.startsWith('resources.custom')) return '--resource';
  return SPECIAL_NAMES[path] ?? flagOf(path);
}
