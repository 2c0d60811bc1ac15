import { homedir } from 'node:os';
import path from 'node:path';

import { type Command, InvalidArgumentError } from 'commander';

import { secondsOf } from '../client/duration.js';
import type { RunOptions } from '../client/inference.js';
import { collect } from './collect.js';

/** Flags of `run`, `submit` and `validate`, as commander hands them over: numbers are not checked yet. */
export interface RunFlags {
  readonly model: string;
  readonly tokenizer?: string;
  readonly revision?: string;
  readonly dtype?: string;
  readonly maxModelLen?: unknown;
  readonly tensorParallelSize?: unknown;
  readonly pipelineParallelSize?: unknown;
  readonly maxNumSeqs?: unknown;
  readonly cpusPerEngine?: unknown;
  readonly gpusPerEngine?: unknown;
  readonly toolCallParser?: string;
  readonly reasoningParser?: string;
  readonly engineArg?: Readonly<Record<string, unknown>>;
  readonly hfTokenEnv?: string;
  readonly hfTokenFile?: string;
  readonly cacheDir?: string;
  readonly endpoint?: string;
  readonly backend?: string;
  readonly engines?: unknown;
  readonly ranks?: unknown;
  readonly affinity?: string;
  readonly nodes?: unknown;
  readonly cpusPerNode?: unknown;
  readonly gcsStorage?: string;
  readonly cluster: string;
  readonly fleet?: string;
  readonly address?: string;
  readonly dashboardUrl?: string;
  readonly rayTokenFile?: string;
  readonly store?: string;
  readonly inputFormat?: string;
  readonly promptColumn?: string;
  readonly template?: string;
  readonly temperature?: unknown;
  readonly topP?: unknown;
  readonly maxTokens?: unknown;
  readonly seed?: unknown;
  readonly stop?: readonly string[];
  readonly sampling?: Readonly<Record<string, unknown>>;
  readonly onInvalid?: string;
  readonly limit?: unknown;
  readonly batchRows?: unknown;
  readonly batchTokens?: unknown;
  readonly runId?: string;
  readonly new?: boolean;
  readonly keep?: boolean;
  readonly minEngines?: unknown;
  readonly maxEngines?: unknown;
  readonly scaleDownAfter?: unknown;
  readonly idleTimeout?: unknown;
  readonly deadline?: string;
  readonly priority?: unknown;
  readonly weight?: unknown;
}

/** A number, or the text as it was typed: the schema names every option that is wrong, not just the first. */
export const numeric = (text: string): unknown => {
  const value = Number(text);
  return text.trim() === '' || Number.isNaN(value) ? text : value;
};

/** Seconds of `15m`, or the text as it was typed. */
export const duration = (text: string): unknown => secondsOf(text) ?? text;

/** Workers and engines read files in folders of their own. Shells leave the `~` of `--option=~/file` as it is. */
const absolute = (file: string | undefined): string | undefined =>
  file && path.resolve(file.replace(/^~(?=\/)/u, homedir()));

/** `max-num-seqs=8` → `{max_num_seqs: 8}`; a value that is not JSON is text. */
export function keyValue(
  text: string,
  earlier: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('Expected key=value.');
  const value = text.slice(at + 1);
  const key = text.slice(0, at).replaceAll('-', '_');
  return { ...earlier, [key]: jsonOr(value, value) };
}

export function jsonObject(text: string): Record<string, unknown> {
  const value = jsonOr(text, undefined);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new InvalidArgumentError('Expected a JSON object.');
  }
  return value as Record<string, unknown>;
}

function jsonOr(text: string, otherwise: unknown): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return otherwise;
  }
}

/** What `--model` takes. */
export const MODEL_HELP = 'model folder, name of an installed model, or hub name';

/** Options of the model and its engines. */
export function addModelOptions(command: Command): Command {
  return addEngineOptions(command.requiredOption('--model <model>', MODEL_HELP));
}

/** Options of the engines, whatever the model. */
export function addEngineOptions(command: Command): Command {
  return command
    .option('--tokenizer <name>', 'tokenizer, when it is not the own one of the model')
    .option('--revision <revision>', 'hub revision: branch, tag or commit')
    .option(
      '--dtype <dtype>',
      'auto (what the weights are in; float32 on x86 without AVX-512), bfloat16, float16 or float32',
    )
    .option('--max-model-len <tokens>', 'context length', numeric)
    .option('--tensor-parallel-size <n>', 'GPUs that share each layer', numeric)
    .option('--pipeline-parallel-size <n>', 'stages of layers', numeric)
    .option('--max-num-seqs <n>', 'sequences that one engine decodes at once', numeric)
    .option('--cpus-per-engine <n>', 'default: the cores, shared out evenly', numeric)
    .option('--gpus-per-engine <n>', 'fractions share one GPU', numeric)
    .option('--tool-call-parser <name>', 'vLLM tool call parser')
    .option('--reasoning-parser <name>', 'vLLM reasoning parser')
    .option('--engine-arg <k=v>', 'another vLLM engine argument; repeat it for more', keyValue)
    .option('--hf-token-env <name>', 'environment variable on the nodes that holds the hub token')
    .option('--hf-token-file <file>', 'file on the nodes that holds the hub token')
    .option('--cache-dir <dir>', 'folder on the nodes that keeps downloads')
    .option('--endpoint <url>', 'hub endpoint to load from')
    .option('--backend <name>', 'vllm, or simulated: made-up answers, for tests of scale');
}

/** Options of how an input is read and where its run is kept. */
export function addInputOptions(command: Command): Command {
  return command
    .option('--store <root>', 'folder or s3://bucket/prefix that holds plans and results')
    .option('--input-format <format>', 'auto, openai, jsonl, csv or parquet')
    .option('--prompt-column <name>', 'column that holds the prompt')
    .option('--template <text>', 'prompt with {column} placeholders')
    .option('--limit <n>', 'only the first requests', numeric);
}

/** Options of the input, the sampling defaults and the cut into batches. */
export function addRequestOptions(command: Command): Command {
  return addGenerationOptions(addInputOptions(command))
    .option('--deadline <when>', 'expire after 8h, or at 2026-01-31T06:00Z; what is done is kept')
    .option('--run-id <id>', 'default: derived from input, model and sampling')
    .option('--new', 'repeat the run under a fresh id');
}

/** Options of how requests are generated, whatever the input. */
export function addGenerationOptions(command: Command): Command {
  return command
    .option('--temperature <n>', 'default for requests that do not set it', numeric)
    .option('--top-p <n>', 'default for requests that do not set it', numeric)
    .option('--max-tokens <n>', 'default for requests that do not set it', numeric)
    .option('--seed <n>', 'default for requests that do not set it', numeric)
    .option('--stop <text>', 'stop sequence; repeat it for more', collect)
    .option('--sampling <json>', 'more defaults for every request body', jsonObject)
    .option('--on-invalid <what>', 'refuse the input, or record invalid lines as errors')
    .option('--batch-rows <n>', 'most rows of a batch', numeric)
    .option('--batch-tokens <n>', 'most tokens of a batch', numeric)
    .option('--ranks <n>', 'data-parallel ranks (default: as many as engines)', numeric);
}

/** Options of where the run is generated. */
export function addPlacementOptions(command: Command): Command {
  return command
    .option('--engines <n>', 'engines to keep up', numeric, 1)
    .option('--affinity <rule>', 'pull: any engine with room; rank: a rank stays with its engine')
    .option('--nodes <n>', 'local worker nodes (default: engines run on the head)', numeric)
    .option('--gcs-storage <kind>', 'memory, or rocksdb: local engines outlive a lost head')
    .option('--cluster <name>', 'name of the cluster', 'local')
    .option('--fleet <name>', 'name of the fleet (default: from the model)')
    .option('--address <host:port>', 'existing Ray cluster: its GCS')
    .option('--dashboard-url <url>', 'existing Ray cluster: its dashboard')
    .option('--ray-token-file <file>', 'existing Ray cluster: its token')
    .option('--keep', 'leave the cluster and the engines up afterwards')
    .option('--min-engines <n>', 'let the fleet scale by itself: never fewer', numeric)
    .option('--max-engines <n>', 'let the fleet scale by itself: never more', numeric)
    .option('--scale-down-after <time>', 'how long fewer have to suffice (default: 2m)', duration)
    .option('--idle-timeout <time>', 'keep the engines up until unused for so long', duration)
    .option('--priority <n>', '1 (first) to 5, among runs that share engines (default: 3)', numeric)
    .option('--weight <n>', 'share of the engines among runs of one priority', numeric);
}

/** The cluster that flags describe: local, unless an address or a dashboard is given. */
export function clusterOf(
  flags: Pick<
    RunFlags,
    'cluster' | 'nodes' | 'cpusPerNode' | 'gcsStorage' | 'address' | 'dashboardUrl' | 'rayTokenFile'
  >,
): unknown {
  const { cluster: name, address, dashboardUrl } = flags;
  const tokenFile = absolute(flags.rayTokenFile);
  if (address === undefined && dashboardUrl === undefined && tokenFile === undefined) {
    const { nodes: workers, cpusPerNode, gcsStorage } = flags;
    return { name, nodes: { provider: 'local', workers, cpusPerNode, gcsStorage } };
  }
  return { name, nodes: { provider: 'existing', address, dashboardUrl, tokenFile } };
}

/** What the user asks for, from a file name and flags. Nothing is checked here. */
export function toRunOptions(file: string, flags: RunFlags): RunOptions {
  const { engineArg, hfTokenEnv, hfTokenFile, store, fleet, runId, keep } = flags;
  return {
    input: {
      uri: file,
      format: flags.inputFormat,
      promptColumn: flags.promptColumn,
      template: flags.template,
      limit: flags.limit,
    },
    model: {
      model: flags.model,
      tokenizer: flags.tokenizer,
      revision: flags.revision,
      dtype: flags.dtype,
      maxModelLen: flags.maxModelLen,
      tensorParallelSize: flags.tensorParallelSize,
      pipelineParallelSize: flags.pipelineParallelSize,
      maxNumSeqs: flags.maxNumSeqs,
      cpusPerEngine: flags.cpusPerEngine,
      gpusPerEngine: flags.gpusPerEngine,
      toolCallParser: flags.toolCallParser,
      reasoningParser: flags.reasoningParser,
      engineArgs: engineArg,
      credentials:
        hfTokenEnv === undefined && hfTokenFile === undefined
          ? undefined
          : { env: hfTokenEnv, file: absolute(hfTokenFile) },
      cacheDir: absolute(flags.cacheDir),
      endpoint: flags.endpoint,
      backend: flags.backend,
    },
    engines: flags.engines,
    ranks: flags.ranks,
    affinity: flags.affinity,
    sampling: samplingOf(flags),
    onInvalid: flags.onInvalid,
    batch: { maxRows: flags.batchRows, maxTokens: flags.batchTokens },
    cluster: clusterOf(flags),
    fresh: flags.new ?? false,
    keep: keep ?? false,
    scaling: scalingOf(flags),
    idleTimeoutSeconds: flags.idleTimeout,
    priority:
      flags.priority === undefined && flags.weight === undefined
        ? undefined
        : { key: flags.priority, weight: flags.weight },
    ...(flags.deadline !== undefined && { deadline: flags.deadline }),
    ...(store !== undefined && { store }),
    ...(fleet !== undefined && { fleet }),
    ...(runId !== undefined && { runId }),
  };
}

/** Absent unless one of the limits is given; a fleet that may be small is one engine at most by default. */
export function scalingOf(
  flags: Pick<RunFlags, 'minEngines' | 'maxEngines' | 'scaleDownAfter' | 'engines'>,
): unknown {
  const { minEngines, maxEngines, scaleDownAfter: idleSeconds, engines } = flags;
  if (minEngines === undefined && maxEngines === undefined) return undefined;
  return { minEngines: minEngines ?? 1, maxEngines: maxEngines ?? engines, idleSeconds };
}

function samplingOf(flags: RunFlags): Record<string, unknown> {
  const named = {
    temperature: flags.temperature,
    top_p: flags.topP,
    max_tokens: flags.maxTokens,
    seed: flags.seed,
    stop: flags.stop,
  };
  const given = Object.entries(named).filter(([, value]) => value !== undefined);
  return { ...flags.sampling, ...Object.fromEntries(given) };
}

const SPECIAL_NAMES: Readonly<Record<string, string>> = {
  'run.input.uri': 'FILE',
  'run.input.format': '--input-format',
  'run.model.engineArgs': '--engine-arg',
  'run.model.credentials.env': '--hf-token-env',
  'run.model.credentials.file': '--hf-token-file',
  'run.batch.maxRows': '--batch-rows',
  'run.batch.maxTokens': '--batch-tokens',
  'fleet.name': '--fleet',
  'fleet.scaling.idleSeconds': '--scale-down-after',
  'fleet.idleTimeoutSeconds': '--idle-timeout',
  'priority.key': '--priority',
  'cluster.name': '--cluster',
  'cluster.nodes.workers': '--nodes',
  'cluster.nodes.tokenFile': '--ray-token-file',
};

/** The flag that sets a field of the workflow's input: `run.model.maxModelLen` → `--max-model-len`. */
export function flagOf(path: string): string {
  const last = path.split('.').at(-1) ?? path;
  const kebab = last.replaceAll(/[A-Z]/gu, (letter) => `-${letter.toLowerCase()}`);
  return SPECIAL_NAMES[path] ?? `--${kebab}`;
}
