import type { Engine } from '../lab/engines.js';
import type { Trial } from '../lab/trial.js';
import type { Held, Phase } from '../phases.js';
import type { Random } from '../random.js';
import type { Backend } from '../workload.js';
import type { Bound } from './bounds.js';

/** What a fault has to work on. */
export interface Target {
  readonly trial: Trial;
  readonly random: Random;
  /** In the phase `commit`. */
  readonly held?: Held;
}

/** A fault that has chosen what it hits; nothing has happened yet. */
export interface Strike {
  /** For the report, e.g. `engine 1 (pid 4711)`. Never a prompt. */
  readonly what: string;
  /** Engines whose unfinished rows it costs, of whichever run they are. */
  readonly engines?: readonly Pick<Engine, 'pid'>[];
  /** Engines that have to be replaced before all is well again, though they may seem alive. */
  readonly replaced?: readonly Engine[];
  strike(): void | Promise<void>;
  /** Why it was not what it is meant to be, known when it is healed: it does not count as tried then. */
  readonly missed?: string | undefined;
  /** Ends the fault `holdSeconds` later: wakes, frees, reconnects. Absent where the product has to heal alone. */
  heal?(): void | Promise<void>;
  readonly holdSeconds?: number;
  /** An engine that is held in a commit stays still after the strike. */
  readonly keepsStill?: boolean;
}

/** What has to work again after a fault. */
export type Scope = 'stack' | 'fleet' | 'cluster' | 'run';

export interface Fault {
  readonly name: string;
  readonly title: string;
  /** Where it applies; the first is the one where it hurts most. */
  readonly phases: readonly [Phase, ...Phase[]];
  readonly backends: readonly Backend[];
  readonly scope: Scope;
  /** Whether it goes on hitting engines after it struck. */
  readonly lasts?: true;
  /**
   * Seconds after which, at the latest, what it hit is well again and every batch that it interrupted is
   * committed, when no other fault follows.
   */
  readonly bound: Bound;
  /** @throws NotPossible when there is nothing to hit now, or this machine does not let it */
  aim(target: Target): Promise<Strike>;
}

/** A fault cannot be tried here: told in the report, never hidden. */
export class NotPossible extends Error {
  override readonly name = 'NotPossible';
}

/** The thing, or {@link NotPossible}. */
export function need<T>(thing: T | undefined, what: string): T {
  if (thing === undefined) throw new NotPossible(`${what} is not there`);
  return thing;
}
