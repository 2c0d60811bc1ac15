import type { NodeTrouble, Problem } from '../contracts/workflows.js';
import { isRetryable } from './failures.js';

/** Failures after which a node is left alone. */
export const FAILURES_LIMIT = 5;
/** Seconds from the second failure to the next try; doubled with each further one: 5 failures take two minutes. */
const FIRST_WAIT_S = 10;
/** Seconds that a node has to be well before its failures are forgotten: one that dies sooner flaps. */
export const STABLE_S = 600;
/** Seconds after which a failed node gets one more try: its machine may have come back. */
export const FAILED_REST_S = 600;

/** How often each node failed, and when it may be tried again. Pure state, no timers. */
export class Troubles {
  readonly #byNode: Map<string, NodeTrouble>;

  constructor(carried: readonly (readonly [string, NodeTrouble])[] = []) {
    this.#byNode = new Map(carried);
  }

  /** Notes a failure. What another try does not change counts as all of them. */
  note(node: string, problem: Problem, now: number): void {
    const before = this.#byNode.get(node);
    const stable = before !== undefined && now - before.lastAt > STABLE_S * 1000;
    const counted =
      before === undefined || (stable && !this.isFailed(node, before.lastAt)) ? 0 : before.failures;
    const failures = isRetryable(problem) ? Math.min(FAILURES_LIMIT, counted + 1) : FAILURES_LIMIT;
    this.#byNode.set(node, { failures, lastAt: now, problem });
  }

  /** Leaves a node alone without trying. */
  fail(node: string, problem: Problem, now: number): void {
    this.#byNode.set(node, { failures: FAILURES_LIMIT, lastAt: now, problem });
  }

  /** A node that is well for long enough has nothing against it any more. */
  well(node: string, now: number): void {
    const trouble = this.#byNode.get(node);
    if (trouble !== undefined && now - trouble.lastAt > STABLE_S * 1000) this.#byNode.delete(node);
  }

  forgive(node: string): void {
    this.#byNode.delete(node);
  }

  of(node: string): NodeTrouble | undefined {
    return this.#byNode.get(node);
  }

  /** Whether it is left alone, at least for some time. */
  isFailed(node: string, now: number): boolean {
    const trouble = this.#byNode.get(node);
    if (trouble === undefined || trouble.failures < FAILURES_LIMIT) return false;
    return now - trouble.lastAt < FAILED_REST_S * 1000;
  }

  /** Whether it may be started now. The first failure is tried again at once. */
  mayStart(node: string, now: number): boolean {
    const trouble = this.#byNode.get(node);
    if (trouble === undefined) return true;
    return (
      !this.isFailed(node, now) && now >= trouble.lastAt + waitSeconds(trouble.failures) * 1000
    );
  }

  carried(): (readonly [string, NodeTrouble])[] {
    return [...this.#byNode];
  }
}

/** Seconds from a failure to the next try. */
const waitSeconds = (failures: number): number =>
  failures < 2 || failures >= FAILURES_LIMIT ? 0 : FIRST_WAIT_S * 2 ** (failures - 2);
