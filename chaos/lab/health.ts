import type { Scope, Strike } from '../faults/fault.js';
import { enginesOf } from './engines.js';
import { processInfo, sleep } from './processes.js';
import type { Stack } from './stack.js';

/** One look at everything. */
interface Sample {
  /** When the look began, ms since the epoch. */
  readonly at: number;
  readonly stack: boolean;
  readonly clusters: ReadonlyMap<string, boolean>;
  readonly fleets: ReadonlyMap<string, boolean>;
  /** Pids of the engines that answer for a slot. */
  readonly engines: ReadonlySet<number>;
}

const EVERY_MS = 1000;

/** Where a run is. */
interface Place {
  readonly cluster: string;
  readonly fleet: string;
}

/**
 * Looks at the stack, its clusters and its fleets once a second, so that afterwards it is known when what a fault
 * hit was well again. Well: the workflow says so, and the processes that it relies on run (they are not stopped).
 */
export class Health {
  readonly clusters = new Set<string>();
  readonly fleets = new Set<string>();
  readonly #samples: Sample[] = [];
  #stopped = false;
  #looking: Promise<void>;

  constructor(private readonly stack: Stack) {
    this.#looking = this.#look();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#looking;
  }

  /**
   * Whether it can be told when what a fault hit is well again. A fleet that goes with its run is not waited for: it
   * may go before it is whole again.
   */
  judges(scope: Scope, { cluster, fleet }: Place): boolean {
    if (scope === 'cluster') return this.clusters.has(cluster);
    return scope === 'stack' || (scope === 'fleet' && this.fleets.has(fleet));
  }

  /**
   * When what a fault hit was first seen well again, ms since the epoch.
   *
   * @param after when it struck, or when it ended
   */
  healedAt(
    after: number,
    scope: Scope,
    { cluster, fleet }: Place,
    { replaced = [] }: Pick<Strike, 'replaced'>,
  ): number | undefined {
    return this.#samples.find(
      (sample) =>
        sample.at > after &&
        sample.stack &&
        (scope === 'stack' || sample.fleets.get(fleet) !== false) &&
        (scope !== 'cluster' || sample.clusters.get(cluster) !== false) &&
        !replaced.some(({ pid }) => sample.engines.has(pid)),
    )?.at;
  }

  /** Waits until all of it is well. @returns whether it was within `seconds` */
  async well(seconds: number): Promise<boolean> {
    const since = Date.now();
    while (Date.now() - since < seconds * 1000) {
      const last = this.#samples.at(-1);
      const parts = last && [last.stack, ...last.clusters.values(), ...last.fleets.values()];
      if (last !== undefined && last.at > since && parts?.every((part) => part)) return true;
      await sleep(200);
    }
    return false;
  }

  async #look(): Promise<void> {
    while (!this.#stopped) {
      const at = Date.now();
      this.#samples.push(await this.#sample(at));
      await sleep(Math.max(100, at + EVERY_MS - Date.now()));
    }
  }

  async #sample(at: number): Promise<Sample> {
    const { stack } = this;
    const names = ['control-worker', 'python-worker'] as const;
    const running =
      stack.supervisor() !== undefined &&
      names.every((name) => runs(stack.process(name))) &&
      (stack.server !== undefined || runs(stack.process('temporal')));
    const engines = new Set<number>();
    const fleets = await Promise.all(
      [...this.fleets].map(async (fleet): Promise<[string, boolean]> => {
        const status = await stack.fleetStatus(fleet);
        const alive = enginesOf(status).filter(({ pid }) => runs(pid));
        for (const { pid } of alive) engines.add(pid);
        return [fleet, status?.state === 'ready' && alive.length >= status.desired];
      }),
    );
    const clusters = await Promise.all(
      [...this.clusters].map(async (cluster): Promise<[string, boolean]> => {
        const status = await stack.clusterStatus(cluster);
        const nodes = stack.nodes(cluster);
        const up = nodes.every((node) => runs(stack.nodeLeader(cluster, node)));
        return [cluster, status?.state === 'ready' && (up || status.provider === 'existing')];
      }),
    );
    // Whoever answered a query was there: with nothing to ask, the processes have to do.
    return { at, stack: running, clusters: new Map(clusters), fleets: new Map(fleets), engines };
  }
}

const runs = (pid: number | undefined): boolean => {
  const state = pid === undefined ? undefined : processInfo(pid)?.state;
  return state !== undefined && state !== 'T';
};
