import {
  ActivityFailure,
  CancellationScope,
  isCancellation,
  proxyActivities,
} from '@temporalio/workflow';

import type { EngineActivities } from '../contracts/activities.js';
import type { FleetSpec } from '../contracts/fleet.js';
import { engineQueue } from '../contracts/names.js';
import type { DrainResult } from '../contracts/preemption.js';
import type { Problem } from '../contracts/workflows.js';
import { problemOf } from './failures.js';

type Drain = Pick<EngineActivities, 'drain'>;

/**
 * An engine that has not answered this long after its node's deadline went with the node: it gives everything back
 * seconds before. Ray takes about as long to notice a lost node.
 */
const LATE_MS = 15_000;

/** How a drain ended: what the engine gave back, or why it did not say. */
export type Drained =
  | { readonly kind: 'drained'; readonly result: DrainResult }
  | { readonly kind: 'lost'; readonly problem: Problem };

/** The drains under way, one for each deadline of an engine: a sooner one hastens the engine. */
export class Drains {
  readonly #sent = new Map<string, CancellationScope>();

  constructor(
    private readonly report: (slot: number, incarnation: string, drained: Drained) => void,
  ) {}

  /** Asks one incarnation of one slot to be done by `deadline` (ISO 8601), unless it was asked already. */
  send(fleet: FleetSpec, slot: number, incarnation: string, deadline: string): void {
    const key = `${slot} ${incarnation} ${deadline}`;
    if (this.#sent.has(key)) return;
    const scope = new CancellationScope();
    this.#sent.set(key, scope);
    void scope.run(async () => {
      const drained = await ask(fleet, slot, incarnation, Date.parse(deadline));
      if (drained !== undefined) this.report(slot, incarnation, drained);
    });
  }

  /** Waits for none of them any more; the engines go on draining. */
  cancel(): void {
    for (const scope of this.#sent.values()) scope.cancel();
  }
}

async function ask(
  fleet: FleetSpec,
  slot: number,
  incarnation: string,
  deadline: number,
): Promise<Drained | undefined> {
  const left = Math.max(0, deadline - Date.now());
  const { drain } = proxyActivities<Drain>({
    taskQueue: engineQueue(fleet.name, fleet.specHash, slot, incarnation),
    scheduleToCloseTimeout: left + LATE_MS,
    // It heartbeats each second, from a thread that a busy engine does not hold up.
    heartbeatTimeout: '30 seconds',
    // Only this incarnation can do it, and it goes on by itself once it was told.
    retry: { maximumAttempts: 1 },
  });
  const summary = `Drain engine ${slot} (${incarnation}): it goes in ${Math.round(left / 1000)} s`;
  try {
    const input = { specHash: fleet.specHash, deadline };
    return { kind: 'drained', result: await drain.executeWithOptions({ summary }, [input]) };
  } catch (error) {
    if (isCancellation(error)) return undefined;
    if (!(error instanceof ActivityFailure)) throw error;
    const reason = problemOf(error).message;
    const message = `engine ${slot} was not drained before its node went: ${reason}`;
    return { kind: 'lost', problem: { type: 'EngineGone', message } };
  }
}
