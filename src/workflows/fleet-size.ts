import type { FleetSpec } from '../contracts/fleet.js';
import type { ScalingStep } from '../contracts/workflows.js';
import {
  planScaling,
  planStop,
  quietOf,
  withStep,
  type Demand,
  type Quiet,
  type Resize,
} from './fleet-scaling.js';

/** The changes of size of a fleet, and for how long it has been larger than needed. Pure state, no timers. */
export class FleetSize {
  #quiet: Quiet = {};
  #steps: readonly ScalingStep[];
  /** Batches that waited at the last look. */
  backlog: number | undefined;

  constructor(carried: readonly ScalingStep[] = []) {
    this.#steps = carried;
  }

  /** Takes a look into account. Returns the size that the fleet should have instead of the one that it has. */
  look(fleet: FleetSpec, demand: Demand, now: number): Resize | undefined {
    this.backlog = demand.backlog;
    this.#quiet = quietOf(this.#quiet, fleet, demand, now);
    return planScaling(fleet, demand, this.#quiet, now);
  }

  /** Why the fleet should stop now, by the last look. */
  stopReason(fleet: FleetSpec, now: number): string | undefined {
    return planStop(fleet, this.#quiet, now);
  }

  record(from: number, step: Resize, now: number): void {
    this.#steps = withStep(this.#steps, from, step, now);
    // Another size has to prove itself from the beginning.
    const { spareSince: _over, ...rest } = this.#quiet;
    this.#quiet = rest;
  }

  carried(): { steps?: readonly ScalingStep[] } {
    return this.#steps.length === 0 ? {} : { steps: this.#steps };
  }
}
