import { randomBytes } from 'node:crypto';
import path from 'node:path';

import type { z } from 'zod';

import { ClusterSpec } from '../contracts/cluster.js';
import { FleetScaling } from '../contracts/fleet.js';
import { deriveRunId, specHash } from '../contracts/hash.js';
import { InferenceInput } from '../contracts/inference.js';
import type { ModelSpec } from '../contracts/model.js';
import type { RunSpec } from '../contracts/run.js';
import { checkAllowed } from '../roots.js';
import { paths } from '../setup/paths.js';
import { momentOf } from './duration.js';
import { ClientError, describeFailure } from './errors.js';
import { clusterHardware, engineResources, type Hardware } from './hardware.js';
import {
  digestRemote,
  inspectInput,
  type LocalInput,
  type RemoteInput,
  sha256File,
} from './input.js';
import { defaultFleetName, resolveModel } from './model.js';

/** A value that is not checked yet: options come from people and files. */
type Loose<T> = { readonly [K in keyof T]?: unknown };

/** What a user asks for. Everything but the input and the model has a default. */
export interface RunOptions {
  readonly input: Loose<RunSpec['input']> & { readonly uri: string };
  readonly model: Loose<ModelSpec> & { readonly model: string };
  /** Engines of the fleet; default 1. */
  readonly engines?: unknown;
  /** Data-parallel ranks; default as many as engines. */
  readonly ranks?: unknown;
  readonly affinity?: unknown;
  /** Defaults for every request body: `temperature`, `max_tokens`, … */
  readonly sampling?: unknown;
  readonly onInvalid?: unknown;
  readonly batch?: Loose<RunSpec['batch']>;
  /** Root of the store; default the data folder's. */
  readonly store?: string;
  /** Default: this machine, as cluster `local`. */
  readonly cluster?: unknown;
  /** Name of the fleet; default from the model's name and spec. */
  readonly fleet?: string;
  /** Default: derived from the content of the input, the model and the sampling defaults. */
  readonly runId?: string;
  /** Repeat the run on purpose, under a fresh id. */
  readonly fresh?: boolean;
  /** Leave the cluster and the fleet up afterwards. */
  readonly keep?: boolean;
  /** Limits between which the fleet scales by itself. */
  readonly scaling?: unknown;
  /** Seconds for which the fleet stays up when nobody uses it. */
  readonly idleTimeoutSeconds?: unknown;
  /** When the run expires: a length of time from now (`8h`), or a time with its zone. */
  readonly deadline?: string;
  /** Which of the runs that share engines goes first. */
  readonly priority?: unknown;
}

/** A run that is ready to be started. */
export interface PreparedRun {
  readonly inference: InferenceInput;
  /** Hex sha256 of the input's bytes; absent for an input in a bucket of a run that the user named. */
  readonly inputSha256?: string;
  /** Size of the input in bytes; absent like its hash. */
  readonly inputBytes?: number;
  /** Whether the user chose the run id. */
  readonly named: boolean;
  /** The run whose failed rows this one generates. */
  readonly retryOf?: string;
}

/** Names an option in a message: gets the path in {@link InferenceInput}, e.g. `run.model.dtype`. */
export type OptionName = (path: string) => string;

/**
 * Checks what the user asks for and fills in the defaults. Starts nothing; reads the input once, to hash it.
 *
 * @throws ClientError `Usage` with all problems at once, `UnsupportedInput`, or `ClusterUnavailable` when an
 *   existing cluster has to be asked for its GPUs and does not answer
 */
export async function prepareRun(
  options: RunOptions,
  nameOf: OptionName = (name) => name,
  hardwareOf: (nodes: ClusterSpec['nodes']) => Promise<Hardware> = clusterHardware,
): Promise<PreparedRun> {
  const problems: string[] = [];
  const collect = (error: unknown): undefined => {
    problems.push(describeFailure(error).message);
    return undefined;
  };
  const input = await inspectInput(options.input.uri).catch(collect);
  let model = options.model.model;
  try {
    model = resolveModel(model);
  } catch (error) {
    collect(error);
  }
  const candidate = await candidateOf(options, model, hardwareOf);
  candidate.run.input.uri = input?.uri ?? options.input.uri;
  const parsed = InferenceInput.safeParse(candidate);
  problems.push(...(parsed.error?.issues ?? []).map((issue) => explain(issue, nameOf)));
  if (parsed.data !== undefined) problems.push(...contradictions(parsed.data));
  const named = options.runId !== undefined;
  if (problems.length > 0 || parsed.data === undefined || input === undefined)
    throw usage(problems);

  const inference = parsed.data;
  inference.fleet.rowsPerEngine ??= rowsPerEngine(inference.run.model);
  inference.specHash = specHash(inference.run.model);
  inference.fleet.name = options.fleet ?? defaultFleetName(inference.run.model);
  const { sha256: inputSha256, bytes: inputBytes } = await digest(input, named);
  const id = options.runId ?? deriveRunId(inputSha256 ?? '', inference.run);
  inference.run.runId = options.fresh ? `${id}-${randomBytes(3).toString('hex')}` : id;
  return {
    inference,
    named,
    ...(inputSha256 !== undefined && { inputSha256 }),
    ...(inputBytes !== undefined && { inputBytes }),
  };
}

/**
 * Like {@link prepareRun}, for runs whose input and id are known later: both are left as they are.
 *
 * @throws ClientError `Usage` with all problems at once
 */
export async function prepareTemplate(
  options: RunOptions,
  nameOf: OptionName = (name) => name,
  hardwareOf: (nodes: ClusterSpec['nodes']) => Promise<Hardware> = clusterHardware,
): Promise<InferenceInput> {
  const model = resolveModel(options.model.model);
  const candidate = await candidateOf(options, model, hardwareOf);
  candidate.run.input.uri = options.input.uri || 'pattern';
  const { data, error } = InferenceInput.safeParse(candidate);
  const problems = [
    ...(error?.issues ?? []).map((issue) => explain(issue, nameOf)),
    ...(data === undefined ? [] : contradictions(data)),
  ];
  if (data === undefined || problems.length > 0) throw usage(problems);
  data.fleet.rowsPerEngine ??= rowsPerEngine(data.run.model);
  data.specHash = specHash(data.run.model);
  data.fleet.name = options.fleet ?? defaultFleetName(data.run.model);
  return data;
}

/** A run is named by its content, so an input in a bucket is read, too, unless the user named the run. */
async function digest(
  input: LocalInput | RemoteInput,
  named: boolean,
): Promise<{ sha256?: string; bytes?: number }> {
  if (input.kind === 'remote') return named ? {} : digestRemote(input.uri);
  return { sha256: await sha256File(input.uri), bytes: input.bytes };
}

/** The input of the workflow before it is checked; ids that depend on checked values are placeholders. */
async function candidateOf(
  options: RunOptions,
  model: string,
  hardwareOf: (nodes: ClusterSpec['nodes']) => Promise<Hardware>,
) {
  const engines = options.engines ?? 1;
  const cluster = options.cluster ?? { name: 'local', nodes: { provider: 'local' } };
  return {
    run: {
      runId: options.runId ?? 'derived',
      input: { ...options.input },
      store: absoluteStore(options.store ?? paths.store),
      model: {
        ...(await defaultResources(options, engines, cluster, hardwareOf)),
        ...present(options.model),
        model,
      },
      sampling: options.sampling,
      ranks: options.ranks ?? engines,
      onInvalid: options.onInvalid,
      batch: { ...options.batch },
    },
    specHash: 'derived',
    cluster,
    fleet: {
      name: options.fleet ?? 'derived',
      engines: withinLimits(engines, options.scaling),
      scaling: options.scaling,
      idleTimeoutSeconds: options.idleTimeoutSeconds,
    },
    affinity: options.affinity,
    priority: options.priority,
    deadline: options.deadline && momentOf(options.deadline, new Date()),
    // A fleet that is to go by itself is not to be given back before.
    keep: options.keep || options.idleTimeoutSeconds !== undefined,
  };
}

/** A fleet that scales by itself begins within its limits. */
function withinLimits(engines: unknown, scaling: unknown): unknown {
  const { data } = FleetScaling.safeParse(scaling);
  if (data === undefined || typeof engines !== 'number') return engines;
  return Math.min(data.maxEngines, Math.max(1, data.minEngines, engines));
}

/** What the schema does not see: options that do not go together. */
function contradictions({ fleet: { scaling }, affinity, deadline }: InferenceInput): string[] {
  const problems: string[] = [];
  if (scaling !== undefined && scaling.minEngines > scaling.maxEngines) {
    problems.push(
      `the least number of engines (${scaling.minEngines}) is more than the largest (${scaling.maxEngines})`,
    );
  }
  if (scaling !== undefined && affinity === 'rank') {
    problems.push('a fleet that scales by itself has no fixed engine for a rank: affinity rank');
  }
  if (deadline !== undefined && Date.parse(deadline) <= Date.now()) {
    problems.push(`the deadline ${deadline} has passed`);
  }
  return problems;
}

async function defaultResources(
  { model }: RunOptions,
  engines: unknown,
  cluster: unknown,
  hardwareOf: (nodes: ClusterSpec['nodes']) => Promise<Hardware>,
): Promise<Partial<ReturnType<typeof engineResources>>> {
  const { data: spec } = ClusterSpec.safeParse(cluster);
  const given = model.gpusPerEngine !== undefined && model.cpusPerEngine !== undefined;
  if (spec === undefined || given || model.backend === 'simulated') return {};
  const gpusPerReplica = count(model.tensorParallelSize) * count(model.pipelineParallelSize);
  const nodes = nodeCount(spec.nodes);
  const shares = Math.max(count(engines), nodes);
  return engineResources(await hardwareOf(spec.nodes), shares, gpusPerReplica);
}

/** What vLLM decodes at once unless it is told: on large GPUs, and elsewhere. */
const SEQUENCES = { gpu: 1024, cpu: 256 };

/** Rows that engines admit for each that they decode at once: more where rows begin in groups. */
const ROWS_PER_SEQUENCE = { gpu: 2.5, cpu: 1.5 };

/** Rows that one engine has in work at once. */
function rowsPerEngine({ maxNumSeqs, gpusPerEngine, backend }: ModelSpec): number | undefined {
  if (backend === 'simulated' && maxNumSeqs === undefined) return undefined;
  const on = gpusPerEngine > 0 ? 'gpu' : 'cpu';
  return Math.ceil(ROWS_PER_SEQUENCE[on] * (maxNumSeqs ?? SEQUENCES[on]));
}

/** Nodes that share what there is; 0 where nobody knows. */
function nodeCount(nodes: ClusterSpec['nodes']): number {
  if (nodes.provider === 'existing') return 0;
  return nodes.provider === 'local' ? nodes.workers : nodes.count;
}

const count = (value: unknown): number =>
  typeof value === 'number' && Number.isInteger(value) && value > 0 ? value : 1;

/** Leaves out what is undefined, so that it does not hide a default. */
function present<T extends object>(values: T): Partial<T> {
  const entries = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as Partial<T>;
}

/** @throws PathRefused */
function absoluteStore(store: string): string {
  const absolute = store.includes('://') ? store.replace(/^file:\/\//u, '') : path.resolve(store);
  checkAllowed(absolute);
  return absolute;
}

function explain(issue: z.core.$ZodIssue, nameOf: OptionName): string {
  return `${nameOf(issue.path.join('.'))}: ${issue.message}`;
}

function usage(problems: readonly string[]): ClientError {
  return new ClientError('Usage', problems.join('\n'));
}
