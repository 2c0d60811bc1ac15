import type { ClusterAddress } from '../../contracts/cluster.js';
import { reasonOf } from '../ray-state.js';
import { keepCut, logSize, writeLog } from './job-log.js';
import { openLog } from './ray-jobs.js';

/** Time for the rest of a log when the job has ended. */
const FINISH_MS = 60_000;
/** A log that cannot be read for so long (ms) is told: one that the job has not begun yet is there within seconds. */
const TELL_MS = 15_000;

/** Where an operator reads that a log is not copied. */
interface Operators {
  warn(message: string, about: object): void;
  info(message: string, about: object): void;
}

/** Copies the log of one attempt from its node into the store while it grows. */
export class LogTail {
  #size = 0;
  #stream: AbortController | undefined;
  #copying: Promise<void> = Promise.resolve();
  #broken: Error | undefined;
  #outage: { readonly since: number; told: boolean } | undefined;

  private constructor(
    private readonly cluster: ClusterAddress,
    private readonly submissionId: string,
    private readonly folder: string,
    private readonly operators: Operators,
  ) {}

  /** Goes on where an earlier one stopped. */
  static async open(
    cluster: ClusterAddress,
    submissionId: string,
    folder: string,
    operators: Operators,
  ): Promise<LogTail> {
    const tail = new LogTail(cluster, submissionId, folder, operators);
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
    this.#copying = this.#follow(nodeId, stream.signal).finally(() => {
      if (this.#stream === stream) this.#stream = undefined;
    });
  }

  /**
   * Copies what is missing when nothing more is written. A node that is gone has taken it along: then it says so
   * beside the log.
   *
   * @throws what the store says when it could not be written
   */
  async finish(nodeId: string): Promise<void> {
    await this.stop();
    const reason = await this.#copy(nodeId, false, AbortSignal.timeout(FINISH_MS));
    if (this.#broken !== undefined) throw this.#broken;
    if (reason === undefined) await keepCut(this.folder, undefined);
    else await this.cut(reason);
  }

  /** Says beside the log that its end may be missing, until a later {@link finish} has it. */
  async cut(reason: string): Promise<void> {
    this.#tell('the end of the log of a job was not copied', reason);
    await keepCut(this.folder, reason);
  }

  /** Ends the stream. */
  async stop(): Promise<void> {
    this.#stream?.abort();
    await this.#copying;
  }

  /** The job has no log yet, or its node is gone: the next look tries again. */
  async #follow(nodeId: string, signal: AbortSignal): Promise<void> {
    const reason = await this.#copy(nodeId, true, signal);
    if (reason === undefined || signal.aborted) return;
    const outage = (this.#outage ??= { since: Date.now(), told: false });
    if (outage.told || Date.now() - outage.since < TELL_MS) return;
    outage.told = true;
    this.#tell('the log of a job cannot be read; it is tried again', reason);
  }

  /** Returns why not all of it could be read; trouble of the store is kept for whoever calls next. */
  async #copy(nodeId: string, follow: boolean, signal: AbortSignal): Promise<string | undefined> {
    let skip = this.#size;
    try {
      const stream = await openLog(this.cluster, this.submissionId, nodeId, follow, signal);
      this.#recovered();
      for await (const chunk of stream) {
        const rest = chunk.subarray(Math.min(skip, chunk.length));
        skip -= chunk.length - rest.length;
        if (rest.length > 0) await this.#write(rest);
      }
      return undefined;
    } catch (error) {
      return this.#broken === undefined ? reasonOf(error) : undefined;
    }
  }

  #tell(message: string, reason: string): void {
    this.operators.warn(message, { job: this.submissionId, bytes: this.#size, reason });
  }

  #recovered(): void {
    if (this.#outage?.told) {
      this.operators.info('the log of a job is read again', { job: this.submissionId });
    }
    this.#outage = undefined;
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
