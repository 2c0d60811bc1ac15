import type { Phase } from '../phases.js';
import type { Random } from '../random.js';
import type { Backend } from '../workload.js';
import {
  hang,
  killCore,
  killEngine,
  outOfMemory,
  secondLoss,
  tornWrite,
  zombie,
} from './engines.js';
import type { Fault } from './fault.js';
import {
  drainNode,
  killAllNodes,
  killHead,
  killNode,
  killRaylet,
  preempt0,
  preempt120,
  preempt30,
} from './nodes.js';
import { cancel } from './run.js';
import {
  drainControlWorker,
  drainPythonWorker,
  killChild,
  killCli,
  killControlWorker,
  killPythonWorker,
  killSupervisor,
  killTemporal,
} from './stack.js';

/** Faults that need nothing but a run on a local cluster. Those of stores and networks come with their stage. */
export const FAULTS: readonly Fault[] = [
  killEngine,
  killCore,
  zombie,
  hang,
  outOfMemory,
  secondLoss,
  tornWrite,
  killNode,
  killRaylet,
  killHead,
  killAllNodes,
  preempt120,
  preempt30,
  preempt0,
  drainNode,
  killControlWorker,
  killPythonWorker,
  drainControlWorker,
  drainPythonWorker,
  killChild,
  killTemporal,
  killCli,
  killSupervisor,
  cancel,
];

/** A fault and the phase to try it in. */
export interface Card {
  readonly fault: Fault;
  readonly phase: Phase;
}

/** What of the campaign is to be tried. */
export interface Selection {
  readonly only?: string | undefined;
  readonly phase?: Phase | undefined;
  /** Faults that another campaign tries while a run generates; in other phases they are tried all the same. */
  readonly elsewhere?: readonly string[] | undefined;
}

/** Every fault in each of the phases that it applies to. */
export function cardsOf(
  faults: readonly Fault[],
  phases: readonly Phase[],
  backend: Backend,
  { only, phase: onlyPhase }: Selection = {},
): Card[] {
  return faults
    .filter(({ name, backends }) => backends.includes(backend) && (only ?? name) === name)
    .flatMap((fault) => fault.phases.map((phase) => ({ fault, phase })))
    .filter(({ phase }) => phases.includes(phase) && (onlyPhase ?? phase) === phase);
}

/** Deals every card once, those of the phase where a fault hurts most first, and then again in another order. */
export class Deck {
  #left: Card[] = [];
  #dealt = 0;

  /** @param rounds how often all cards are dealt */
  constructor(
    private readonly cards: readonly Card[],
    private readonly random: Random,
    private readonly rounds = Number.POSITIVE_INFINITY,
  ) {}

  /** Undefined when all rounds are over. */
  deal(): Card | undefined {
    if (this.#left.length === 0) {
      if (this.#dealt >= this.rounds || this.cards.length === 0) return undefined;
      this.#dealt += 1;
      const first = ({ fault, phase }: Card): boolean => fault.phases[0] === phase;
      const shuffled = this.random.shuffle(this.cards);
      this.#left = [...shuffled.filter(first), ...shuffled.filter((card) => !first(card))];
    }
    return this.#left.shift();
  }
}
