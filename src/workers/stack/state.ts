import { rmSync } from 'node:fs';
import path from 'node:path';

import { z } from 'zod';

import { readIfExists, writeAtomically } from '../../setup/files.js';
import { paths } from '../../setup/paths.js';

const ProcessId = z.object({ pid: z.int().positive(), identity: z.string() });

const ProcessState = z.object({
  name: z.string(),
  /** Build of the worker, when it is Rankflow's own. */
  build: z.string().optional(),
  /** It serves only what is pinned to its build, and goes when nothing is. */
  draining: z.boolean().optional(),
  role: z.enum(['server', 'worker']),
  status: z.enum(['waiting', 'running', 'restarting', 'stopped']),
  /** The leader of the process group; absent before the first start. Kept after the end, for its group. */
  process: ProcessId.optional(),
  restarts: z.int().nonnegative(),
  /** When the running process was started, ms since the epoch. */
  startedAt: z.number().optional(),
  /** How the last one ended: `exit code 1`, `SIGKILL`, or why it could not start. */
  lastEnd: z.string().optional(),
  log: z.string(),
});
export type ProcessState = z.infer<typeof ProcessState>;

const StackState = z.object({
  version: z.literal(1),
  supervisor: ProcessId,
  /** Build that the supervisor was told to run last. */
  build: z.string().optional(),
  address: z.string(),
  namespace: z.string(),
  uiUrl: z.string().optional(),
  /** Whether the Temporal server is one of the stack's processes. */
  ownsServer: z.boolean(),
  startedAt: z.number(),
  processes: z.array(ProcessState),
});
export type StackState = z.infer<typeof StackState>;

/** What is written before a supervisor starts: where the server listens, so that it stays there. */
const Ports = z.object({ port: z.int(), uiPort: z.int() });
export type Ports = z.infer<typeof Ports>;

const stateFile = path.join(paths.stack, 'state.json');
const portsFile = path.join(paths.stack, 'ports.json');

function read<T>(file: string, schema: z.ZodType<T>): T | undefined {
  const text = readIfExists(file);
  return text === undefined ? undefined : schema.parse(JSON.parse(text));
}

/** The recorded stack; undefined when none was started or it was stopped in an orderly way. */
export const readState = (): StackState | undefined => read(stateFile, StackState);

export function writeState(state: StackState): void {
  writeAtomically(stateFile, `${JSON.stringify(state, undefined, 2)}\n`);
}

export function removeState(): void {
  rmSync(stateFile, { force: true });
}

/** Ports of the last server: engines and clients that outlive a stack find the next one in its place. */
export const readPorts = (): Ports | undefined => read(portsFile, Ports);

export function writePorts(ports: Ports): void {
  writeAtomically(portsFile, `${JSON.stringify(ports)}\n`);
}
