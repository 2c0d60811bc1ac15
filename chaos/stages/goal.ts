import type { Lab } from '../lab/lab.js';

/** When a stage has done enough. */
export class Goal {
  /**
   * @param faults how many to inject
   * @param deadline ms since the epoch after which none is injected
   */
  constructor(
    private readonly faults: number,
    private readonly deadline: number,
  ) {}

  reached(lab: Lab): boolean {
    return lab.struck.length >= this.faults || Date.now() > this.deadline;
  }
}
