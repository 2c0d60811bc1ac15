import { readFileSync } from 'node:fs';
import path from 'node:path';

import { paths } from '../setup/paths.js';
import type { HostFacts, HostRole } from './alike/facts.js';
import { HostError, type Host } from './host.js';
import { ProbeError, takeFingerprint, type PythonOnHost } from './probe.js';

/** One host that is looked at. */
export interface InspectedHost {
  readonly host: Host;
  readonly role: HostRole;
  /** Whether engines may be placed there. */
  readonly engines: boolean;
  /** Where the other nodes reach it; default the address that ssh comes to. */
  readonly address?: string | undefined;
  /** Its environment's Python: a path, or a command such as `docker run --rm -i --network host IMAGE python`. */
  readonly python: readonly string[];
  /** What a node there gets, such as PYTHONPATH. */
  readonly env?: Readonly<Record<string, string>>;
  /** The environment is made when the cluster is brought up: it is no fault that it is missing. */
  readonly environmentLater?: boolean;
  /** Bytes that it takes then at least, in the folder `environments`. */
  readonly environmentRoom?: number;
  /** A node runs in this image, so its environment is the same everywhere. */
  readonly image?: string | undefined;
  /** Rankflow's Python files are copied when the node is made. */
  readonly packageLater?: boolean;
  /** Folders of a node, by what they are for: how much room is there. */
  readonly folders: Readonly<Record<string, string>>;
}

/** What was learnt of a host, and the Python that can be asked more. */
export interface Answer {
  readonly facts: HostFacts;
  readonly python?: PythonOnHost;
  /** That Python is the one of the environment. */
  readonly environment: boolean;
}
/** A host that can be asked more. */
export type Able = Answer & { readonly python: PythonOnHost };

/** Python of the system: it can tell about its host where there is no environment. */
const SYSTEM_PYTHON = ['python3'];

/** Asks the Python of a host's environment what the host is, or the one of its system. Never fails for the host's sake. */
export async function askHost(inspected: InspectedHost, signal?: AbortSignal): Promise<Answer> {
  const { host, role, engines, address, folders, env, image, packageLater } = inspected;
  const known = { name: host.name, role, engines, ...(packageLater && { packageLater }) };
  const about = { ...known, address: address ?? host.name };
  // An image is looked into by nobody here: it is the same on every host, or else pulled.
  const inImage = image === undefined ? {} : { noEnvironment: { reason: image, later: true } };
  const asked = { requirements: requirementNames(), folders };
  const on = (python: readonly string[]): PythonOnHost => ({
    host,
    python,
    ...(env && { env }),
    ...(signal && { signal }),
  });
  const own = on(inspected.python);
  try {
    const found = await takeFingerprint(own, asked);
    const where = address ?? found.fingerprint.reachedAt ?? host.name;
    const facts = { ...about, ...found, address: where, ...inImage };
    return { facts, python: own, environment: image === undefined };
  } catch (error) {
    if (!(error instanceof ProbeError)) return { facts: silent(about, error), environment: false };
    const system = on(SYSTEM_PYTHON);
    try {
      const found = await takeFingerprint(system, asked);
      const reason = `${inspected.python.join(' ')}: ${error.message}`;
      const { environmentLater: later = false, environmentRoom: room } = inspected;
      const noEnvironment = { reason, later, ...(room !== undefined && { room }) };
      const where = address ?? found.fingerprint.reachedAt ?? host.name;
      const facts = { ...about, ...found, address: where, noEnvironment };
      return { facts, python: system, environment: false };
    } catch (second) {
      return { facts: silent(about, second), environment: false };
    }
  }
}

/** What is wrong with a host that did not do what it was asked; any other error is thrown again. */
export function problemOf(error: unknown, name: string): NonNullable<HostFacts['problem']> {
  if (error instanceof HostError) return { message: error.message, mend: error.wayOut };
  if (error instanceof ProbeError) {
    const mend = `Install Python 3.8 or newer on ${name}, as python3.`;
    return { message: `no usable Python: ${error.message}`, mend };
  }
  throw error;
}

function silent(
  about: Pick<HostFacts, 'name' | 'role' | 'engines' | 'address'>,
  error: unknown,
): HostFacts {
  return { ...about, problem: problemOf(error, about.name) };
}

/** What Rankflow's lock file names. */
function requirementNames(): string[] {
  const text = readFileSync(path.join(paths.pythonProject, 'requirements.txt'), 'utf8');
  return [...text.matchAll(/^(?<name>[\w.-]+)(?:\[[^\]]*\])?==/gmu)].map(({ groups }) =>
    String(groups?.['name']),
  );
}
