import { open, rm } from 'node:fs/promises';
import { type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import { counted } from '../text.js';
import { ApiError } from './errors.js';

export interface UploadLimits {
  readonly bytes: number;
  readonly rows: number;
}

const NEWLINE = 0x0a;

/**
 * Writes an upload to a new file as it comes, a piece at a time, and has it on disk when it returns. What was
 * written of an upload that is refused or breaks off is removed.
 *
 * @throws ApiError 400 or 413 as soon as it is empty or over a limit
 */
export async function receive(
  source: Readable,
  file: string,
  limits: UploadLimits,
): Promise<{ bytes: number }> {
  const handle = await open(file, 'wx', 0o600);
  let whole = false;
  try {
    const meter = new Meter(limits);
    await pipeline(source, meter, handle.createWriteStream({ autoClose: false }));
    if (meter.bytes === 0) throw new ApiError(400, 'The file is empty.', { param: 'file' });
    await handle.sync();
    whole = true;
    return { bytes: meter.bytes };
  } finally {
    await handle.close();
    if (!whole) await rm(file, { force: true });
  }
}

/** Counts bytes and lines on their way, and ends the way at a limit. */
class Meter extends Transform {
  bytes = 0;
  private lines = 0;
  private inLine = false;

  constructor(private readonly limits: UploadLimits) {
    super();
  }

  override _transform(chunk: Buffer, _: string, done: (error?: Error, data?: Buffer) => void): void {
    this.bytes += chunk.length;
    for (let at = 0; at < chunk.length; ) {
      const end = chunk.indexOf(NEWLINE, at);
      if (!this.inLine && end !== at) this.lines += 1;
      this.inLine = end === -1;
      at = end === -1 ? chunk.length : end + 1;
    }
    const refusal = this.refusal();
    if (refusal === undefined) done(undefined, chunk);
    else done(refusal);
  }

  private refusal(): ApiError | undefined {
    const { bytes, rows } = this.limits;
    if (this.bytes > bytes) return tooLarge(bytes);
    if (this.lines <= rows) return undefined;
    return new ApiError(400, `The file has more than ${counted(rows, 'request')}.`, {
      param: 'file',
      code: 'too_many_tasks',
    });
  }
}

export const tooLarge = (bytes: number): ApiError =>
  new ApiError(413, `The file is larger than ${bytes} bytes.`, {
    param: 'file',
    code: 'file_too_large',
  });
