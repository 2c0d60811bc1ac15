import type { Log } from './batch-worker.js';
import type { Batches } from './batches.js';
import type { Spaces } from './spaces.js';

/** Milliseconds between two rounds: a batch that nobody asks for is seen to end this late at most. */
const ROUND_MS = 3_000;
/** Milliseconds between two sweeps of what has expired: expired files are not shown before that either. */
const SWEEP_MS = 600_000;

/** Looks after open batches in the background, whether or not anybody asks for them. */
export class Keeper {
  private timer: NodeJS.Timeout | undefined;
  private round: Promise<void> = Promise.resolve();
  private sweptAt = 0;
  private readonly ending = new AbortController();

  constructor(
    private readonly batches: Batches,
    private readonly spaces: Spaces,
    private readonly log: Log,
  ) {}

  start(): void {
    if (this.ending.signal.aborted) return;
    this.round = this.once();
  }

  /** Ends the rounds; returns when the one that goes on is done. */
  async stop(): Promise<void> {
    this.ending.abort();
    clearTimeout(this.timer);
    await this.round;
  }

  private async once(): Promise<void> {
    try {
      await this.batches.advanceAll(this.ending.signal);
      if (Date.now() - this.sweptAt > SWEEP_MS) {
        this.sweptAt = Date.now();
        await this.spaces.sweep();
      }
    } catch (error) {
      this.log.error({ reason: (error as Error).message }, 'a round over the open batches failed');
    }
    if (this.ending.signal.aborted) return;
    this.timer = setTimeout(() => this.start(), ROUND_MS);
  }
}
