import { readFile } from 'node:fs/promises';
import path from 'node:path';

import { parse } from 'yaml';

import { RESERVED_VARIABLES } from '../workflows/job-plan.js';
import { ClientError } from './errors.js';

/** What Ray's runtime environments have (2.60), without what only its own client can use. */
const KNOWN = new Set([
  'working_dir',
  'excludes',
  'py_modules',
  'py_executable',
  'pip',
  'uv',
  'conda',
  'env_vars',
  'image_uri',
  'nsight',
  'worker_process_setup_hook',
  'config',
]);

/** A runtime environment, read and checked. */
export interface RuntimeEnv {
  /** As Ray's job API takes it: no file of this machine is left in it. */
  readonly value: Record<string, unknown>;
  /** Folder of this machine, absolute. */
  readonly workingDir?: string;
  readonly excludes: readonly string[];
}

/**
 * Reads a runtime environment (YAML or JSON). Files that it names (requirements, a conda environment) are read,
 * relative to it.
 *
 * @throws ClientError `Usage` with all problems at once
 */
export async function readRuntimeEnv(file: string): Promise<RuntimeEnv> {
  const folder = path.dirname(path.resolve(file));
  const problems: string[] = [];
  const value = await readDocument(file);
  for (const key of Object.keys(value)) {
    if (!KNOWN.has(key)) problems.push(`${key} is no field of a runtime environment`);
  }
  const { working_dir: workingDir, excludes, ...rest } = value;
  const result: Record<string, unknown> = { ...rest };
  try {
    for (const tool of ['pip', 'uv']) {
      if (typeof rest[tool] === 'string') {
        result[tool] = await requirements(path.resolve(folder, rest[tool]));
      }
    }
    if (typeof rest['conda'] === 'string' && /\.ya?ml$/u.test(rest['conda'])) {
      result['conda'] = await readDocument(path.resolve(folder, rest['conda']));
    }
  } catch (error) {
    problems.push(error instanceof Error ? error.message : String(error));
  }
  for (const module of Array.isArray(rest['py_modules']) ? rest['py_modules'] : []) {
    if (typeof module !== 'string' || !isUri(module)) {
      problems.push('py_modules can name addresses only: put local modules into --working-dir');
    }
  }
  problems.push(...variableProblems(rest['env_vars']));
  if (excludes !== undefined && !isTexts(excludes)) problems.push('excludes is no list of texts');
  if (workingDir !== undefined && typeof workingDir !== 'string') {
    problems.push('working_dir is no text');
  }
  if (problems.length > 0) {
    throw new ClientError('Usage', problems.map((line) => `--runtime-env: ${line}`).join('\n'));
  }
  const directory = workingDir as string | undefined;
  const remote = directory !== undefined && isUri(directory);
  return {
    value: { ...result, ...(remote && { working_dir: directory }) },
    excludes: (excludes as string[] | undefined) ?? [],
    ...(directory !== undefined && !remote && { workingDir: path.resolve(folder, directory) }),
  };
}

const isUri = (text: string): boolean => /^[a-z][a-z0-9+.-]*:\/\//u.test(text);
const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((one) => typeof one === 'string');

async function readDocument(file: string): Promise<Record<string, unknown>> {
  let value: unknown;
  try {
    value = parse(await readFile(file, 'utf8'));
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new ClientError('Usage', `${file} cannot be read: ${message}`, { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ClientError('Usage', `${file} is no mapping of fields.`);
  }
  return value as Record<string, unknown>;
}

async function requirements(file: string): Promise<string[]> {
  const lines = (await readFile(file, 'utf8')).split('\n');
  return lines.map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('#'));
}

/** How names of variables with secrets end. */
const SECRET = /(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIALS?)$/iu;

/**
 * What is wrong with environment variables: Ray and Temporal show them to everybody who may look, so no secret may
 * be among them.
 */
export function variableProblems(variables: unknown): string[] {
  if (variables === undefined) return [];
  if (typeof variables !== 'object' || variables === null || Array.isArray(variables)) {
    return ['env_vars is no mapping of names to texts'];
  }
  return Object.entries(variables).flatMap(([name, value]) => {
    if (typeof value !== 'string') return [`the value of ${name} is no text: quote it`];
    if ((RESERVED_VARIABLES as readonly string[]).includes(name)) {
      return [`${name} is set by Rankflow`];
    }
    if (SECRET.test(name)) {
      return [
        `${name} looks like a secret, which everybody with Ray's or Temporal's web interface would read: use --secret ${name} (the nodes have it in their environment) or --secret ${name}=FILE (a file on the nodes)`,
      ];
    }
    return [];
  });
}
