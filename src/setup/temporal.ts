import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';

import { execa } from 'execa';

import { sha256 } from './files.js';
import { withProgress, type Log } from './log.js';
import { paths } from './paths.js';
import { atLeast, formatVersion, parseVersion, type Version } from './versions.js';

/**
 * Oldest server inside the CLI that will do: the first with update-with-start generally available. The
 * CLI's own version says nothing when it was built with `go install` (0.0.0-DEV).
 */
export const SERVER_LEAST: Version = [1, 28, 0];
/** The newest release that `go install` builds: later ones carry a `replace` directive. */
const PINNED = '1.5.1';

/** SHA-256 of the release archives, as recorded in github.com/cashapp/hermit-packages (temporal-cli.hcl). */
const ARCHIVES: Readonly<Record<string, string>> = {
  linux_amd64: 'ddc95e08b0b076efd4ea9733a3f488eb7d2be875f8834e616cd2a37358b4852d',
  linux_arm64: 'bd1b0db9f18b051026de8bf6cc1505f2510f14bbb7a8b9a4a91fff46c77454f5',
  darwin_amd64: 'bbb73e2a31135abe50a1f1cdb35030c42961df618e8ce9c60ae89f201540c5d9',
  darwin_arm64: 'cca01b7ea35ad56e2a328d9ae596bf716bd22313ef63c7a761c88354457c2415',
};

/** How long the release server may take to answer, before the CLI is built from source instead. */
const ANSWER_MS = 5000;
/** The archive is about 60 MB: enough on a slow line. */
const DOWNLOAD_MS = 600_000;
/** A cold build takes 3 minutes on two cores. */
const BUILD_MS = 1_800_000;

export interface Program {
  /** Absolute path, or a name to be found on PATH. */
  readonly command: string;
  readonly version: Version;
}

/** Version of the server in `temporal version 1.5.1 (Server 1.29.1, UI 2.42.1)`. */
export function serverVersion(text: string): Version | undefined {
  return parseVersion(/Server ([^,)]+)/u.exec(text)?.[1] ?? '');
}

const installed = path.join(paths.bin, 'temporal');

/**
 * The Temporal CLI to use: the one in the data folder, else the one on PATH if it is new enough. Its
 * `version` is that of the server inside.
 */
export async function findTemporal(): Promise<Program | undefined> {
  for (const command of existsSync(installed) ? [installed, 'temporal'] : ['temporal']) {
    const { stdout, failed } = await execa(command, ['--version'], { reject: false });
    const version = failed ? undefined : serverVersion(stdout);
    if (version !== undefined && atLeast(version, SERVER_LEAST)) return { command, version };
  }
  return undefined;
}

/**
 * Finds the Temporal CLI or installs it into the data folder: from the official release, checked by its
 * SHA-256, or where that cannot be reached, from source with Go.
 *
 * @throws Error naming both ways and why each failed
 */
export async function ensureTemporal(log: Log): Promise<Program> {
  const found = await findTemporal();
  if (found !== undefined) return found;
  const problems: string[] = [];
  const ways: [string, () => Promise<void>][] = [
    [`downloading Temporal CLI ${PINNED}`, download],
    [`building Temporal CLI ${PINNED} with Go (takes minutes)`, build],
  ];
  for (const [what, install] of ways) {
    try {
      await withProgress(log, what, install);
    } catch (error) {
      const { shortMessage, message } = error as { shortMessage?: string; message: string };
      problems.push(`${what}: ${shortMessage ?? message}`);
      log(problems.at(-1) ?? '');
      continue;
    }
    const program = await findTemporal();
    if (program !== undefined) return program;
    problems.push(`${what}: the installed program does not run`);
  }
  throw new Error(
    `No Temporal CLI with Server ${formatVersion(SERVER_LEAST)} or newer. Install it (https://docs.temporal.io/cli) ` +
      `or Go (https://go.dev/dl), then try again.\n  ${problems.join('\n  ')}`,
  );
}

async function download(): Promise<void> {
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
  const platform = `${process.platform}_${architecture}`;
  const expected = ARCHIVES[platform];
  if (expected === undefined) throw new Error(`no release is known for ${platform}`);
  const name = `temporal_cli_${PINNED}_${platform}.tar.gz`;
  const archive = await fetchBytes(
    `https://github.com/temporalio/cli/releases/download/v${PINNED}/${name}`,
  );
  const actual = sha256(archive);
  if (actual !== expected) throw new Error(`${name} has SHA-256 ${actual}, expected ${expected}`);
  mkdirSync(paths.bin, { recursive: true });
  const folder = mkdtempSync(path.join(paths.bin, '.temporal-'));
  try {
    writeFileSync(path.join(folder, name), archive);
    await execa('tar', ['-xzf', name, 'temporal'], { cwd: folder });
    chmodSync(path.join(folder, 'temporal'), 0o755);
    renameSync(path.join(folder, 'temporal'), installed);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function fetchBytes(url: string): Promise<Uint8Array> {
  const silence = new AbortController();
  const timer = setTimeout(() => silence.abort(new Error('no answer')), ANSWER_MS);
  let response: Response;
  try {
    const signal = AbortSignal.any([silence.signal, AbortSignal.timeout(DOWNLOAD_MS)]);
    response = await fetch(url, { signal });
  } catch (error) {
    const { cause, message } = error as Error;
    throw new Error(cause instanceof Error ? `${message}: ${cause.message}` : message, {
      cause: error,
    });
  } finally {
    clearTimeout(timer);
  }
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function build(): Promise<void> {
  await execa('go', ['install', `github.com/temporalio/cli/cmd/temporal@v${PINNED}`], {
    env: { GOBIN: paths.bin },
    timeout: BUILD_MS,
  });
}
