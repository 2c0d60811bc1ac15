import { randomBytes } from 'node:crypto';
import { link, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';

import { z } from 'zod';

/**
 * A folder of small JSON files, one record each. A record is created whole or not at all, and is on disk when the
 * call returns; racing creators agree on the first. Names come from this program, never from a request unchecked.
 */
export class RecordFolder<T> {
  constructor(
    readonly folder: string,
    private readonly schema: z.ZodType<T>,
  ) {}

  /**
   * @returns false when there was one already, which stays as it is
   * @throws when it could not be read again
   */
  async create(name: string, value: T): Promise<boolean> {
    return createFile(this.fileOf(name), JSON.stringify(this.schema.parse(value)));
  }

  /** Puts a record in the place of the one that is there, in one step. */
  async replace(name: string, value: T): Promise<void> {
    const text = JSON.stringify(this.schema.parse(value));
    const temporary = await temporaryFile(this.fileOf(name), text);
    await rename(temporary, this.fileOf(name));
    await syncFolder(this.folder);
  }

  /** @throws UnreadableRecord */
  async read(name: string): Promise<T | undefined> {
    const text = await readIfThere(this.fileOf(name));
    return text === undefined ? undefined : parsed(this.schema, text);
  }

  /** @returns false when there was none */
  async remove(name: string): Promise<boolean> {
    return removeFile(this.fileOf(name));
  }

  /** Names of all records, ascending. */
  async names(): Promise<string[]> {
    const files = await listFolder(this.folder);
    return files.filter((file) => file.endsWith('.json')).map((file) => file.slice(0, -5));
  }

  private fileOf(name: string): string {
    return path.join(this.folder, `${name}.json`);
  }
}

/** A file that is no record: half of one, or one of another shape. Its message has nothing of what is in it. */
export class UnreadableRecord extends Error {
  override readonly name = 'UnreadableRecord';
}

function parsed<T>(schema: z.ZodType<T>, text: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new UnreadableRecord('it is no JSON');
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new UnreadableRecord(z.prettifyError(result.error));
}

/** Names in a folder, ascending; a folder that is not there is empty. Files in the making are left out. */
export async function listFolder(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(noneIfMissing([] as string[]));
  return names.filter((name) => !name.startsWith('.')).toSorted();
}

/** In bytes; 0 for a file that is not there. */
export async function sizeOf(file: string): Promise<number> {
  return (await stat(file).catch(noneIfMissing({ size: 0 }))).size;
}

/** @returns false when it was not there */
export async function removeFile(file: string): Promise<boolean> {
  try {
    await rm(file);
    return true;
  } catch (error) {
    return noneIfMissing(false)(error);
  }
}

const readIfThere = async (file: string): Promise<string | undefined> =>
  readFile(file, 'utf8').catch(noneIfMissing(undefined));

async function createFile(file: string, text: string): Promise<boolean> {
  const temporary = await temporaryFile(file, text);
  try {
    // A link is the one step that fails when the name is taken and shows nothing half-written.
    await link(temporary, file);
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  } finally {
    await rm(temporary, { force: true });
  }
  await syncFolder(path.dirname(file));
  return true;
}

/** Owners alone may read: records name what users work on, and hold the hashes of keys. */
async function temporaryFile(beside: string, text: string): Promise<string> {
  const folder = path.dirname(beside);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const temporary = path.join(folder, `.${randomBytes(8).toString('hex')}.tmp`);
  const file = await open(temporary, 'wx', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  return temporary;
}

/** Puts the names in a folder on disk: a file that is synced may still lack its name after a power cut. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

const noneIfMissing =
  <T>(none: T) =>
  (error: unknown): T => {
    if (codeOf(error) === 'ENOENT') return none;
    throw error;
  };

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;
