import type { PreemptionNotice } from '../contracts/preemption.js';

/**
 * Notices of preemption, one for each node: of several the one with the earliest deadline. A notice is never
 * taken back. Pure state, no timers.
 */
export class Notices {
  readonly #byNode: Map<string, PreemptionNotice>;

  constructor(carried: readonly PreemptionNotice[] = []) {
    this.#byNode = new Map(carried.map((notice) => [notice.nodeId, notice]));
  }

  /** Returns whether it is news. What names no moment, such as a year beyond all calendars, is none. */
  take(notice: PreemptionNotice): boolean {
    if (Number.isNaN(new Date(notice.deadline).getTime())) return false;
    const known = this.#byNode.get(notice.nodeId);
    if (known !== undefined && known.deadline <= notice.deadline) return false;
    this.#byNode.set(notice.nodeId, notice);
    return true;
  }

  forget(gone: (notice: PreemptionNotice) => boolean): void {
    for (const [nodeId, notice] of this.#byNode) if (gone(notice)) this.#byNode.delete(nodeId);
  }

  get byNode(): ReadonlyMap<string, PreemptionNotice> {
    return this.#byNode;
  }

  /** Ids of the nodes that are going to be taken away. */
  get nodes(): ReadonlySet<string> {
    return new Set(this.#byNode.keys());
  }

  carried(): { notices?: readonly PreemptionNotice[] } {
    return this.#byNode.size === 0 ? {} : { notices: [...this.#byNode.values()] };
  }
}
