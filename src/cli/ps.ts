import Table from 'cli-table3';
import type { Command } from 'commander';

import { logToStderr } from '../setup/log.js';
import {
  localProcesses,
  logFile,
  readNode,
  recordedClusters,
} from '../activities/local/node-state.js';
import { isAlive } from '../setup/processes.js';
import { stackStatus, type StackStatus } from '../workers/stack/index.js';

interface ProcessRow {
  readonly name: string;
  /** Build of a worker of the stack. */
  readonly build?: string | undefined;
  /** `draining`: it runs for what is pinned to its build, and goes then. */
  readonly status: string;
  readonly pid: number | undefined;
  /** Undefined for a Ray node: its cluster counts them. */
  readonly restarts: number | undefined;
  /** Seconds since the start; undefined when it does not run. */
  readonly uptime: number | undefined;
  readonly lastEnd: string | undefined;
  readonly log: string;
}

/** `rankflow ps`: exit code 1 when the stack does not run. */
export function register(program: Command): void {
  program
    .command('ps')
    .description('show the processes of the local stack and of local Ray clusters')
    .option('--json', 'print them as JSON')
    .action((options: { json?: boolean }) => {
      const current = stackStatus();
      const processes = [...rows(current), ...nodeRows()];
      if (current.status !== 'running') process.exitCode = 1;
      if (options.json) {
        const { address, uiUrl } = current.stack ?? {};
        const { status } = current;
        process.stdout.write(`${JSON.stringify({ status, address, uiUrl, processes })}\n`);
        return;
      }
      if (current.stack === undefined) {
        logToStderr('No stack is running. Start it with: npx rankflow up');
      }
      if (current.status === 'broken') {
        logToStderr(
          'The supervisor was killed: nothing is restarted. Mend it with: npx rankflow up',
        );
      }
      if (processes.length > 0) process.stdout.write(`${table(processes)}\n`);
    });
}

function rows({ stack }: StackStatus): ProcessRow[] {
  return (stack?.processes ?? []).map((one) => {
    const alive = one.process !== undefined && isAlive(one.process);
    const running = one.draining ? 'draining' : 'running';
    return {
      name: one.name,
      build: one.build,
      status: one.status === 'running' ? (alive ? running : 'ended') : one.status,
      pid: alive ? one.process?.pid : undefined,
      restarts: one.restarts,
      uptime: alive ? Math.round((Date.now() - (one.startedAt ?? 0)) / 1000) : undefined,
      lastEnd: one.lastEnd,
      log: one.log,
    };
  });
}

/** Ray's nodes outlive the stack: whoever looks for what runs on this machine wants to see them. */
function nodeRows(): ProcessRow[] {
  return recordedClusters().flatMap((cluster) =>
    localProcesses(cluster)
      .filter(({ running }) => running)
      .map(({ name, ageSeconds }) => ({
        name: `${cluster}/${name}`,
        status: 'running',
        pid: readNode(cluster, name)?.process.pid,
        restarts: undefined,
        uptime: Math.round(ageSeconds),
        lastEnd: undefined,
        log: logFile(cluster, name),
      })),
  );
}

function table(processes: readonly ProcessRow[]): string {
  const head = ['process', 'build', 'status', 'pid', 'up for', 'restarts', 'last end', 'log'];
  const result = new Table({ head, style: { head: [], border: [] } });
  for (const one of processes) {
    const uptime = one.uptime === undefined ? '' : `${one.uptime} s`;
    result.push([
      ...[one.name, one.build ?? '', one.status, one.pid ?? '', uptime],
      ...[one.restarts ?? '', one.lastEnd ?? '', one.log],
    ]);
  }
  return result.toString();
}
