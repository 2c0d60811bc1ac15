import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';

import { isMap, isNode, isSeq, LineCounter, parseDocument, type Document } from 'yaml';
import type { z } from 'zod';

import { installPlan } from '../activities/ssh/environment.js';
import { ClientError } from '../client/errors.js';
import { ClusterFile, type SshFile } from '../contracts/cluster-file.js';
import { ClusterSpec, type NodeEnvironment, type SshNode } from '../contracts/cluster.js';
import type { InputProblem } from '../contracts/run.js';
import { membersOf, type Complaint } from './members.js';

/** Whether an argument of a command is a cluster file and not the name of a cluster; a folder may be called as one. */
export const isClusterFile = (text: string): boolean =>
  /\.ya?ml$/u.test(text) ||
  text.includes('/') ||
  statSync(text, { throwIfNoEntry: false })?.isFile() === true;

/**
 * Reads a cluster file: checks it and fills in what it leaves out.
 *
 * @throws ClientError `Usage` with all problems at once, each with its line
 */
export function readClusterFile(file: string): ClusterSpec {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new ClientError('Usage', `${file} cannot be read: ${(error as Error).message}`);
  }
  return parseClusterFile(text, path.resolve(file));
}

/** {@link readClusterFile} of a text. Relative paths in it start at the folder of `file`. */
export function parseClusterFile(text: string, file: string): ClusterSpec {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  const lineAt = (offset: number): number => lines.linePos(offset).line;
  if (document.errors.length > 0) {
    const problems = document.errors.map(({ pos, message }) => ({
      line: lineAt(pos[0]),
      code: 'invalid_yaml' as const,
      message: message.split('\n')[0] ?? message,
    }));
    throw refused(file, problems);
  }
  const value: unknown = document.toJS();
  const complaints: Complaint[] = [];
  const { data, error } = ClusterFile.safeParse(value);
  for (const issue of error?.issues ?? []) complaints.push(...complaintsOf(issue));
  const spec = data && specOf(data, path.dirname(file), complaints);
  if (complaints.length > 0 || spec === undefined) {
    const problems = complaints.map(({ path: where, message, key }) => ({
      line: lineAt(offsetOf(document, where, key)),
      code: 'invalid_cluster' as const,
      message: `${nameOf(where)}: ${message}`,
    }));
    throw refused(
      file,
      problems.toSorted((a, b) => a.line - b.line),
    );
  }
  return spec;
}

function refused(file: string, problems: readonly InputProblem[]): ClientError {
  return new ClientError('Usage', `${file} is not a cluster that can be brought up:`, {
    problems,
    wayOut:
      'Correct the lines listed; schemas/cluster.schema.json tells editors what may stand where.',
  });
}

const nameOf = (where: readonly PropertyKey[]): string =>
  where.length === 0 ? 'the file' : where.map(String).join('.');

/** Where a value is in the text: its key, or itself in a list; what is not there is where its parent is. */
function offsetOf(document: Document, where: readonly PropertyKey[], key?: string): number {
  for (let depth = where.length; depth >= 0; depth -= 1) {
    const name = depth < where.length ? where[depth] : key;
    const parent = depth === 0 ? document.contents : document.getIn(where.slice(0, depth), true);
    const found = isMap(parent)
      ? parent.items.find((item) => String(item.key) === String(name))?.key
      : isSeq(parent) && typeof name === 'number' && parent.items[name];
    if (isNode(found) && found.range) return found.range[0];
  }
  return document.contents?.range?.[0] ?? 0;
}

type Issue = z.core.$ZodIssue;

/** What is wrong, each with its place; a union tells what is wrong with the variant that was meant. */
function complaintsOf(issue: Issue, before: readonly PropertyKey[] = []): Complaint[] {
  const where = [...before, ...issue.path];
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({ path: where, key, message: `there is no setting ${key}` }));
  }
  if (issue.code === 'invalid_key') {
    return issue.issues.map(({ message }) => ({ path: where, message }));
  }
  if (issue.code === 'invalid_union' && issue.errors.length > 0) {
    const meant = issue.errors
      .filter(
        (variant) =>
          !variant.some(({ code, path: at }) => code === 'invalid_type' && at.length === 0),
      )
      .toSorted((a, b) => a.length - b.length)[0];
    if (meant !== undefined) return meant.flatMap((inner) => complaintsOf(inner, where));
  }
  if (issue.code === 'invalid_union' && where.at(-1) === 'provider') {
    return [{ path: where, message: 'expected local, ssh or existing' }];
  }
  return [{ path: where, message: issue.message.replace(/^Invalid input: /u, '') }];
}

function specOf(
  file: ClusterFile,
  folder: string,
  complaints: Complaint[],
): ClusterSpec | undefined {
  const { name, ...nodes } = file;
  if (nodes.provider === 'ssh') return sshSpec(file as SshFile, folder, complaints);
  if (nodes.provider === 'existing') {
    const { tokenFile, ...rest } = nodes;
    return {
      name,
      nodes: { ...rest, ...(tokenFile && { tokenFile: resolved(folder, tokenFile) }) },
    };
  }
  return { name, nodes };
}

function sshSpec(file: SshFile, folder: string, complaints: Complaint[]): ClusterSpec | undefined {
  const { parallelism, ...login } = file.ssh;
  const { head, workers, count } = membersOf(file, complaints);
  const ports = { ...file.ports, workers: portRange(file.ports.workers, complaints) };
  checkPorts(ports, complaints);
  const environment = environmentOf(file.environment, folder, complaints);
  if (complaints.length > 0) return undefined;
  const inFolder = (node: SshNode): SshNode =>
    node.ssh ? { ...node, ssh: absolute(node.ssh, folder) } : node;
  const { data, error } = ClusterSpec.safeParse({
    name: file.name,
    nodes: {
      provider: 'ssh',
      head: inFolder(head),
      workers: workers.map(inFolder),
      count,
      ssh: absolute({ knownHosts: 'known_hosts', ...login }, folder),
      parallelism,
      ports,
      environment,
      setup: file.setup.map((command) =>
        typeof command === 'string' ? ['sh', '-c', command] : command,
      ),
      stepTimeoutSeconds: file.setupTimeoutSeconds,
      directory: file.directory,
      tokenAuth: file.tokenAuth,
      gcsStorage: file.gcsStorage,
      idleMinutes: file.idleTimeoutMinutes,
    },
  });
  for (const issue of error?.issues ?? []) {
    const where = issue.path[0] === 'nodes' ? issue.path.slice(1) : issue.path;
    complaints.push({ path: where, message: issue.message });
  }
  return data;
}

/** Paths of the cluster file start at its folder, `~` at the user's. */
const resolved = (folder: string, file: string): string =>
  file.startsWith('~/')
    ? path.join(process.env['HOME'] ?? '', file.slice(2))
    : path.resolve(folder, file);

function absolute(login: SshFile['ssh'], folder: string): SshFile['ssh'] {
  const at = (file: string): string => resolved(folder, file);
  const { identityFile, knownHosts, config, ...rest } = login;
  return {
    ...rest,
    ...(identityFile !== undefined && { identityFile: at(identityFile) }),
    ...(knownHosts !== undefined && { knownHosts: at(knownHosts) }),
    ...(config !== undefined && { config: at(config) }),
  };
}

function portRange(
  text: string | undefined,
  complaints: Complaint[],
): [number, number] | undefined {
  if (text === undefined) return undefined;
  const [first = 0, last = 0] = text.split('-').map(Number);
  // Ray starts a worker process for each CPU and some more.
  if (first < 1024 || last > 65_535 || last - first < 10) {
    complaints.push({
      path: ['ports', 'workers'],
      message: 'expected ten ports or more between 1024 and 65535',
    });
  }
  return [first, last];
}

type Ports = Omit<SshFile['ports'], 'workers'> & {
  readonly workers: [number, number] | undefined;
};

/** Two servers of one host cannot have one port. */
function checkPorts(
  { workers = [10_002, 19_999], ...single }: Ports,
  complaints: Complaint[],
): void {
  const seen = new Map<number, string>();
  for (const [key, port] of Object.entries(single)) {
    if (typeof port !== 'number') continue;
    const other = seen.get(port);
    if (other !== undefined)
      complaints.push({ path: ['ports', key], message: `${port} is the port of ${other}, too` });
    if (port >= workers[0] && port <= workers[1]) {
      complaints.push({
        path: ['ports', key],
        message: `${port} lies among the ports of workers, ${workers.join('-')}`,
      });
    }
    seen.set(port, key);
  }
}

/** The text of a file goes along, as the control worker may be on another machine. */
function environmentOf(
  { requirements, conda, ...rest }: SshFile['environment'],
  folder: string,
  complaints: Complaint[],
): NodeEnvironment {
  const text = (key: string, file: string | undefined): string | undefined => {
    if (file === undefined) return undefined;
    try {
      return readFileSync(resolved(folder, file), 'utf8');
    } catch (error) {
      complaints.push({
        path: ['environment', key],
        message: `cannot be read: ${(error as Error).message}`,
      });
      return undefined;
    }
  };
  const [locked, environmentYml] = [text('requirements', requirements), text('conda', conda)];
  const environment = {
    ...rest,
    ...(locked !== undefined && { requirements: locked }),
    ...(environmentYml !== undefined && { conda: environmentYml }),
  };
  // Where it is going to be: the workflow sends the text, which may be long, only where something is installed.
  return rest.image === undefined
    ? { ...environment, python: installPlan(environment).python }
    : environment;
}
