import {
  ActivityFailure,
  CancellationScope,
  isCancellation,
  proxyActivities,
} from '@temporalio/workflow';

import type { EngineActivities } from '../contracts/activities.js';
import { engineQueue } from '../contracts/names.js';
import type { CanaryResult, FleetSpec } from '../contracts/fleet.js';
import type { Problem } from '../contracts/workflows.js';
import { problemOf } from './failures.js';
import { A_FEW_TRIES } from './options.js';

type Canary = Pick<EngineActivities, 'canary'>;

/** The first canary of an incarnation waits for the model. */
const LOADING = {
  // The constructor of the actor starts its worker at once; imports take seconds, on a busy host a minute.
  scheduleToStartTimeout: '3 minutes',
  // The weights of a large model may have to be fetched first.
  startToCloseTimeout: '6 hours',
  // It heartbeats every few seconds while it waits; imports and compilation can hold up a process for a while.
  heartbeatTimeout: '2 minutes',
  retry: { ...A_FEW_TRIES, maximumAttempts: 2 },
} as const;

/** Later ones ask an engine that is known to work for one token. */
const CHECKING = {
  // Its worker polls all the time: only a process that is frozen or gone does not take it.
  scheduleToStartTimeout: '1 minute',
  // The engine itself gives up after a minute without any step, and says so.
  startToCloseTimeout: '2 minutes',
  // It heartbeats twice a second, from a thread that a busy engine does not hold up.
  heartbeatTimeout: '30 seconds',
  // Twice: killing an engine that is only slow costs a load and the rows in flight.
  retry: { ...A_FEW_TRIES, maximumAttempts: 2 },
} as const;

/** What a canary found out about one incarnation of one slot. */
export type Verdict =
  | { readonly kind: 'ready'; readonly result: CanaryResult }
  | { readonly kind: 'failed'; readonly problem: Problem }
  | { readonly kind: 'hung'; readonly problem: Problem };

/** Loads of a slot in a row that something that passes was in the way of: then it does not pass. */
const MOST_LOST_LOADS = 5;

/** The canaries in flight, one for each slot at most. */
export class Canaries {
  readonly #lostLoads = new Map<number, number>();
  readonly #flying = new Map<number, { incarnation: string; scope: CancellationScope }>();

  constructor(
    private readonly report: (slot: number, incarnation: string, verdict: Verdict) => void,
  ) {}

  isFlying(slot: number, incarnation: string): boolean {
    return this.#flying.get(slot)?.incarnation === incarnation;
  }

  /** Sends one, in place of one that is out for another incarnation. */
  send(fleet: FleetSpec, slot: number, incarnation: string, loaded: boolean): void {
    this.#flying.get(slot)?.scope.cancel();
    const scope = new CancellationScope();
    const flight = { incarnation, scope };
    this.#flying.set(slot, flight);
    void scope.run(async () => {
      const verdict = await ask(fleet, slot, incarnation, loaded);
      if (this.#flying.get(slot) === flight) this.#flying.delete(slot);
      if (verdict !== undefined) this.report(slot, incarnation, this.#last(slot, loaded, verdict));
    });
  }

  /** An engine whose load is lost each time would load for ever. */
  #last(slot: number, loaded: boolean, verdict: Verdict): Verdict {
    if (verdict.kind === 'ready') this.#lostLoads.delete(slot);
    if (loaded || verdict.kind !== 'hung' || verdict.problem.type !== 'EngineGone') return verdict;
    const lost = (this.#lostLoads.get(slot) ?? 0) + 1;
    this.#lostLoads.set(slot, lost);
    if (lost < MOST_LOST_LOADS) return verdict;
    return { kind: 'failed', problem: { ...verdict.problem, type: 'EngineLoadFailed' } };
  }

  /** Gives up all that are out; they report nothing. */
  cancel(): void {
    for (const { scope } of this.#flying.values()) scope.cancel();
    this.#flying.clear();
  }
}

async function ask(
  fleet: FleetSpec,
  slot: number,
  incarnation: string,
  loaded: boolean,
): Promise<Verdict | undefined> {
  const { canary } = proxyActivities<Canary>({
    ...(loaded ? CHECKING : LOADING),
    taskQueue: engineQueue(fleet.name, fleet.specHash, slot, incarnation),
  });
  const summary = `${loaded ? 'Check' : 'Wait for'} engine ${slot} (${incarnation})`;
  try {
    const result = await canary.executeWithOptions({ summary }, [{ specHash: fleet.specHash }]);
    return { kind: 'ready', result };
  } catch (error) {
    if (isCancellation(error)) return undefined;
    if (!(error instanceof ActivityFailure)) throw error;
    const problem = problemOf(error);
    const final = problem.type === 'EngineLoadFailed' || problem.type === 'ModelMismatch';
    return { kind: final ? 'failed' : 'hung', problem };
  }
}
