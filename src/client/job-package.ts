import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, existsSync } from 'node:fs';
import { mkdir, readdir, readFile, realpath, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';

import ignore, { type Ignore } from 'ignore';
import { ZipFile } from 'yazl';

import { packageFile } from '../activities/jobs/submit.js';
import type { JobPackage, JobSpec } from '../contracts/job.js';
import { checkAllowed } from '../roots.js';
import { counted } from '../text.js';
import { ClientError } from './errors.js';
import { formatBytes } from './input.js';

/**
 * Most bytes of the files in a package. Ray keeps packages in the memory of its head, and takes 512 MiB at most.
 */
export const MOST_PACKAGE_BYTES = 256 * 1024 * 1024;
/** What Ray itself leaves out, too. */
const NEVER = ['.git', '.venv', 'venv', '__pycache__'];
const IGNORE_FILES = ['.gitignore', '.rayignore'];

interface PackagedFile {
  /** Relative to the working directory, with `/`. */
  readonly name: string;
  readonly file: string;
  readonly bytes: number;
  readonly mode: number;
}

/** A working directory, looked through. */
export interface WorkingDirectory {
  readonly files: readonly PackagedFile[];
  /** Hex sha256 of names, modes and contents. */
  readonly sha256: string;
}

/**
 * Lists and hashes what belongs to a working directory: not what `.gitignore` and `.rayignore` files or `excludes`
 * name, in git's own patterns.
 *
 * @throws ClientError `Usage` when it is no folder, empty or too large
 * @throws PathRefused when it, or a file that it links to, is below no allowed root
 */
export async function inspectWorkingDirectory(
  folder: string,
  excludes: readonly string[] = [],
): Promise<WorkingDirectory> {
  checkAllowed(folder);
  const there = await stat(folder).catch(() => undefined);
  if (!there?.isDirectory()) throw usage(`${folder} is no folder`);
  const files: PackagedFile[] = [];
  await collect(folder, '', [{ prefix: '', rules: ignore().add([...NEVER, ...excludes]) }], files);
  if (files.length === 0) throw usage(`${folder} has no files that are not ignored`);
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  if (bytes > MOST_PACKAGE_BYTES) throw tooLarge(folder, files, bytes);
  files.sort((a, b) => (a.name < b.name ? -1 : 1));
  const hash = createHash('sha256');
  for (const { name, file, mode } of files) {
    hash.update(`${name}\0${mode.toString(8)}\0`);
    const content = createHash('sha256');
    await pipeline(createReadStream(file), content);
    hash.update(content.digest());
  }
  return { files, sha256: hash.digest('hex') };
}

interface Rules {
  /** Folder of the rules, relative to the working directory, with a `/` at its end. */
  readonly prefix: string;
  readonly rules: Ignore;
}

async function collect(
  folder: string,
  prefix: string,
  above: readonly Rules[],
  files: PackagedFile[],
  parents: readonly string[] = [],
): Promise<void> {
  const real = await realpath(folder);
  // A link to a folder that it lies in has no end.
  if (parents.includes(real)) return;
  const own = await Promise.all(
    IGNORE_FILES.map(async (name) => readFile(path.join(folder, name), 'utf8').catch(() => '')),
  );
  const rules = [...above, { prefix, rules: ignore().add(own.join('\n')) }];
  for (const entry of await readdir(folder)) {
    const file = path.join(folder, entry);
    const name = prefix + entry;
    // A link that leads nowhere is left out, as git does with what is not there.
    const there = await stat(file).catch(() => undefined);
    if (there === undefined) continue;
    const asked = there.isDirectory() ? `${name}/` : name;
    if (rules.some((one) => one.rules.ignores(asked.slice(one.prefix.length)))) continue;
    if (there.isDirectory()) {
      await collect(file, `${name}/`, rules, files, [...parents, real]);
    } else if (there.isFile()) {
      // A link may lead out of the directory, and then out of what is allowed.
      checkAllowed(file);
      // Only whether it can be run matters, and what a umask made of the rest must not change the hash.
      const mode = there.mode & 0o100 ? 0o755 : 0o644;
      files.push({ name, file, bytes: there.size, mode });
    }
  }
}

const LARGEST_SHOWN = 5;

function tooLarge(folder: string, files: readonly PackagedFile[], bytes: number): ClientError {
  const largest = files.toSorted((a, b) => b.bytes - a.bytes).slice(0, LARGEST_SHOWN);
  return usage(
    [
      `${folder} has ${formatBytes(bytes)} in ${counted(files.length, 'file')}, and ${formatBytes(MOST_PACKAGE_BYTES)} can be sent. The largest:`,
      ...largest.map((file) => `  ${formatBytes(file.bytes)}  ${file.name}`),
    ].join('\n'),
    'Name what is not needed in a .gitignore or .rayignore file or with --exclude, and keep data and models in a folder that the nodes share.',
  );
}

const usage = (
  message: string,
  wayOut = 'Name a folder with the files of the job, or leave --working-dir out.',
): ClientError => new ClientError('Usage', `--working-dir: ${message}`, { wayOut });

/** Every file of a package has this time, so that equal contents are equal packages. */
const SOME_TIME = new Date('2000-01-01T00:00:00Z');

/** Writes the package of a working directory into a job's folder, unless it is there. */
export async function storePackage(
  spec: Pick<JobSpec, 'store' | 'jobId'>,
  { files, sha256 }: WorkingDirectory,
): Promise<JobPackage> {
  const file = packageFile(spec, sha256);
  if (!existsSync(file)) {
    await mkdir(path.dirname(file), { recursive: true });
    const temporary = `${file}.${process.pid}.tmp`;
    const zip = new ZipFile();
    for (const one of files) {
      zip.addFile(one.file, one.name, { mtime: SOME_TIME, mode: one.mode | 0o100000 });
    }
    zip.end();
    try {
      await pipeline(zip.outputStream, createWriteStream(temporary));
      await rename(temporary, file);
    } finally {
      await rm(temporary, { force: true });
    }
  }
  return { sha256, files: files.length, bytes: (await stat(file)).size };
}
