import { existsSync } from 'node:fs';
import path from 'node:path';

import { execa } from 'execa';

import { hashFiles, readIfExists } from './files.js';
import { LIBRARY_ADVICE, missingLibraries } from './libraries.js';
import { withProgress, type Log } from './log.js';
import { paths } from './paths.js';
import { isStamped, stamp, unstamp } from './stamps.js';
import type { Program } from './temporal.js';
import { parseVersion, type Version } from './versions.js';

/** The Python that the lock file was resolved for. uv fetches it when the machine has none. */
const PYTHON = '3.11';
/** The wheels are 2 GB packed: enough on a slow line. */
const INSTALL_MS = 3_600_000;

const inProject = (file: string): string => path.join(paths.pythonProject, file);
const LOCKS = [inProject('requirements.txt'), inProject('requirements-dev.txt')];
/** What the examples of jobs need beyond that: data frames, boosted trees, a searcher. */
const JOB_LOCKS = [inProject('requirements-jobs.txt')];
const ownUv = path.join(paths.home, 'uv', 'bin', 'uv');

/** uv: the one on PATH, else the one in the data folder. */
export async function findUv(): Promise<Program | undefined> {
  for (const command of ['uv', ownUv]) {
    const { stdout, failed } = await execa(command, ['--version'], { reject: false });
    const version = failed ? undefined : parseVersion(stdout);
    if (version !== undefined) return { command, version };
  }
  return undefined;
}

/** What to do on a machine that has neither uv nor a Python that could install it. */
export const PYTHON_ADVICE =
  'install uv, or Python 3 with venv (Debian: apt-get install python3-venv)';

/**
 * A Python that can make the environment in which uv is installed. Debian's comes without `ensurepip`.
 *
 * @returns its version; undefined when there is none, or it cannot
 */
export async function findBootstrapPython(command = 'python3'): Promise<Version | undefined> {
  const script = 'import ensurepip, venv, platform; print(platform.python_version())';
  const { stdout, failed } = await execa(command, ['-c', script], { reject: false });
  return failed ? undefined : parseVersion(stdout);
}

/**
 * Finds uv, or installs it from PyPI into a small environment of its own: the system stays as it is.
 *
 * @throws Error when there is no Python to do it with
 */
export async function ensureUv(log: Log): Promise<Program> {
  const found = await findUv();
  if (found !== undefined) return found;
  if ((await findBootstrapPython()) === undefined) {
    throw new Error(`The Python environment needs uv, which is not here: ${PYTHON_ADVICE}`);
  }
  const folder = path.join(paths.home, 'uv');
  await withProgress(log, 'installing uv', async () => {
    await execa('python3', ['-m', 'venv', '--clear', folder]);
    await execa(path.join(folder, 'bin', 'python'), [
      ...['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check'],
      ...['--require-hashes', '-r', inProject('requirements-uv.txt')],
    ]);
  });
  const program = await findUv();
  if (program === undefined) throw new Error(`uv was installed into ${folder} but does not run`);
  return program;
}

/** What the stamp of a complete environment says: one from before packages had their bytecode is installed again. */
const complete = (): string => `${hashFiles(LOCKS)} with bytecode`;

/** Whether the environment holds exactly what the lock files say. */
export const pythonIsReady = (): boolean =>
  existsSync(paths.python) && isStamped('python', complete());

/**
 * Makes the Python environment with vLLM, Ray and the Temporal SDK: every package by version and hash.
 *
 * @throws Error when the system lacks a library that vLLM needs, or the installation fails
 *
 * `--no-deps`: the lock files are complete, and the vLLM wheel asks for a torch build that no index has.
 */
export async function ensurePython(log: Log): Promise<void> {
  if (pythonIsReady()) return;
  const uv = await ensureUv(log);
  unstamp('python');
  unstamp('python-jobs');
  const usable = (await execa(paths.python, ['--version'], { reject: false })).stdout;
  if (!(usable ?? '').includes(`Python ${PYTHON}.`)) {
    await withProgress(log, `making a Python ${PYTHON} environment`, () =>
      execa(uv.command, ['venv', '--quiet', '--clear', '--python', PYTHON, paths.venv]),
    );
  }
  const missing = await missingLibraries();
  if (missing.length > 0) {
    // Now and not after 7 GB and the first engine that does not load.
    throw new Error(`vLLM needs ${missing.join(', ')}, which is not here: ${LIBRARY_ADVICE}`);
  }
  await withProgress(log, 'installing vLLM, Ray and the Temporal SDK (7 GB)', async () =>
    install(uv, LOCKS),
  );
  stamp('python', complete());
}

/**
 * Adds what the examples of jobs need to the environment; it changes no version that is there.
 *
 * @throws Error when the installation fails
 */
export async function ensureJobPackages(log: Log): Promise<void> {
  const wanted = hashFiles(JOB_LOCKS);
  if (isStamped('python-jobs', wanted)) return;
  const uv = await ensureUv(log);
  unstamp('python-jobs');
  await withProgress(log, 'installing what the examples of jobs need (150 MB)', async () =>
    install(uv, JOB_LOCKS),
  );
  stamp('python-jobs', wanted);
}

/**
 * `--compile-bytecode`: importing vLLM from source takes twice as long, and where Python may not write what it has
 * compiled (`PYTHONDONTWRITEBYTECODE`, a folder of somebody else) each process of each engine does so.
 */
async function install({ command }: Program, locks: readonly string[]): Promise<void> {
  await execa(
    command,
    [
      ...['pip', 'install', '--quiet', '--python', paths.python, '--compile-bytecode'],
      ...['--require-hashes', '--no-deps', ...locks.flatMap((file) => ['-r', file])],
    ],
    { timeout: INSTALL_MS, cwd: paths.pythonProject },
  );
}

/**
 * Versions of installed distributions, read from their metadata: importing vLLM takes half a minute.
 *
 * @returns a version for each name that is installed; empty when there is no environment
 */
export async function distributionVersions(
  names: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  const script = [
    'import sys, importlib.metadata as m',
    'for n in sys.argv[1:]:',
    '    try: print(n, m.version(n))',
    '    except m.PackageNotFoundError: pass',
  ].join('\n');
  const { stdout } = await execa(paths.python, ['-c', script, ...names], { reject: false });
  const lines = (stdout ?? '').split('\n').map((line) => line.split(' '));
  return new Map(lines.flatMap(([name, version]) => (name && version ? [[name, version]] : [])));
}

/** Version of the environment's Python as it is now, which may be a later patch than it was made with. */
export async function ownPythonVersion(): Promise<string | undefined> {
  const script = 'import sys; print("%d.%d.%d" % sys.version_info[:3])';
  const { stdout, failed } = await execa(paths.python, ['-c', script], { reject: false });
  return failed ? undefined : stdout.trim();
}

/** Version of the Python that the environment was made with; undefined when there is none. */
export function environmentPythonVersion(): string | undefined {
  const text = readIfExists(path.join(paths.venv, 'pyvenv.cfg'));
  return /^version(?:_info)? = (?<version>\S+)/mu.exec(text ?? '')?.groups?.['version'];
}
