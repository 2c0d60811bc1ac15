import { createHash } from 'node:crypto';

import type { NodeEnvironment } from '../../contracts/cluster.js';

/** Python of the locked environment, and of engines. */
const PYTHON = '3.11';
/** `uv` and `conda` download gigabytes when they meet a host for the first time. */
export const INSTALL_TIMEOUT_MS = 3_600_000;
/** Environments that are made on a node, below its user's home. */
const ENVIRONMENTS = '.cache/rankflow/environments';
export const ENVIRONMENTS_FOLDER = `~/${ENVIRONMENTS}`;
const GIB = 2 ** 30;
/** What an environment takes at least: vLLM for CPUs with its torch 7.4 GiB, for GPUs more; others are small. */
const ROOM = { engines: 8 * GIB, other: GIB };

/** One step that makes the environment of a node. */
export interface InstallStep {
  readonly what: string;
  readonly command: readonly string[];
  /** Text for standard input. */
  readonly input?: string;
  readonly timeoutMs: number;
}

/** How a node gets its Python. `python` may begin with `~/`: the folder is the user's on that host. */
export interface InstallPlan {
  readonly python: string;
  /** None where the Python is there already. */
  readonly steps: readonly InstallStep[];
  /** Fails where the steps would for want of their tool or of room; changes nothing. */
  readonly look?: readonly string[];
  /** Bytes that the environment takes at least in {@link ENVIRONMENTS_FOLDER}. */
  readonly room?: number;
}

/**
 * How the environment of a cluster file comes to be on a node. What is installed lies in a folder that its content
 * names, so it is there once for each content and stays when the cluster goes.
 */
export function installPlan({
  python,
  pythonVersion,
  requirements,
  conda,
  image,
}: NodeEnvironment): InstallPlan {
  // The host's own Python only carries what starts the container.
  if (image !== undefined) return { python: 'python3', steps: [] };
  if (requirements !== undefined) {
    const options = isLocked(requirements) ? LOCKED : '';
    const script = withUv(options, roomFor(requirements));
    return install(requirements, 'requirements.txt', pythonVersion ?? PYTHON, script, 'uv');
  }
  if (conda !== undefined)
    return install(conda, 'environment.yml', '', withConda(roomFor(conda)), 'conda');
  return { python: python ?? 'python3', steps: [] };
}

/** Whether a Python comes to be on the node, so that it may still be missing. */
export const isMadeOnNode = (python: string): boolean => python.startsWith(`~/${ENVIRONMENTS}/`);

/**
 * Whether each requirement of a file has its hash. Such a file is complete, or the hashes were of no use; so nothing
 * has to be resolved, which the lock file of this project cannot be: vLLM's wheel for CPUs asks for a build of torch
 * that no index has.
 */
export function isLocked(requirements: string): boolean {
  const lines = requirements
    .replaceAll(/\\\r?\n/gu, ' ')
    .split(/\r?\n/u)
    .map((line) => line.replace(/(?:^|\s)#.*$/u, '').trim())
    .filter((line) => line !== '' && !OPTION.test(line));
  return lines.length > 0 && lines.every((line) => line.includes('--hash='));
}
/** A line such as `--index-url …`; those for other files and folders are requirements without a hash. */
const OPTION = /^-(?!r|e|-requirement|-editable)/u;
const LOCKED = '--no-deps --require-hashes ';

function install(
  text: string,
  file: string,
  version: string,
  script: string,
  tool: string,
): InstallPlan {
  const hash = createHash('sha256')
    .update(`${tool}\0${version}\0${text}`)
    .digest('hex')
    .slice(0, 16);
  const folder = `${ENVIRONMENTS}/${hash}`;
  const room = roomFor(text);
  return {
    room,
    python: `~/${folder}/bin/python`,
    look: ['sh', '-c', `${FIND}${READY}${missing(tool)}${enough(room)}`, 'sh', folder],
    steps: [
      {
        what: `environment from ${file} with ${tool}`,
        // The parameters are names of our own, never text of the file: that comes on standard input.
        command: ['sh', '-c', script, 'sh', folder, file, version],
        input: text,
        timeoutMs: INSTALL_TIMEOUT_MS,
      },
    ],
  };
}

/** Where its installer puts uv, beside what a login without a terminal finds. */
const FIND = 'set -eu; cd "$HOME"; PATH="$PATH:$HOME/.local/bin:$HOME/.cargo/bin"; folder=$1; ';
/** `ready` is written last: an installation that was cut off is done again. */
const READY = '[ -e "$folder/ready" ] && exit 0; ';
const missing = (tool: string): string =>
  `command -v ${tool} >/dev/null 2>&1 || { echo "${tool} is not here: install it for this user, or name a Python in environment.python" >&2; exit 127; }; `;
/**
 * What is there of an installation that was cut off counts as room, and what uv has kept of others, as it links to that.
 * Nothing is refused where df does not tell.
 */
const enough = (room: number): string =>
  'at="$HOME/$folder"; while [ ! -e "$at" ]; do at="${at%/*}"; done; ' +
  'free=$(df -Pk "$at" 2>/dev/null | { read -r _; read -r _ _ _ free _; echo "$free"; }) || free=; ' +
  // The last line is the sum.
  'there=$(du -sck "$folder" .cache/uv 2>/dev/null | { all=0; while read -r size _; do all=$size; done; echo "$all"; }) || there=0; ' +
  `case "$free" in ""|*[!0-9]*) ;; *) [ $((free + \${there:-0})) -ge ${room / 1024} ] || { ` +
  `echo "$at has $((free / 1024)) MiB left, and the environment takes ${room / 2 ** 20} at least: free some space there, or make ~/.cache a link to a larger disk" >&2; exit 28; };; esac; `;
const roomFor = (text: string): number =>
  /^[\s-]*vllm\b/mu.test(text) ? ROOM.engines : ROOM.other;
const begin = (tool: string, room: number): string =>
  `${FIND}file=$2; version=$3; ${READY}${missing(tool)}${enough(room)}mkdir -p "$folder"; cat > "$folder/$file"; `;
const withUv = (options: string, room: number): string =>
  begin('uv', room) +
  'uv venv --quiet --allow-existing --python "$version" "$folder"; ' +
  `uv pip install --python "$folder/bin/python" --compile-bytecode ${options}-r "$folder/$file"; : > "$folder/ready"`;
const withConda = (room: number): string =>
  begin('conda', room) +
  'conda env update --quiet --prefix "$PWD/$folder" --file "$folder/$file"; : > "$folder/ready"';
