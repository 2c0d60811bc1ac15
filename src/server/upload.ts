import { open, rm, writeFile } from 'node:fs/promises';
import type { Readable } from 'node:stream';

import { counted } from '../text.js';
import { ApiError } from './errors.js';

export interface UploadLimits {
  readonly bytes: number;
  readonly rows: number;
  /** What all files of a namespace may take together; absent: whatever the disk has. */
  readonly storedBytes?: number;
}

/**
 * Writes an upload to a new file as it comes, a piece at a time, and has it on disk when it returns. What was
 * written of an upload that is refused or breaks off is removed.
 *
 * @returns its size in bytes
 * @throws ApiError 400 or 413 as soon as it is over a limit, or when it is empty
 */
export async function receive(
  source: Readable,
  file: string,
  limits: UploadLimits,
): Promise<number> {
  const handle = await open(file, 'wx', 0o600);
  let whole = false;
  try {
    await writeFile(handle, metered(source, limits));
    await handle.sync();
    const { size } = await handle.stat();
    if (size === 0) throw new ApiError(400, 'The file is empty.', { param: 'file' });
    whole = true;
    return size;
  } finally {
    await handle.close();
    if (!whole) await rm(file, { force: true });
  }
}

const NEWLINE = 0x0a;

/** Passes an upload on and ends it at a limit. Rows are lines that are not empty. */
async function* metered(source: Readable, limits: UploadLimits): AsyncGenerator<Buffer> {
  let bytes = 0;
  let rows = 0;
  let inRow = false;
  for await (const chunk of source as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > limits.bytes) throw tooLarge(limits.bytes);
    for (let at = 0; at < chunk.length;) {
      const end = chunk.indexOf(NEWLINE, at);
      if (!inRow && end !== at) rows += 1;
      inRow = end === -1;
      at = end === -1 ? chunk.length : end + 1;
    }
    if (rows > limits.rows) throw tooManyRows(limits.rows);
    yield chunk;
  }
}

export const tooLarge = (bytes: number): ApiError =>
  new ApiError(413, `The file is larger than ${bytes} bytes.`, {
    param: 'file',
    code: 'file_too_large',
  });

export const noRoomLeft = (limit: number): ApiError =>
  new ApiError(403, `The files of this key may take ${limit} bytes: delete some first.`, {
    code: 'storage_limit_exceeded',
  });

const tooManyRows = (rows: number): ApiError =>
  new ApiError(400, `The file has more than ${counted(rows, 'request')}.`, {
    param: 'file',
    code: 'too_many_tasks',
  });
