import type { ClusterAddress } from '../../contracts/cluster.js';
import { logSize, writeLog } from './job-log.js';
import { openLog } from './ray-jobs.js';

/** Time for the rest of a log when the job has ended. */
const FINISH_MS = 60_000;

/** Copies the log of one attempt from its node into the store while it grows. */
export class LogTail {
  #size = 0;
  #stream: AbortController | undefined;
  #copying: Promise<void> = Promise.resolve();
  #broken: Error | undefined;

  private constructor(
    private readonly cluster: ClusterAddress,
    private readonly submissionId: string,
    private readonly folder: string,
  ) {}

  /** Goes on where an earlier one stopped. */
  static async open(
    cluster: ClusterAddress,
    submissionId: string,
    folder: string,
  ): Promise<LogTail> {
    const tail = new LogTail(cluster, submissionId, folder);
    tail.#size = await logSize(folder);
    return tail;
  }

  /** Bytes of the log so far. */
  get size(): number {
    return this.#size;
  }

  /**
   * Sees that the log is being copied, again when the stream was cut.
   *
   * @throws what the store says when it could not be written
   */
  keepUp(nodeId: string): void {
    if (this.#broken !== undefined) throw this.#broken;
    if (this.#stream !== undefined) return;
    const stream = new AbortController();
    this.#stream = stream;
    this.#copying = this.#copy(nodeId, true, stream.signal).finally(() => {
      if (this.#stream === stream) this.#stream = undefined;
    });
  }

  /** Copies what is missing when nothing more is written. A node that is gone has taken it along. */
  async finish(nodeId: string): Promise<void> {
    await this.stop();
    await this.#copy(nodeId, false, AbortSignal.timeout(FINISH_MS));
    if (this.#broken !== undefined) throw this.#broken;
  }

  /** Ends the stream. */
  async stop(): Promise<void> {
    this.#stream?.abort();
    await this.#copying;
  }

  async #copy(nodeId: string, follow: boolean, signal: AbortSignal): Promise<void> {
    let skip = this.#size;
    try {
      const stream = await openLog(this.cluster, this.submissionId, nodeId, follow, signal);
      for await (const chunk of stream) {
        const rest = chunk.subarray(Math.min(skip, chunk.length));
        skip -= chunk.length - rest.length;
        if (rest.length > 0) await this.#write(rest);
      }
    } catch {
      // The job has no log yet, its node is gone, or the stream was ended: the next look tries again.
    }
  }

  async #write(data: Uint8Array): Promise<void> {
    try {
      await writeLog(this.folder, this.#size, data);
      this.#size += data.length;
    } catch (error) {
      this.#broken = error instanceof Error ? error : new Error(String(error));
      throw error;
    }
  }
}
