import type {
  ClusterEvent,
  ClusterHistoryState,
  ClusterNodeStatus,
} from '../contracts/workflows.js';

/** Events that a status shows: a screenful. */
const KEPT = 30;

const LEFT_ON_PURPOSE: ReadonlySet<string> = new Set(['draining', 'drained', 'spare']);

/** What happened to the nodes of a cluster, and since when they are what they are. Pure state, no timers. */
export class ClusterHistory {
  #events: ClusterEvent[];
  readonly #states: Map<string, { readonly state: string; readonly since: string }>;

  constructor(carried?: ClusterHistoryState) {
    this.#events = [...(carried?.events ?? [])];
    this.#states = new Map(carried?.states.map(([name, state, since]) => [name, { state, since }]));
  }

  get events(): readonly ClusterEvent[] {
    return this.#events;
  }

  note(what: string, now: number, node?: string): void {
    const at = new Date(now).toISOString();
    this.#events = [...this.#events, { at, what, ...(node !== undefined && { node }) }].slice(
      -KEPT,
    );
  }

  /** Notes changes of state. Returns the nodes that were alive and are not any more. */
  see(nodes: readonly ClusterNodeStatus[], now: number): string[] {
    const lost: string[] = [];
    const names = new Set(nodes.map(({ name }) => name));
    for (const name of this.#states.keys()) if (!names.has(name)) this.#states.delete(name);
    for (const { name, state } of nodes) {
      const before = this.#states.get(name)?.state;
      if (before === state) continue;
      this.#states.set(name, { state, since: new Date(now).toISOString() });
      this.note(before === undefined ? `is ${state}` : `was ${before}, is ${state}`, now, name);
      if (before === 'alive' && !LEFT_ON_PURPOSE.has(state)) lost.push(name);
    }
    return lost;
  }

  sinceOf(node: string): string | undefined {
    return this.#states.get(node)?.since;
  }

  carried(): { history: ClusterHistoryState } {
    const states = [...this.#states].map(
      ([name, { state, since }]) => [name, state, since] as const,
    );
    return { history: { events: this.#events, states } };
  }
}
