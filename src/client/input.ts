import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { access, constants, mkdir, stat, statfs } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { checkAllowed } from '../roots.js';
import { ClientError } from './errors.js';
import { pythonError, runPython } from './python.js';

/** A request file on this machine. */
export interface LocalInput {
  readonly kind: 'local';
  /** Absolute path. */
  readonly uri: string;
  readonly bytes: number;
}

/** A request file in a bucket: read where the planner runs, never here. */
export interface RemoteInput {
  readonly kind: 'remote';
  readonly uri: string;
}

/**
 * Finds a request file and makes sure that it can be read, before anything heavy is started.
 *
 * @param file a path, a `file://` address or an `s3://` address
 * @throws ClientError `Usage` when it is missing, empty, a folder or unreadable; `PathRefused` when it is below no
 *   allowed root
 */
export async function inspectInput(file: string): Promise<LocalInput | RemoteInput> {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//iu.exec(file)?.[1]?.toLowerCase();
  if (scheme === 's3') {
    checkAllowed(file);
    return { kind: 'remote', uri: file };
  }
  if (scheme !== undefined && scheme !== 'file') {
    throw new ClientError(
      'UnsupportedInput',
      `${file}: addresses of kind ${scheme}:// are not read`,
    );
  }
  const uri = path.resolve(scheme === 'file' ? fileURLToPath(file) : file);
  checkAllowed(path.isAbsolute(file) || scheme === 'file' ? file : uri);
  const info = await stat(uri).catch((error: NodeJS.ErrnoException) => {
    const why = error.code === 'ENOENT' ? 'does not exist' : `cannot be read (${error.code})`;
    throw new ClientError('Usage', `The input ${uri} ${why}.`, { cause: error });
  });
  if (!info.isFile()) throw new ClientError('Usage', `The input ${uri} is not a file.`);
  if (info.size === 0) throw new ClientError('Usage', `The input ${uri} is empty.`);
  await access(uri, constants.R_OK).catch((error: unknown) => {
    throw new ClientError('Usage', `The input ${uri} may not be read.`, { cause: error });
  });
  return { kind: 'local', uri, bytes: info.size };
}

/** Hash and size of a request file in a bucket: it is read once, as the planner will. */
export async function digestRemote(uri: string): Promise<{ sha256: string; bytes: number }> {
  const result = await runPython(['rankflow.rows', 'digest', '--input', uri]);
  if (result.exitCode !== 0) throw pythonError('Reading the input', result);
  return JSON.parse(result.stdout) as { sha256: string; bytes: number };
}

/** Hex sha256 of a file's bytes, read in pieces: the file may be larger than memory. */
export async function sha256File(file: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/**
 * Bytes a run may take in its store, as a multiple of its input: the normalised requests (1×), attempts and
 * the assembled output (answers of the input's order of magnitude, each kept twice), and some slack.
 */
const STORE_FACTOR = 6;
/** Never start with less than this many bytes free: SQLite, logs and Ray's session write there too. */
const STORE_RESERVE = 256 * 1024 * 1024;

export const neededStoreBytes = (inputBytes: number): number =>
  inputBytes * STORE_FACTOR + STORE_RESERVE;

/**
 * Refuses a run that its store has no room for. Buckets are not asked.
 *
 * @param store absolute path of a local store, or an `s3://` address
 * @throws ClientError `Usage` with the bytes needed and free
 */
export async function checkStoreSpace(
  store: string,
  inputBytes: number,
  freeBytes: (folder: string) => Promise<number> = freeBytesOf,
): Promise<void> {
  checkAllowed(store);
  if (store.includes('://')) return;
  await mkdir(store, { recursive: true });
  const needed = neededStoreBytes(inputBytes);
  const free = await freeBytes(store);
  if (free >= needed) return;
  throw new ClientError(
    'Usage',
    `The store ${store} has ${formatBytes(free)} free; this run needs about ${formatBytes(needed)} ` +
      `(${STORE_FACTOR} times its input of ${formatBytes(inputBytes)}, and a reserve).`,
    { wayOut: 'Free some space, or name another folder or bucket with --store.' },
  );
}

async function freeBytesOf(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize;
}

/** `1536` → `1.5 KiB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), units.length - 1);
  const value = bytes / 1024 ** power;
  return `${value.toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}
