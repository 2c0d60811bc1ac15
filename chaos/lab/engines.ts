import path from 'node:path';

import type { FleetStatus } from '../../dist/contracts/workflows.js';
import type { RunView } from '../store/view.js';
import { type ProcessInfo, openFiles, processInfo, processTable } from './processes.js';

/** One engine of a fleet that runs: an actor and the processes of its vLLM. */
export interface Engine {
  readonly slot: number;
  /** Of the Ray actor. */
  readonly pid: number;
}

/** Engines that a fleet knows, whose actors run. */
export function enginesOf(fleet: FleetStatus | undefined): Engine[] {
  return (fleet?.slots ?? []).flatMap(({ slot, incarnation }) => {
    const pid = pidOf(incarnation);
    return pid !== undefined && processInfo(pid) !== undefined ? [{ slot, pid }] : [];
  });
}

/** Pid in an incarnation `<node>-<pid>`: all nodes are on this machine. */
export function pidOf(incarnation: string | undefined): number | undefined {
  const pid = Number(incarnation?.split('-').at(-1));
  return pid > 1 ? pid : undefined;
}

/** The actor and everything that it started: they share its process group. */
export const groupOf = (engine: Engine): ProcessInfo[] =>
  processTable().filter(({ group }) => group === engine.pid);

/** vLLM's EngineCore below an engine, by the title that it gives itself. */
export const coreOf = (engine: Engine): ProcessInfo | undefined =>
  groupOf(engine).find(({ command }) => /EngineCore/u.test(command));

/** Attempts that an engine writes now, as `<batch>/<token>`: seen by the files that it has open. */
export function openAttempts({ pid }: Pick<Engine, 'pid'>, view: RunView): string[] {
  const marker = `/runs/${view.runId}/attempts/`;
  return openFiles(pid)
    .filter((file) => file.includes(marker) && file.endsWith('.jsonl'))
    .map((file) => path.join(path.basename(path.dirname(file)), path.basename(file, '.jsonl')));
}
