import type { ClusterObservation } from '../contracts/activities.js';
import type { SshNode, SshProvider } from '../contracts/cluster.js';
import type {
  ChangeNodesRequest,
  ChangeNodesResult,
  MembersState,
  Problem,
} from '../contracts/workflows.js';
import { HEAD } from './names.js';
import { Troubles } from './troubles.js';

/** Seconds that engines on a node have when fewer nodes are wanted: as long as a removed engine drains. */
export const SCALE_DOWN_S = 30;

/**
 * Which hosts of a cluster over ssh are its nodes: as many workers as are wanted, in order of preference, and spares
 * in the place of those that fail. A spare that took a place keeps it. Pure state, no timers.
 */
export class Members {
  readonly troubles: Troubles;
  #nodes: SshProvider;
  #active: string[];
  #leaving: Set<string>;
  readonly #drains: Map<string, number>;
  /** Nodes that were drained: they are left out until somebody adds them again. */
  readonly #cordoned: Set<string>;
  /** Nodes that were removed and are still to be ended. */
  #gone: readonly SshNode[];

  constructor(asked: SshProvider, carried?: MembersState) {
    this.#nodes = carried?.nodes ?? asked;
    this.#active = [
      ...(carried?.active ?? asked.workers.slice(0, asked.count).map(({ name }) => name)),
    ];
    this.#leaving = new Set(carried?.leaving);
    this.#drains = new Map(carried?.drains);
    this.#cordoned = new Set(carried?.cordoned);
    this.#gone = carried?.gone ?? [];
    this.troubles = new Troubles(carried?.troubles);
  }

  get nodes(): SshProvider {
    return this.#nodes;
  }

  /** With the nodes that were removed and are still to be ended. */
  get everyNode(): SshProvider {
    return { ...this.#nodes, workers: [...this.#nodes.workers, ...this.#gone] };
  }

  /** Worker nodes that are wanted. */
  get active(): readonly string[] {
    return this.#active;
  }

  /** Nodes to be ended as soon as their hosts answer. */
  get leaving(): readonly string[] {
    return [...this.#leaving];
  }

  /** Every node whose host is asked: a spare has nothing to say. */
  get watched(): readonly string[] {
    return [HEAD, ...new Set([...this.#active, ...this.#drains.keys(), ...this.#leaving])];
  }

  get spares(): readonly string[] {
    const used = new Set(this.watched);
    return this.#nodes.workers.map(({ name }) => name).filter((name) => !used.has(name));
  }

  isCordoned(node: string): boolean {
    return this.#cordoned.has(node);
  }

  get draining(): readonly string[] {
    return [...this.#drains.keys()];
  }

  deadlineOf(node: string): number | undefined {
    return this.#drains.get(node);
  }

  hostOf(name: string): string | undefined {
    const { head, workers } = this.everyNode;
    return [head, ...workers].find((node) => node.name === name)?.host;
  }

  /**
   * Takes what has failed out of its place while there is another for it, and fills places that are open. With no
   * other the failed one keeps its place, to be tried again later.
   *
   * @returns what changed, for people
   */
  settle(now: number): { readonly node: string; readonly what: string }[] {
    const before = new Set(this.#active);
    const { workers, count } = this.#nodes;
    const free = workers
      .map(({ name }) => name)
      .filter((name) => !this.#drains.has(name) && !this.#cordoned.has(name));
    const good = free.filter((name) => !this.troubles.isFailed(name, now));
    const there = this.#active.filter((name) => good.includes(name)).slice(0, count);
    const others = good.filter((name) => !there.includes(name));
    const chosen = [...there, ...others].slice(0, count);
    const failed = free.filter((name) => !good.includes(name));
    const open = count - chosen.length;
    // Those that had a place before those that never had.
    const keep = failed.toSorted((a, b) => Number(before.has(b)) - Number(before.has(a)));
    this.#active = [...chosen, ...keep.slice(0, open)];
    const after = new Set(this.#active);
    for (const name of before)
      if (!after.has(name) && !this.#drains.has(name)) this.#leaving.add(name);
    for (const name of after) this.#leaving.delete(name);
    return [
      ...[...before]
        .filter((name) => !after.has(name))
        .map((node) => ({ node, what: 'loses its place' })),
      ...this.#active
        .filter((name) => !before.has(name))
        .map((node) => ({ node, what: 'takes a place' })),
    ];
  }

  /** Drained nodes whose time is over, or that have nothing left to do, are to be ended. */
  endDrains({ reachable, nodes, engines }: ClusterObservation, now: number): void {
    for (const [name, deadline] of this.#drains) {
      const node = nodes.find((one) => one.name === name && one.alive);
      const idle =
        reachable && engines !== undefined && (node === undefined || !engines[node.nodeId]);
      if (now < deadline && !idle) continue;
      this.#drains.delete(name);
      this.#leaving.add(name);
    }
  }

  ended(node: string): void {
    this.#leaving.delete(node);
    this.#gone = this.#gone.filter(({ name }) => name !== node);
  }

  /** Why a request cannot be met, or undefined. */
  refusal({ add = [], remove = [], drain, count }: ChangeNodesRequest): string | undefined {
    const known = new Set(this.#nodes.workers.map(({ name }) => name));
    for (const node of add) {
      const twin = [this.#nodes.head, ...this.#nodes.workers].find(
        ({ name, host, ssh }) =>
          name !== node.name && host === node.host && ssh?.port === node.ssh?.port,
      );
      if (twin !== undefined) return `${node.host} is the host of ${twin.name}`;
      if (node.name === HEAD) return 'the head cannot be added';
      known.add(node.name);
    }
    for (const name of [...remove, ...(drain?.nodes ?? [])]) {
      if (name === HEAD) return 'the head goes only with its cluster: use `rankflow cluster down`';
      if (!known.has(name))
        return `there is no node ${name}; there are ${[...known].join(', ') || 'none'}`;
    }
    for (const name of drain?.nodes ?? []) {
      if (!this.#active.includes(name)) return `${name} has no place in the cluster`;
    }
    for (const name of remove) known.delete(name);
    if (count !== undefined && count > known.size) {
      return `${count} worker nodes are wanted, and there are hosts for ${known.size}: add some`;
    }
    return undefined;
  }

  /** Whether adding a node means one more: it is new, or a spare that is well. Others are only tried again. */
  #isMore(name: string): boolean {
    if (this.#active.includes(name)) return false;
    return !this.#cordoned.has(name) && this.troubles.of(name) === undefined;
  }

  /**
   * Carries out a request that is not refused; drains are begun by the caller.
   *
   * @param asNamed false: the first of the spares takes the place of one that is added, and a spare stays one, as
   *   in histories of before
   */
  change(
    { add = [], spare = false, remove = [], drain, count }: ChangeNodesRequest,
    now: number,
    asNamed = true,
  ): ChangeNodesResult {
    const added = new Map(add.map((node) => [node.name, node]));
    const gone = new Set(remove);
    const workers = this.#nodes.workers.map((node) => added.get(node.name) ?? node);
    const known = new Set(workers.map(({ name }) => name));
    const all = [...workers, ...add.filter(({ name }) => !known.has(name))].filter(
      ({ name }) => !gone.has(name),
    );
    const more = spare
      ? []
      : [...added.keys()].filter((name) => (asNamed ? this.#isMore(name) : !known.has(name)));
    for (const { name } of add) {
      this.troubles.forgive(name);
      this.#cordoned.delete(name);
      this.#drains.delete(name);
      this.#leaving.delete(name);
    }
    const places = count ?? Math.min(this.#nodes.count + more.length, all.length);
    if (asNamed && count === undefined) this.#active = [...this.#active, ...more];
    for (const name of drain?.nodes ?? []) {
      this.#drains.set(name, now + (drain?.seconds ?? 0) * 1000);
      this.#cordoned.add(name);
    }
    for (const name of gone) {
      if (!this.watched.includes(name)) continue;
      this.#leaving.add(name);
      this.#gone = [...this.#gone, ...workers.filter((node) => node.name === name)];
      this.#active = this.#active.filter((one) => one !== name);
      this.#drains.delete(name);
      this.#cordoned.delete(name);
      this.troubles.forgive(name);
    }
    // Those that are too many get time for what they do.
    for (const name of this.#active.filter((one) => !this.#drains.has(one)).slice(places)) {
      this.#drains.set(name, now + SCALE_DOWN_S * 1000);
    }
    this.#active = this.#active.filter((name) => !this.#drains.has(name));
    this.#nodes = { ...this.#nodes, workers: all, count: places };
    return { active: this.#active, spares: this.spares };
  }

  /** Gives every node that failed another chance. */
  forgive(): void {
    for (const [node] of this.troubles.carried()) this.troubles.forgive(node);
  }

  /** Problems of the nodes that have a place and have failed: nothing is left to try for them now. */
  stuck(now: number): { readonly node: string; readonly problem: Problem }[] {
    return [HEAD, ...this.#active].flatMap((node) => {
      const trouble = this.troubles.of(node);
      return trouble && this.troubles.isFailed(node, now)
        ? [{ node, problem: trouble.problem }]
        : [];
    });
  }

  carried(): { members: MembersState } {
    return {
      members: {
        nodes: this.#nodes,
        active: this.#active,
        leaving: this.leaving,
        drains: [...this.#drains],
        troubles: this.troubles.carried(),
        ...(this.#cordoned.size > 0 && { cordoned: [...this.#cordoned] }),
        ...(this.#gone.length > 0 && { gone: this.#gone }),
      },
    };
  }
}
