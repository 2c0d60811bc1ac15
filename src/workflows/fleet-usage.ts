import type { RayNode } from '../contracts/activities.js';
import type {
  FleetSlotStatus,
  FleetUsage,
  NodeUsage,
  UsageCarried,
  UserUsage,
} from '../contracts/workflows.js';

type Seconds = Omit<NodeUsage, 'node'>;

/** States in which an engine holds its part of a node. */
const COUNTED: Readonly<Partial<Record<FleetSlotStatus['state'], keyof Seconds>>> = {
  loading: 'loadingSeconds',
  ready: 'readySeconds',
  draining: 'drainingSeconds',
};

/**
 * How long the engines of a fleet were held, on which nodes and for whom. The time in which several used the fleet is
 * shared out in equal parts, whatever each of them generated; time in which nobody did is nobody's. Pure state, no
 * timers: what ended between two looks is counted until the second one.
 */
export class Usage {
  readonly #users = new Map<string, Map<string, Seconds>>();
  readonly #preemptions = new Map<string, number>();
  readonly #names: Map<string, string>;
  #until: number | undefined;

  constructor(carried?: UsageCarried) {
    this.#until = carried?.until;
    this.#names = new Map(Object.entries(carried?.names ?? {}));
    for (const { user, nodes, preemptions } of carried?.users ?? []) {
      this.#users.set(user, new Map(nodes.map(({ node, ...seconds }) => [node, seconds])));
      if (preemptions !== undefined) this.#preemptions.set(user, preemptions);
    }
  }

  /** Learns what people call the nodes. */
  know(nodes: readonly Pick<RayNode, 'nodeId' | 'name'>[]): void {
    for (const { nodeId, name } of nodes) this.#names.set(nodeId, name);
  }

  /**
   * Counts the time since it was called last.
   *
   * @param slots as they have been since
   * @param users who have used them since
   * @param now milliseconds since the epoch
   */
  count(slots: readonly FleetSlotStatus[], users: readonly string[], now: number): void {
    const seconds = Math.max(0, now - (this.#until ?? now)) / 1000 / users.length;
    this.#until = now;
    if (users.length === 0 || seconds === 0) return;
    for (const { state, nodeId, replaces } of slots) {
      const kind = COUNTED[state];
      if (kind === undefined || nodeId === undefined) continue;
      const again = replaces === true && kind === 'loadingSeconds';
      for (const user of users) {
        this.#add(user, nodeId, kind, seconds);
        if (again) this.#add(user, nodeId, 'reloadingSeconds', seconds);
      }
    }
  }

  /** So many engines got notice that their node is taken away. */
  preempted(engines: number, users: readonly string[]): void {
    if (engines === 0) return;
    for (const user of users) {
      this.#preemptions.set(user, (this.#preemptions.get(user) ?? 0) + engines);
    }
  }

  /** What was held for a user so far; undefined when there was nothing. */
  of(user: string): FleetUsage | undefined {
    const nodes = this.#users.get(user);
    if (nodes === undefined) return undefined;
    const preemptions = this.#preemptions.get(user);
    return {
      nodes: [...nodes]
        .map(([node, seconds]) => ({ node, ...rounded(seconds) }))
        .toSorted((a, b) => (a.node < b.node ? -1 : 1)),
      ...(preemptions !== undefined && { preemptions }),
    };
  }

  /** The same, and forgets it: the user has given the fleet back. */
  take(user: string): FleetUsage | undefined {
    const usage = this.of(user);
    this.#users.delete(user);
    this.#preemptions.delete(user);
    return usage;
  }

  get all(): readonly UserUsage[] {
    return [...this.#users.keys()].flatMap((user) => {
      const usage = this.of(user);
      return usage === undefined ? [] : [{ user, ...usage }];
    });
  }

  carried(): UsageCarried {
    const names = Object.fromEntries(this.#names);
    return { users: this.all, names, ...(this.#until !== undefined && { until: this.#until }) };
  }

  #add(user: string, nodeId: string, kind: keyof Seconds, seconds: number): void {
    const nodes = this.#users.get(user) ?? new Map<string, Seconds>();
    this.#users.set(user, nodes);
    const node = this.#names.get(nodeId) ?? nodeId.slice(0, 8);
    const before = nodes.get(node) ?? { loadingSeconds: 0, readySeconds: 0, drainingSeconds: 0 };
    nodes.set(node, { ...before, [kind]: (before[kind] ?? 0) + seconds });
  }
}

const toMilliseconds = (seconds: number): number => Math.round(seconds * 1000) / 1000;

const rounded = ({ loadingSeconds, reloadingSeconds, readySeconds, drainingSeconds }: Seconds) => ({
  loadingSeconds: toMilliseconds(loadingSeconds),
  ...(reloadingSeconds && { reloadingSeconds: toMilliseconds(reloadingSeconds) }),
  readySeconds: toMilliseconds(readySeconds),
  drainingSeconds: toMilliseconds(drainingSeconds),
});
