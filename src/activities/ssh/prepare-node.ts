import { readFileSync } from 'node:fs';

import { execa } from 'execa';

import type { NodeEnvironment, SshNode, SshProvider } from '../../contracts/cluster.js';
import { HostError, type Host } from '../../hosts/host.js';
import { paths } from '../../setup/paths.js';
import { pythonMatchOf } from '../../hosts/alike/versions.js';
import { distributionVersions, ownPythonVersion } from '../../setup/python.js';
import { ensureToken } from '../local/node-state.js';
import { callAgent, CheckAnswer, NoAgent } from './agent.js';
import { installPlan, type InstallStep } from './environment.js';
import { fixedPorts, nodeFolder, nodeMarker } from './node-settings.js';

/** The agent needs nothing but the standard library. */
const SYSTEM_PYTHON = 'python3';
/** Unpacks standard input into `$1`: a package that was there may be of another version. */
const UNPACK = 'set -eu; rm -rf "$1"; umask 077; mkdir "$1"; tar -x -f - -C "$1"';
/** A megabyte over a slow line. */
const UNPACK_MS = 120_000;

/** A node that is being made ready. */
export interface Preparation {
  readonly cluster: string;
  readonly nodes: SshProvider;
  readonly node: SshNode;
  readonly host: Host;
  readonly log: (line: string) => void;
  readonly signal?: AbortSignal;
}

/**
 * Makes a host ready for `ray start`: environment, set-up commands, a look at all that a node needs, token, package.
 * Each step may be repeated.
 *
 * @returns the address that the other nodes reach it at
 * @throws HostError with everything that is wrong with the host
 */
export async function prepareNode(preparation: Preparation): Promise<string> {
  const { cluster, nodes, node, host } = preparation;
  const { steps } = installPlan(nodes.environment);
  const setup = nodes.setup.map((command) => ({
    what: `set-up command ${command.join(' ')}`,
    command,
    timeoutMs: nodes.stepTimeoutSeconds * 1000,
  }));
  for (const step of [...steps, ...setup]) await runStep(preparation, step);
  const address = await checkNode(preparation, true);
  const files = nodeFolder(cluster, nodes, node.name);
  if (nodes.tokenAuth) {
    await host.put(files.token, readFileSync(ensureToken(cluster), 'utf8'), 0o600);
  }
  await sendPackage(preparation, files.package);
  return address;
}

async function runStep(
  { cluster, node, host, log, signal }: Preparation,
  step: InstallStep,
): Promise<void> {
  log(`${step.what} ...`);
  const said: string[] = [];
  const options = {
    timeoutMs: step.timeoutMs,
    onLine: (line: string) => {
      log(line);
      said.push(line);
      if (said.length > SHOWN_LINES) said.shift();
    },
    ...(step.input !== undefined && { input: step.input }),
    ...(signal && { signal }),
  };
  const see = `\`rankflow cluster logs ${cluster} ${node.name}\` shows all that it said.`;
  const { exitCode } = await host.run(step.command, options).catch((error: unknown) => {
    if (!(error instanceof HostError) || error.type !== 'HostTimedOut') throw error;
    const message = `${step.what} did not end within ${step.timeoutMs / 1000} s: ${said.join('; ')}`;
    const wayOut = `See what it waits for, or give it longer (setupTimeoutSeconds, for set-up commands). ${see}`;
    throw new HostError(error.type, host.name, message, wayOut, { cause: error });
  });
  if (exitCode === 0) return;
  throw new HostError(
    'HostRefused',
    host.name,
    `${step.what} failed (exit code ${exitCode}): ${said.join('; ')}`,
    `Mend the command in the cluster file, or what it needs on that host. ${see}`,
  );
}

/** Lines of a failed command that an error shows; all of them are in the node's log. */
const SHOWN_LINES = 5;

/**
 * Looks at everything that a node needs on its host. Of an environment that is made there, before it is made, only
 * whether it can be; the Python of the system looks at the rest then.
 *
 * @param make also makes the node's folder there; its environment has been made
 * @returns the address that the other nodes reach it at
 * @throws HostError `HostRefused` with all that is missing
 */
export async function checkNode(
  { cluster, nodes, node, host, signal }: Omit<Preparation, 'log'>,
  make = false,
): Promise<string> {
  const { python, look } = installPlan(nodes.environment);
  const later = look !== undefined && !make;
  const gpus = node.resources?.num_gpus;
  const { image, mounts } = nodes.environment;
  // A set-up command may mount what is not there yet.
  const isSetUp = make || nodes.setup.length === 0;
  const given = {
    folder: nodeFolder(cluster, nodes, node.name).folder,
    make,
    ...(!later && { expected: await ownVersions(nodes.environment) }),
    marker: nodeMarker(cluster, node.name),
    ports: fixedPorts(node, nodes.ports),
    ...(node.address !== undefined && { address: node.address }),
    ...(gpus !== undefined && { gpus }),
    ...(image !== undefined && { image, ...(isSetUp && { mounts }) }),
  };
  const options = signal && { signal };
  const asked = later ? SYSTEM_PYTHON : python;
  const { problems, address } = await callAgent(
    host,
    asked,
    'check',
    given,
    CheckAnswer,
    options,
  ).catch((error: unknown): never => {
    if (!later || !(error instanceof NoAgent)) throw error;
    const wayOut = 'Install python3 (3.8 or newer) on that host: it looks at what is there.';
    throw new NoAgent(error.type, host.name, `${SYSTEM_PYTHON} does not run there`, wayOut);
  });
  if (later) {
    const { exitCode, stderr } = await host.run(look, { ...options });
    if (exitCode !== 0) problems.push(stderr.trim() || `${look.join(' ')}: exit code ${exitCode}`);
  }
  if (problems.length === 0) return address;
  const wayOut = 'Mend on that host what the message names, then run the same command again.';
  throw new HostError('HostRefused', host.name, problems.join('; '), wayOut);
}

/** Versions that every node has to have: the drivers that place engines run in this machine's environment. */
async function ownVersions({
  variables,
}: NodeEnvironment): Promise<{ python?: string; ray?: string }> {
  const parts = pythonMatchOf(variables) === 'minor' ? 2 : 3;
  const [own, installed] = await Promise.all([ownPythonVersion(), distributionVersions(['ray'])]);
  const python = own?.split('.').slice(0, parts).join('.');
  const ray = installed.get('ray');
  return { ...(python !== undefined && { python }), ...(ray !== undefined && { ray }) };
}

/** What engines are made of, in the version of this worker. */
async function sendPackage({ host, signal }: Preparation, folder: string): Promise<void> {
  const archive = ['-c', '-f', '-', '--exclude=__pycache__', '-C', paths.pythonProject, 'rankflow'];
  const { stdout } = await execa('tar', archive, { encoding: 'buffer' });
  const { exitCode, stderr } = await host.run(['sh', '-c', UNPACK, 'sh', folder], {
    input: stdout,
    timeoutMs: UNPACK_MS,
    ...(signal && { signal }),
  });
  if (exitCode === 0) return;
  throw new HostError(
    'HostRefused',
    host.name,
    `the Python package cannot be unpacked into ${folder}: ${stderr.trim()}`,
    'See that tar is there and that there is some room.',
  );
}
