import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

/** How often a file is looked at for more, in milliseconds: people follow it. */
const LOOK_MS = 300;
/** A worker may run for months: only the end of its log is read, in bytes. */
const LONGEST = 64 * 1024 * 1024;

/** A file that grows by lines, and may be begun anew; nothing while it is not there. */
export class FileLog {
  #offset: number | undefined;
  #rest = '';

  constructor(private readonly file: string) {}

  /** The lines that are complete and were not given yet. */
  async *past(): AsyncGenerator<string> {
    const size = await sizeOf(this.file);
    this.#offset ??= Math.max(0, size - LONGEST);
    if (size < this.#offset) [this.#offset, this.#rest] = [0, ''];
    if (size === this.#offset) return;
    const decoder = new TextDecoder();
    const chunks = createReadStream(this.file, { start: this.#offset, end: size - 1 });
    for await (const chunk of chunks as AsyncIterable<Buffer>) {
      this.#rest += decoder.decode(chunk, { stream: true });
      const lines = this.#rest.split('\n');
      this.#rest = lines.pop() ?? '';
      yield* lines;
    }
    this.#offset = size;
  }

  /** The lines that come, until it is aborted. */
  async *coming(until: AbortSignal): AsyncGenerator<string> {
    while (!until.aborted) {
      yield* this.past();
      await sleep(LOOK_MS, undefined, { signal: until }).catch(() => undefined);
    }
  }
}

const sizeOf = async (file: string): Promise<number> =>
  stat(file).then(
    ({ size }) => size,
    () => 0,
  );
