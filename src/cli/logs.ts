import path from 'node:path';

import { type Command, InvalidArgumentError } from 'commander';

import type { ClusterAddress } from '../contracts/cluster.js';
import type { FleetStatus } from '../contracts/workflows.js';
import type { LogLine } from '../logs/lines.js';

/** `rankflow logs RUN|ENGINE`. */
export function register(program: Command): void {
  program
    .command('logs')
    .description('show what workers and engines logged about a run, or all that an engine said')
    .argument('<run-or-engine>', 'id of a run; FLEET or FLEET/SLOT for engines')
    .option('-f, --follow', 'go on until ctrl-c')
    .option('-n, --lines <n>', 'at most so many of the last lines of each', positive, 200)
    .option('--json', 'print JSON lines')
    .addHelpText(
      'after',
      `
Of a run: the workers of this machine, and the engines of its fleet while they are up.`,
    )
    .action(logs);
}

function positive(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('Expected 1 or more.');
  return value;
}

/** Of an engine, from the end: what is about one run has to be found among them. */
const MOST_LINES = 10_000;

interface Flags {
  readonly follow?: boolean;
  readonly lines: number;
  readonly json?: boolean;
}

/** Something that lines come from, and which of them are wanted. */
interface Source {
  readonly name: string;
  /** Those that are there; of a source that is followed only what `coming` does not begin with. */
  readonly past: (followed: boolean) => AsyncIterable<string>;
  readonly coming: (until: AbortSignal) => AsyncIterable<string>;
  readonly wanted: (line: LogLine) => boolean;
}

async function logs(id: string, flags: Flags): Promise<void> {
  const { EXIT, ClientError } = await import('../client/errors.js');
  const { say } = await import('./output.js');
  const engine = /^(?!(?:run|inference)\/)(?<fleet>[^/]+)\/(?:slot-)?(?<slot>\d+)(?:\/.*)?$/u.exec(
    id,
  )?.groups;
  const slot = engine === undefined ? undefined : Number(engine['slot']);
  const fleet = await fleetOf(engine?.['fleet'] ?? id);
  const sources =
    fleet === undefined && engine === undefined
      ? await sourcesOfRun(id)
      : await sourcesOfFleet(fleet, slot, flags.lines, () => true);
  if (sources.length === 0) {
    throw new ClientError('NotFound', `There is no log of ${id}.`, {
      wayOut: 'See `rankflow list` for runs and `rankflow fleet status` for engines.',
    });
  }
  const tell = await teller(flags.json ?? false);
  const { signal, release } = interrupted();
  const past = await Promise.allSettled(
    sources.map(async (source) => lastOf(source, flags.lines, flags.follow ?? false)),
  );
  const lines = past.flatMap((one) => (one.status === 'fulfilled' ? one.value : []));
  for (const { line } of lines.toSorted((a, b) => a.at - b.at)) tell(line);
  const coming = !flags.follow
    ? []
    : await Promise.allSettled(
        sources.map(async (source) => {
          for await (const line of wantedOf(source, source.coming(signal))) tell(line);
        }),
      );
  release();
  for (const one of [...past, ...coming]) if (one.status === 'rejected') say(String(one.reason));
  if (flags.follow) process.exitCode = EXIT.interrupted;
  else if (past.every(({ status }) => status === 'rejected')) process.exitCode = EXIT.unreachable;
  else if (lines.length === 0) say(`Nothing was logged about ${id}.`);
}

async function teller(json: boolean): Promise<(line: LogLine) => void> {
  const { lineText } = await import('../logs/lines.js');
  const { print, printJson } = await import('./output.js');
  return (line) => {
    if (json) printJson(line);
    else print(lineText(line));
  };
}

async function* wantedOf(source: Source, lines: AsyncIterable<string>): AsyncGenerator<LogLine> {
  const { logLine } = await import('../logs/lines.js');
  for await (const text of lines) {
    const line = logLine(source.name, text);
    if (source.wanted(line)) yield line;
  }
}

/** The last lines that are wanted, each with its time or that of the line before. */
async function lastOf(
  source: Source,
  most: number,
  followed: boolean,
): Promise<{ readonly at: number; readonly line: LogLine }[]> {
  const last: { at: number; line: LogLine }[] = [];
  let at = 0;
  for await (const line of wantedOf(source, source.past(followed))) {
    at = line.time ?? at;
    last.push({ at, line });
    if (last.length > most) last.shift();
  }
  return last;
}

async function sourcesOfRun(id: string): Promise<Source[]> {
  const { runIdOf } = await import('../client/runs.js');
  const { FileLog } = await import('../logs/files.js');
  const { paths } = await import('../setup/paths.js');
  const { placementOf } = await import('./only-stored.js');
  const run = runIdOf(id);
  const wanted = (line: LogLine): boolean => line.run === run;
  const workers = ['control-worker', 'python-worker'].map((name) => {
    const log = new FileLog(path.join(paths.logs, `${name}.log`));
    const coming = (until: AbortSignal) => log.coming(until);
    return { name, past: () => log.past(), coming, wanted };
  });
  const { fleet } = await placementOf(run);
  const status = fleet === undefined ? undefined : await fleetOf(fleet);
  return [...workers, ...(await enginesOrNot(status, wanted))];
}

/** The engines of a run's fleet. Without them there is still what the workers of this machine logged. */
async function enginesOrNot(
  fleet: FleetStatus | undefined,
  wanted: Source['wanted'],
): Promise<Source[]> {
  const { reasonOf } = await import('../activities/ray-state.js');
  const { say } = await import('./output.js');
  try {
    return await sourcesOfFleet(fleet, undefined, MOST_LINES, wanted);
  } catch (error) {
    say(`No logs of engines: ${reasonOf(error)}`);
    return [];
  }
}

async function sourcesOfFleet(
  fleet: FleetStatus | undefined,
  slot: number | undefined,
  most: number,
  wanted: Source['wanted'],
): Promise<Source[]> {
  const { engineLines, engineLogs } = await import('../logs/engines.js');
  if (fleet === undefined || fleet.state === 'stopped') return [];
  const cluster = await clusterOf(fleet.cluster);
  if (cluster === undefined) return [];
  const engines = await engineLogs(cluster, fleet, slot);
  return engines.map((engine) => ({
    name: engine.source,
    past: (followed: boolean) => (followed ? nothing() : engineLines(cluster, engine, most)),
    coming: (until: AbortSignal) => engineLines(cluster, engine, most, until),
    wanted,
  }));
}

async function* nothing(): AsyncGenerator<string> {}

async function fleetOf(name: string): Promise<FleetStatus | undefined> {
  const { withClient } = await import('../client/connection.js');
  const { fleetStatus } = await import('../client/fleets.js');
  const { isAbsent } = await import('./only-stored.js');
  try {
    return await withClient(async (client) => fleetStatus(client, name));
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

async function clusterOf(name: string): Promise<ClusterAddress | undefined> {
  const { withClient } = await import('../client/connection.js');
  const { clusterStatus } = await import('../client/clusters.js');
  return withClient(async (client) => (await clusterStatus(client, name))?.address);
}

/** Ctrl-c ends following. */
function interrupted(): { readonly signal: AbortSignal; readonly release: () => void } {
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  process.once('SIGINT', abort);
  return { signal: controller.signal, release: () => process.off('SIGINT', abort) };
}
