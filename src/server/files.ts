import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import type { Readable } from 'node:stream';

import { z } from 'zod';

import type { Log } from './batch-worker.js';
import { noSuchFile } from './errors.js';
import { isId, newId, timeOfId } from './ids.js';
import { type Page, type PageQuery, readPage } from './pages.js';
import {
  listFolder,
  RecordFolder,
  removeFile,
  sizeOf,
  syncFolder,
  UnreadableRecord,
} from './records.js';
import type { ExpiresAfter, FileObject } from './schemas.js';
import { noRoomLeft, receive, type UploadLimits } from './upload.js';

const FileRecord = z.object({
  id: z.string(),
  filename: z.string(),
  purpose: z.enum(['batch', 'batch_output']),
  bytes: z.int().nonnegative(),
  /** Seconds since the epoch. */
  expiresAt: z.int().nullable(),
  /** Path in the store of what a run wrote; absent for an upload, which lies beside its record. */
  result: z.string().optional(),
});
export type FileRecord = z.infer<typeof FileRecord>;

/** Files with purpose `batch` expire after 30 days unless the upload says otherwise, as OpenAI's do. */
const INPUT_SECONDS = 2_592_000;

/** An upload that is on disk and has no record yet. */
export interface Received {
  readonly id: string;
  readonly bytes: number;
}

/** The files of one namespace: uploads, and the results of its batches. */
export class FileStore {
  private readonly records: RecordFolder<FileRecord>;
  private readonly contents: string;
  /** Files whose records are known to be damaged: said once. */
  private readonly told = new Set<string>();

  /**
   * @param store root of the store that runs write their results to
   * @param folder folder of the namespace
   */
  constructor(
    private readonly store: string,
    folder: string,
    private readonly now: () => number = Date.now,
    private readonly log?: Log,
  ) {
    this.records = new RecordFolder(path.join(folder, 'files'), FileRecord);
    this.contents = path.join(folder, 'contents');
  }

  /** Writes an upload to disk. It shows once {@link keep} has made its record; else {@link discard} it. */
  async receive(source: Readable, limits: UploadLimits): Promise<Received> {
    await mkdir(this.contents, { recursive: true, mode: 0o700 });
    const id = newId('file', this.now());
    const bytes = await receive(source, this.uploadPath(id), limits);
    await syncFolder(this.contents);
    try {
      // Others may have come meanwhile, and not every client says beforehand how much it sends.
      await this.checkRoom(0, limits.storedBytes);
    } catch (error) {
      await this.discard({ id });
      throw error;
    }
    return { id, bytes };
  }

  /**
   * Looks whether so many bytes more may be stored.
   *
   * @throws ApiError 403
   */
  async checkRoom(bytes: number, limit: number | undefined): Promise<void> {
    if (limit !== undefined && (await this.stored()) + bytes > limit) throw noRoomLeft(limit);
  }

  /** What the files take, in bytes: uploads, those on their way too, and results that are listed. */
  private async stored(): Promise<number> {
    const uploads = await listFolder(this.contents);
    const uploaded = new Set(uploads);
    const sizes = await Promise.all(uploads.map(async (id) => sizeOf(this.uploadPath(id))));
    const results = (await this.records.names()).filter((id) => !uploaded.has(id));
    for (const id of results) sizes.push((await this.find(id))?.bytes ?? 0);
    return sizes.reduce((sum, size) => sum + size, 0);
  }

  async keep(
    { id, bytes }: Received,
    filename: string,
    expiresAfter: ExpiresAfter | undefined,
  ): Promise<FileObject> {
    const expiresAt = secondsOf(id) + (expiresAfter?.seconds ?? INPUT_SECONDS);
    const record: FileRecord = { id, filename, purpose: 'batch', bytes, expiresAt };
    await this.records.create(id, record);
    return toFileObject(record);
  }

  async discard({ id }: Pick<Received, 'id'>): Promise<void> {
    await removeFile(this.uploadPath(id));
  }

  /** Adds what a run wrote. Doing it again changes nothing. */
  async addResult(record: FileRecord): Promise<void> {
    await this.records.create(record.id, record);
  }

  /** @throws ApiError 404 */
  async get(id: string): Promise<FileObject> {
    return toFileObject(await this.recordOf(id));
  }

  /** Where the bytes of a file are, as an absolute path. @throws ApiError 404 */
  async content(id: string): Promise<{ path: string; file: FileObject }> {
    const record = await this.recordOf(id);
    return { path: this.pathOf(record), file: toFileObject(record) };
  }

  async list(query: PageQuery, purpose: string | undefined): Promise<Page<FileObject>> {
    return readPage(await this.records.names(), query, async (id) => {
      const record = await this.find(id);
      if (record === undefined || (purpose !== undefined && record.purpose !== purpose))
        return undefined;
      return toFileObject(record);
    });
  }

  /**
   * Removes a file. Results of a run are only taken out of the list: they belong to the run, which keeps them until
   * the store is freed of it.
   *
   * @throws ApiError 404
   */
  async remove(id: string): Promise<void> {
    if (!isId('file', id)) throw noSuchFile(id);
    const record = await this.read(id);
    if (record !== 'unreadable' && (record === undefined || this.isExpired(record))) {
      throw noSuchFile(id);
    }
    // The record first: without one, bytes that are left show nowhere and are swept.
    if (!(await this.records.remove(id))) throw noSuchFile(id);
    // An id of a result names no upload.
    await removeFile(this.uploadPath(id));
  }

  /** Removes files that have expired, and uploads that never got a record because the server was killed. */
  async sweep(): Promise<void> {
    for (const id of await this.records.names()) {
      const record = await this.read(id);
      if (record === undefined || record === 'unreadable' || !this.isExpired(record)) continue;
      await this.records.remove(id);
      if (record.result === undefined) await removeFile(this.uploadPath(id));
    }
    const named = new Set(await this.records.names());
    for (const id of await listFolder(this.contents)) {
      const abandoned = isId('file', id) && this.now() - timeOfId(id) > ABANDONED_MS;
      if (abandoned && !named.has(id)) await removeFile(this.uploadPath(id));
    }
  }

  private async recordOf(id: string): Promise<FileRecord> {
    const record = isId('file', id) ? await this.find(id) : undefined;
    if (record === undefined) throw noSuchFile(id);
    return record;
  }

  /** An expired file is gone, also before it is swept. */
  private async find(id: string): Promise<FileRecord | undefined> {
    const record = await this.read(id);
    if (record === undefined || record === 'unreadable') return undefined;
    return this.isExpired(record) ? undefined : record;
  }

  /** A record that is damaged must not hide the others: it is told, and shows nowhere. */
  private async read(id: string): Promise<FileRecord | 'unreadable' | undefined> {
    try {
      return await this.records.read(id);
    } catch (error) {
      if (!(error instanceof UnreadableRecord)) throw error;
      if (!this.told.has(id)) {
        this.log?.warn({ file: id, reason: error.message }, 'the record of a file is not readable');
      }
      this.told.add(id);
      return 'unreadable';
    }
  }

  private isExpired({ expiresAt }: FileRecord): boolean {
    return expiresAt !== null && this.now() >= expiresAt * 1000;
  }

  private pathOf({ id, result }: FileRecord): string {
    return result === undefined ? this.uploadPath(id) : path.join(this.store, result);
  }

  private uploadPath(id: string): string {
    return path.join(this.contents, id);
  }
}

/** An upload takes hours at most: bytes without a record that are older belong to nobody. */
const ABANDONED_MS = 24 * 3_600_000;

const secondsOf = (id: string): number => Math.floor(timeOfId(id) / 1000);

const toFileObject = ({ id, filename, purpose, bytes, expiresAt }: FileRecord): FileObject => ({
  id,
  object: 'file',
  bytes,
  created_at: secondsOf(id),
  expires_at: expiresAt,
  filename,
  purpose,
  status: 'processed',
  status_details: null,
});
