import type { ClusterObservation } from '../contracts/activities.js';

/** Since when nobody has used a cluster. Pure state, no timers. */
export class Idle {
  #since: number | undefined;

  /**
   * @param minutes after which an unused cluster is to go; undefined: never
   * @param since what an earlier history carried: milliseconds since the epoch
   */
  constructor(
    private readonly minutes: number | undefined,
    since?: number,
  ) {
    this.#since = since;
  }

  /**
   * Takes in a look; one that could not see whether there are engines and jobs counts as use.
   *
   * @param users how many workflows need the cluster
   * @param now milliseconds since the epoch
   * @returns whether it is time to go
   */
  see({ engines, jobs }: ClusterObservation, users: number, now: number): boolean {
    if (this.minutes === undefined) return false;
    const unused = engines !== undefined && Object.values(engines).every((count) => count === 0);
    const idle = unused && jobs === 0 && users === 0;
    this.#since = idle ? (this.#since ?? now) : undefined;
    return this.#since !== undefined && now - this.#since >= this.minutes * 60_000;
  }

  /** For the next history, which begins after hours or with another build: the time counts on. */
  carried(): { idleSince?: number } {
    return this.#since === undefined ? {} : { idleSince: this.#since };
  }
}
