/**
 * What must hold whatever is killed. I1 every row once and its own answer, I2 nothing torn or half-visible,
 * I3 almost nothing generated twice, I4 nothing left behind, I5 every history replays, I6 recovery in time,
 * I7 no prompt and no secret outside the store.
 */
export type Invariant = 'I1' | 'I2' | 'I3' | 'I4' | 'I5' | 'I6' | 'I7';

/** One thing that does not hold. */
export interface Violation {
  readonly invariant: Invariant;
  /** Stable name, e.g. `row-lost`. */
  readonly code: string;
  readonly message: string;
  readonly run?: string;
}
