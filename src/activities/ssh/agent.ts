import { readFileSync } from 'node:fs';
import path from 'node:path';

import { z } from 'zod';

import { HostError, NOT_FOUND, type Host, type RunOptions } from '../../hosts/host.js';
import { paths } from '../../setup/paths.js';

/** What the agent on a node answers; see `python-activities/rankflow/node/agent.py`. */
export const CheckAnswer = z.object({ problems: z.array(z.string()), address: z.string() });
export const StatusAnswer = z.object({
  running: z.boolean(),
  /** Told when it was asked with the node's marker: processes of a node that runs no more. */
  left: z.boolean().optional(),
  ageSeconds: z.number(),
  /** By the clock of the host. */
  startedAtMs: z.number().optional(),
  address: z.string().optional(),
  gcs: z.int().optional(),
  dashboard: z.int().optional(),
  tail: z.string().optional(),
});
export type StatusAnswer = z.infer<typeof StatusAnswer>;
export const StartAnswer = z.object({ pid: z.int(), startedAtMs: z.number() });
export const TailAnswer = z.object({ tail: z.string() });

/** The agent did not run, for want of a Python that can: so nothing is known, and nothing was changed. */
export class NoAgent extends HostError {}

type Command = 'check' | 'start' | 'status' | 'end' | 'logs';

/**
 * Runs the agent on a host. It comes on standard input together with what it is told, so nothing of that shows in a
 * list of processes, and the version is always that of this worker.
 *
 * @param python of the node, maybe `~/…`
 * @throws HostError `HostRefused` with what the agent says, as {@link NoAgent} when no Python runs it
 */
export async function callAgent<T extends z.ZodType>(
  host: Host,
  python: string,
  command: Command,
  given: object,
  answer: T,
  options: Pick<RunOptions, 'timeoutMs' | 'signal'> = {},
): Promise<z.infer<T>> {
  const source = readFileSync(path.join(paths.pythonProject, 'rankflow/node/agent.py'), 'utf8');
  // JSON of JSON is a Python literal, too.
  const call = `main(${JSON.stringify(command)}, json.loads(${JSON.stringify(JSON.stringify(given))}))`;
  const { exitCode, stdout, stderr } = await host.run(pythonCommand(python), {
    ...options,
    input: `${source}\n\n${call}\n`,
  });
  if (exitCode === NOT_FOUND || exitCode === NOT_EXECUTABLE) {
    throw new NoAgent(
      'HostRefused',
      host.name,
      `there is no Python at ${python}`,
      'Install it there, or name another one in environment.python of the cluster file.',
    );
  }
  const line = stdout.trim().split('\n').at(-1) ?? '';
  if (exitCode !== 0 || !line.startsWith('{')) {
    const said = (stderr.trim() || stdout.trim()).split('\n').slice(-3).join('; ');
    const message = `${python} cannot run the node's agent (exit code ${exitCode}): ${said}`;
    // The agent itself tells its errors in its answer; one that was killed may have done a part.
    if (exitCode === PYTHON_FAILED) throw new NoAgent('HostRefused', host.name, message, MEND);
    throw refused(host, message);
  }
  const value = JSON.parse(line) as { readonly refused?: string };
  if (value.refused !== undefined) throw refused(host, value.refused);
  return answer.parse(value);
}

/** Exit codes of a shell for a file that is no program, and of `timeout` and `env` for one that is not there. */
const NOT_EXECUTABLE = 126;

/** Exit code of a Python that does not understand the agent, or has no standard library. */
const PYTHON_FAILED = 1;

/** `~` is the home of the user over there, which only a shell of that host knows. */
const pythonCommand = (python: string): string[] =>
  python.startsWith('~/')
    ? ['sh', '-c', 'exec "$HOME/$1" -', 'sh', python.slice(2)]
    : [python, '-'];

const MEND = 'Mend on that host what the message names.';
const refused = (host: Host, message: string): HostError =>
  new HostError('HostRefused', host.name, message, MEND);
