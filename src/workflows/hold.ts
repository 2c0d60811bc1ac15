import { CancellationScope, condition, defineSignal } from '@temporalio/workflow';

import { SIGNAL } from '../contracts/names.js';
import type {
  FleetReady,
  FleetSize,
  Hold,
  HoldRequest,
  Problem,
  RunFleet,
} from '../contracts/workflows.js';

/** By hand, from Temporal's web interface or command line. */
export const pauseSignal = defineSignal<[{ now?: boolean }?]>(SIGNAL.pause);
export const resumeSignal = defineSignal(SIGNAL.resume);
export const drainSignal = defineSignal(SIGNAL.drain);
/** From a workflow to what it started. */
export const holdSignal = defineSignal<[HoldRequest]>(SIGNAL.hold);
/** From a fleet to what uses it. */
export const fleetSizeSignal = defineSignal<[FleetSize]>(SIGNAL.fleetSize);
export const fleetReadySignal = defineSignal<[FleetReady]>(SIGNAL.fleetReady);

/** What a child has to be told that was started with another size. */
export const sizeOf = ({ engines, maxEngines }: RunFleet): FleetSize => ({
  engines,
  ...(maxEngines !== undefined && { maxEngines }),
});

/**
 * Whether work that is handed out piece by piece goes on, waits, or ends after the pieces in work. Pauses may be
 * taken back, a drain may not. Without a hold it neither waits nor adds to the history.
 */
export class HeldWork {
  #hold: Hold;
  readonly #scopes = new Set<CancellationScope>();

  constructor(hold: Hold = 'none') {
    this.#hold = hold;
  }

  get hold(): Hold {
    return this.#hold;
  }

  get draining(): boolean {
    return this.#hold === 'drain';
  }

  /** Takes a request over; with `now` a pause gives up what is in work. */
  ask({ hold, now = false }: HoldRequest): void {
    if (this.draining) return;
    this.#hold = hold;
    if (hold === 'pause' && now) for (const scope of this.#scopes) scope.cancel();
  }

  /** Waits while work pauses. Returns whether another piece may begin. */
  async mayBegin(): Promise<boolean> {
    if (this.#hold === 'pause') await condition(() => this.#hold !== 'pause');
    return !this.draining;
  }

  /**
   * Does one piece of work, again after a pause that gave it up. It goes on with what it had recorded.
   *
   * @returns undefined when it was given up and work ends
   */
  async piece<T>(work: () => Promise<T>): Promise<T | undefined> {
    for (;;) {
      const scope = new CancellationScope();
      this.#scopes.add(scope);
      try {
        return await scope.run(work);
      } catch (error) {
        const outer = CancellationScope.current().consideredCancelled;
        if (!scope.consideredCancelled || outer) throw error;
      } finally {
        this.#scopes.delete(scope);
      }
      if (!(await this.mayBegin())) return undefined;
    }
  }
}

/** What is shown of a run that somebody holds. */
export function holdProblem(runId: string, hold: Hold): Problem | undefined {
  if (hold !== 'pause') return undefined;
  return {
    type: 'Unknown',
    message: 'paused by hand',
    wayOut: `\`rankflow resume ${runId}\` goes on.`,
  };
}
