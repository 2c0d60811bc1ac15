import { createHash, randomBytes } from 'node:crypto';
import path from 'node:path';

import { canonicalJson } from '../contracts/hash.js';
import { JOB_ID, JobSpec } from '../contracts/job.js';
import { checkAllowed } from '../roots.js';
import { paths } from '../setup/paths.js';
import { ClientError } from './errors.js';
import type { OptionName } from './inference.js';
import { inspectWorkingDirectory, storePackage } from './job-package.js';
import { readRuntimeEnv, variableProblems } from './runtime-env.js';

/** What a user asks for. Everything but the entrypoint has a default. */
export interface JobOptions {
  /** One text is a shell command as it is; several are words of one. */
  readonly entrypoint: readonly string[];
  /** Default: derived from what is run. */
  readonly name?: string | undefined;
  readonly workingDir?: string | undefined;
  readonly excludes?: readonly string[] | undefined;
  /** File with a runtime environment, YAML or JSON. */
  readonly runtimeEnv?: string | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** `NAME` or `NAME=FILE`. */
  readonly secrets?: readonly string[] | undefined;
  readonly resources?: Readonly<Record<string, unknown>> | undefined;
  readonly timeoutSeconds?: unknown;
  readonly retries?: unknown;
  readonly restarts?: unknown;
  readonly stopGraceSeconds?: unknown;
  readonly store?: string | undefined;
  readonly cluster?: unknown;
  readonly keep?: boolean | undefined;
  /** Start it anew under a fresh id. */
  readonly fresh?: boolean | undefined;
}

/** A job that is ready to be started; its package is in the store. */
export interface PreparedJob {
  readonly spec: JobSpec;
  /** Hex sha256 of all that decides what is run. */
  readonly parameters: string;
}

/**
 * Checks what the user asks for, fills in the defaults and puts the working directory into the store.
 *
 * @throws ClientError `Usage` with all problems at once
 */
export async function prepareJob(
  options: JobOptions,
  nameOf: OptionName = (name) => name,
): Promise<PreparedJob> {
  const problems: string[] = [];
  const collected = async <T>(work: Promise<T>): Promise<T | undefined> => {
    try {
      return await work;
    } catch (error) {
      if (!(error instanceof ClientError)) throw error;
      problems.push(error.message);
      if (error.wayOut !== undefined) wayOut = error.wayOut;
      return undefined;
    }
  };
  let wayOut: string | undefined;
  const runtimeEnv =
    options.runtimeEnv === undefined
      ? undefined
      : await collected(readRuntimeEnv(options.runtimeEnv));
  const workingDir = options.workingDir ?? runtimeEnv?.workingDir;
  if (options.workingDir !== undefined && runtimeEnv?.value['working_dir'] !== undefined) {
    problems.push('--working-dir: the runtime environment has a working_dir, too');
  }
  const directory =
    workingDir === undefined
      ? undefined
      : await collected(
          inspectWorkingDirectory(path.resolve(workingDir), [
            ...(options.excludes ?? []),
            ...(runtimeEnv?.excludes ?? []),
          ]),
        );
  problems.push(...variableProblems(options.env).map((line) => `--env: ${line}`));
  const store = storeOf(options.store);
  if (store === undefined) problems.push('--store: jobs need a folder, and no bucket');
  else checkAllowed(store);
  const secrets = (options.secrets ?? []).map(secretOf);
  const parsed = JobSpec.safeParse({
    jobId: options.name ?? 'derived',
    entrypoint: shellCommand(options.entrypoint),
    store: store ?? paths.store,
    cluster: options.cluster ?? { name: 'local', nodes: { provider: 'local' } },
    keep: options.keep,
    runtimeEnv: runtimeEnv?.value,
    env: options.env,
    secrets,
    resources: options.resources,
    timeoutSeconds: options.timeoutSeconds,
    retries: options.retries,
    restarts: options.restarts,
    stopGraceSeconds: options.stopGraceSeconds,
  });
  for (const { path: at, message } of parsed.error?.issues ?? []) {
    problems.push(`${nameOf(at.join('.'))}: ${message}`);
  }
  if (problems.length > 0 || parsed.data === undefined) {
    throw new ClientError('Usage', problems.join('\n'), {
      ...(wayOut !== undefined && { wayOut }),
    });
  }
  const spec = parsed.data;
  const parameters = parametersOf(spec, directory?.sha256);
  const id = options.name ?? `job-${parameters.slice(0, 12)}`;
  spec.jobId = options.fresh ? `${id.slice(0, 40)}-${randomBytes(3).toString('hex')}` : id;
  if (directory !== undefined) spec.package = await storePackage(spec, directory);
  return { spec, parameters };
}

/** The same script with the same environment is the same job, wherever and how often it is run. */
function parametersOf(spec: JobSpec, workingDir: string | undefined): string {
  const { entrypoint, runtimeEnv, env, secrets, resources } = spec;
  const identity = { entrypoint, runtimeEnv, env, secrets, resources, workingDir };
  return createHash('sha256').update(canonicalJson(identity)).digest('hex');
}

/** Attempts append to logs and write checkpoints: that takes a folder. */
function storeOf(store: string | undefined): string | undefined {
  const root = (store ?? paths.store).replace(/^file:\/\//u, '');
  return root.includes('://') ? undefined : path.resolve(root);
}

function secretOf(text: string): { name: string; file?: string } {
  const at = text.indexOf('=');
  if (at < 0) return { name: text };
  return { name: text.slice(0, at), file: text.slice(at + 1) };
}

/** Words as a shell reads them back; a single one is a command as it is. */
export function shellCommand(words: readonly string[]): string {
  if (words.length <= 1) return words[0] ?? '';
  return words
    .map((word) =>
      /^[\w@%+=:,./-]+$/u.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`,
    )
    .join(' ');
}

/** Accepts a job id in any of the forms that Rankflow shows: `id`, `job/id`. */
export function jobIdOf(text: string): string {
  const id = text.replace(/^job\//u, '');
  if (!JOB_ID.test(id)) throw new ClientError('Usage', `${text} is no id of a job.`);
  return id;
}
