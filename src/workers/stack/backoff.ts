/** A process that ran this long counts as healthy: its next failure starts the waiting from the beginning. */
export const HEALTHY_MS = 60_000;
const FIRST_MS = 500;
/** A broken process must not eat the machine, but a mended one should be back before people notice. */
const LONGEST_MS = 30_000;

/** Failures in a row after a process that ran for `ranMs` ended, given those before it. */
export function countFailures(before: number, ranMs: number): number {
  return ranMs >= HEALTHY_MS ? 1 : before + 1;
}

/** How long to wait, in ms, before the start that follows `failures` failures in a row (at least 1). */
export function restartDelay(failures: number): number {
  return Math.min(FIRST_MS * 2 ** (failures - 1), LONGEST_MS);
}
