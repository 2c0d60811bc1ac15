import { readFile } from 'node:fs/promises';
import path from 'node:path';

import type { Command } from 'commander';

import { ClientError, describeFailure } from '../client/errors.js';
import { prepareRun } from '../client/inference.js';
import type { ClusterSpec } from '../contracts/cluster.js';
import type { ModelOptions } from '../server/runs.js';
import { paths } from '../setup/paths.js';
import { say } from './output.js';
import type { NodeFlags } from './prepare.js';
import { flagOf, type RunFlags, toRunOptions } from './run-options.js';

type Flags = Omit<RunFlags, 'model'> & {
  readonly model?: readonly string[];
  readonly models?: string;
};

/**
 * The models of the flags `--model` and `--models`, by the id that requests name them by: a model's name as it is
 * given, or the last part of a path.
 *
 * @param command of the flags: what it knows may be set for each model
 * @throws ClientError `Usage`
 */
export async function readModels(
  flags: Flags,
  command: Command,
): Promise<Map<string, ModelOptions>> {
  const { model = [], models, ...shared } = flags;
  const own = models === undefined ? {} : await readOwnOptions(models, command);
  const names = [...new Set([...model, ...Object.keys(own)])];
  if (names.length === 0) throw new ClientError('Usage', 'Name at least one model with --model.');
  if (names.length > 1 && flags.fleet !== undefined) {
    throw new ClientError('Usage', '--fleet: a fleet serves one model; leave it out for several.');
  }
  const served = new Map<string, ModelOptions>();
  for (const name of names) {
    const id = /^(?:\.{0,2}\/|~)/u.test(name) ? path.basename(name) : name;
    if (served.has(id)) throw new ClientError('Usage', `Two models would be named ${id}.`);
    const ofThis: RunFlags = { ...SERVER_DEFAULTS, ...defined(shared), ...own[name], model: name };
    const { input: _input, ...options } = toRunOptions('', ofThis);
    served.set(id, options);
  }
  return served;
}

/**
 * What differs from `rankflow run`: engines stay up between batches, and a request that vLLM refuses is an error
 * line and does not fail its batch, as with OpenAI.
 */
const SERVER_DEFAULTS = { keep: true, onInvalid: 'record' };

const defined = <T extends object>(values: T): T =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as T;

async function readOwnOptions(
  file: string,
  command: Command,
): Promise<Record<string, Partial<RunFlags>>> {
  const own = await readObject(file);
  const known = new Set(command.options.map((option) => option.attributeName()));
  const problems = Object.entries(own).flatMap(([name, options]) => {
    if (!isObject(options)) return [`${name}: expected an object of options`];
    return Object.keys(options)
      .filter((option) => !known.has(option) || SERVER_ONLY.has(option))
      .map((option) => `${name}: ${option} is no option of a model`);
  });
  if (problems.length > 0) throw new ClientError('Usage', problems.join('\n'));
  return own as Record<string, Partial<RunFlags>>;
}

const SERVER_ONLY: ReadonlySet<string> = new Set([
  ...['model', 'models', 'host', 'port', 'store', 'start'],
  ...['maxFileMb', 'maxRows', 'maxStoredMb', 'rateLimit', 'windowHours'],
]);

async function readObject(file: string): Promise<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(await readFile(file, 'utf8'));
    if (isObject(value)) return value;
  } catch (error) {
    throw new ClientError('Usage', `--models: ${(error as Error).message}`, { cause: error });
  }
  throw new ClientError('Usage', `--models: ${file} is not a JSON object of models.`);
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * What the options of a model say about the nodes of its cluster. A prepared run does not tell any more: what they
 * leave out has defaults there.
 */
export function nodeFlagsOf({ cluster }: ModelOptions): NodeFlags {
  const { nodes } = cluster as { readonly nodes: NodeFlags & { readonly workers?: unknown } };
  return { ...nodes, nodes: nodes.workers };
}

/**
 * Checks the options of every model before anything is started, as a run would, so that no batch fails for them.
 *
 * @returns the cluster of each model; none where it does not answer now
 * @throws ClientError `Usage` with all problems at once
 */
export async function checkModels(
  served: ReadonlyMap<string, ModelOptions>,
): Promise<Map<string, ClusterSpec>> {
  const clusters = new Map<string, ClusterSpec>();
  const problems: string[] = [];
  for (const [id, options] of served) {
    try {
      // Options are checked together with an input. Any file will do: it is not read as requests here.
      const uri = path.join(paths.packageRoot, 'package.json');
      const { inference } = await prepareRun({ ...options, input: { uri } }, flagOf);
      clusters.set(id, inference.cluster);
      if (inference.run.model.backend === 'simulated') {
        say(`${id}: the simulated backend makes its answers up: they are good for tests only.`);
      }
    } catch (error) {
      const { type, message } = describeFailure(error);
      // A cluster that does not answer now may do so when a batch comes.
      if (type === 'ClusterUnavailable') say(`${id}: ${message}`);
      else problems.push(...message.split('\n').map((line) => `${id}: ${line}`));
    }
  }
  if (problems.length > 0) throw new ClientError('Usage', problems.join('\n'));
  return clusters;
}
