import type { CordonRequest, CordonResult } from '../contracts/workflows.js';

/**
 * Names of the nodes of a cluster that get nothing new. By name, so that a node that is started again, or a head that
 * is rebuilt, is as it was. Pure state, no timers.
 */
export class Unschedulable {
  readonly #names: Set<string>;

  constructor(carried: readonly string[] = []) {
    this.#names = new Set(carried);
  }

  get names(): readonly string[] {
    return [...this.#names];
  }

  has(name: string): boolean {
    return this.#names.has(name);
  }

  /**
   * Why a request cannot be met, or undefined. What is cordoned can always be taken back: its node may be away.
   *
   * @param known names of the nodes of the cluster
   */
  refusal({ nodes, unschedulable }: CordonRequest, known: readonly string[]): string | undefined {
    const there = new Set([...known, ...(unschedulable ? [] : this.#names)]);
    const strange = nodes.filter((name) => !there.has(name));
    if (strange.length === 0) return undefined;
    const others = known.length === 0 ? 'none is known yet' : `there are ${known.join(', ')}`;
    return `there is no node ${strange.join(', ')}; ${others}`;
  }

  /** Carries out a request that is not refused. */
  change({ nodes, unschedulable }: CordonRequest): CordonResult {
    const changed = [...new Set(nodes)].filter((name) => this.has(name) !== unschedulable);
    for (const name of changed) {
      if (unschedulable) this.#names.add(name);
      else this.#names.delete(name);
    }
    return { changed, unschedulable: this.names };
  }

  /** Nodes that were removed, or are added anew. Returns those that were cordoned. */
  forget(names: readonly string[]): string[] {
    return [...new Set(names)].filter((name) => this.#names.delete(name));
  }

  /** Part of a status, and of what a later run of the workflow is told. */
  carried(): { unschedulable?: readonly string[] } {
    return this.#names.size === 0 ? {} : { unschedulable: this.names };
  }
}
