import { patched, sleep } from '@temporalio/workflow';

/** Milliseconds from one telling to the next while work is young: what a person who looks on waits for. */
const SOONEST_MS = 15_000;
/** Later so much of the time since the work began: 15 s up to 8 minutes, two minutes after an hour. */
const PART_OF_TIME = 30;
/** So many tell as often as one would; of more each waits longer, as all of them add to one history. */
const FREE_TELLERS = 2;

/**
 * Milliseconds after which to tell once more. The number of tellings grows with the logarithm of the time: a
 * workflow that is told adds four events to its history for each, and must hold a month of them.
 *
 * @param elapsedMs since the work began
 * @param tellers who tell the same workflow
 */
export function tellEveryMs(elapsedMs: number, tellers: number): number {
  return Math.max(SOONEST_MS, elapsedMs / PART_OF_TIME) * Math.max(1, tellers / FREE_TELLERS);
}

/** Steps from one telling to the next are this part of all steps so far; the first ones are told each. */
const PART_OF_STEPS = 15;

/** How many steps are done when it is time to tell again. Tellings grow with the logarithm of the steps. */
export function nextTelling(steps: number, tellers: number): number {
  const part = Math.max(1, tellers / FREE_TELLERS) / PART_OF_STEPS;
  return steps + Math.max(1, Math.ceil(steps * part));
}

/**
 * Tells another workflow how far work is, after so many steps of it, and nothing of importance: it may get lost.
 *
 * Neither clock nor timer has a say in when. A rank whose worker had just been replaced was seen to send what the ends
 * of its activities led to ahead of what a timer did, and at replay the other way round: the SDK had handed it the events
 * of one task in two steps (it was asked in between, which is the likely cause). It was stuck for good.
 */
export class ProgressTeller {
  #next: number;

  /**
   * @param steps that were told before
   */
  constructor(
    private readonly tell: () => Promise<void>,
    private readonly tellers = 1,
    steps = 0,
  ) {
    this.#next = steps === 0 ? 1 : nextTelling(steps, tellers);
  }

  /** So many steps are done: tells it if it is time. */
  reached(steps: number): void {
    if (steps < this.#next) return;
    this.#next = nextTelling(steps, this.tellers);
    this.now();
  }

  /** Tells at once, as it matters. */
  now(): void {
    // Whom it concerns may have ended, or the work is cancelled.
    void this.tell().catch(() => undefined);
  }
}

/** Tells another workflow how it is, at most so often, and nothing of importance: it may get lost. */
export class Teller {
  #waits = false;

  /**
   * @param began milliseconds since the epoch at which the work began
   * @param toldAt when it was told last
   */
  constructor(
    private readonly tell: () => Promise<void>,
    private readonly began: number,
    private readonly tellers = 1,
    private toldAt = -Infinity,
  ) {}

  /** When it was told last, in milliseconds since the epoch; undefined when it never was. */
  get last(): number | undefined {
    return Number.isFinite(this.toldAt) ? this.toldAt : undefined;
  }

  /** Something is new: tells it now, or when it is time. */
  changed(): void {
    // Histories without this patch tell nothing.
    if (this.#waits || !patched('live-numbers')) return;
    const next = this.toldAt + tellEveryMs(this.toldAt - this.began, this.tellers);
    const wait = next - Date.now();
    if (wait > 0) void this.#later(wait);
    else this.now();
  }

  /** Tells at once, as it matters. */
  now(): void {
    if (!patched('live-numbers')) return;
    this.toldAt = Date.now();
    // Whom it concerns may have ended, or the work is cancelled.
    void this.tell().catch(() => undefined);
  }

  async #later(ms: number): Promise<void> {
    this.#waits = true;
    try {
      await sleep(ms, { summary: 'Tell how far it is' });
      this.now();
    } catch {
      // The work is cancelled.
    } finally {
      this.#waits = false;
    }
  }
}
