import type { Fault } from '../faults/fault.js';
import { type Card, Deck, type Selection, cardsOf } from '../faults/index.js';
import type { Bench, TrialRequest } from '../lab/bench.js';
import type { Struck } from '../lab/lab.js';
import { sleep } from '../lab/processes.js';
import type { Trial } from '../lab/trial.js';
import { type Phase, PhaseMissed } from '../phases.js';
import type { Random } from '../random.js';
import type { Goal } from './goal.js';

export interface StageOptions {
  readonly bench: Bench;
  readonly random: Random;
  readonly goal: Goal;
  readonly selection: Selection;
  readonly log: (line: string) => void;
  /** Each fault once, in the phase where it hurts most; else again and again until the goal is reached. */
  readonly short: boolean;
}

/** The faults that apply to some phases, as the stage wants them dealt. */
export function deckOf(
  { random, selection, short, bench }: StageOptions,
  faults: readonly Fault[],
  phases: readonly Phase[],
): Deck {
  const cards = cardsOf(faults, phases, bench.backend, selection);
  const wanted = short ? cards.filter(({ fault, phase }) => fault.phases[0] === phase) : cards;
  return new Deck(wanted, random, short ? 1 : Number.POSITIVE_INFINITY);
}

/** The next card of a deck, unless the goal is reached. */
export const deal = ({ goal, bench }: StageOptions, deck: Pick<Deck, 'deal'>): Card | undefined =>
  goal.reached(bench.lab) ? undefined : deck.deal();

/** Hits a run in a phase; undefined when that is not possible, or the run had no such phase any more. */
export async function hit(
  options: StageOptions,
  trial: Trial,
  card: Card,
  delayMs = 0,
): Promise<Struck | undefined> {
  const struck = await tryToHit(options, trial, card, delayMs);
  if (!(struck instanceof PhaseMissed)) return struck;
  skip(options, card, struck);
  return undefined;
}

/** A fault that is wanted once is tried so often, with so long between two tries (milliseconds). */
const TRIES = 4;
const AGAIN_MS = 10_000;

/** As {@link hit}, again a little later when its target is not there just now: others are being hit as well. */
export async function hitWhenPossible(
  options: StageOptions,
  trial: Trial,
  card: Card,
): Promise<Struck | undefined> {
  const { skipped } = options.bench.lab;
  for (let left = TRIES; ; left -= 1) {
    const struck = await hit(options, trial, card);
    if (struck !== undefined || left === 1 || trial.ended) return struck;
    await sleep(AGAIN_MS);
    const last = skipped.findLastIndex(
      ({ fault, phase }) => fault === card.fault.name && phase === card.phase,
    );
    if (last >= 0) skipped.splice(last, 1);
  }
}

/** The phases around generation, which a run goes through once. */
export const AROUND: readonly Phase[] = ['plan', 'deploy', 'finalize', 'teardown'];

/** Hits a run once in each of some phases, and waits for what the campaign heals. */
export async function hitOnItsWay(
  options: StageOptions,
  trial: Trial,
  cards: readonly Card[],
): Promise<void> {
  const healing: Promise<void>[] = [];
  for (const card of cards) {
    // Phases take seconds: some are hit at their beginning, some later.
    const struck = await hit(options, trial, card, options.random.int(0, 1500));
    if (struck !== undefined) healing.push(struck.healing);
  }
  await Promise.all(healing);
}

/** As {@link hit}, for who tries again when the phase was missed. */
async function tryToHit(
  { bench, random, log }: StageOptions,
  trial: Trial,
  { fault, phase }: Card,
  delayMs = 0,
): Promise<Struck | PhaseMissed | undefined> {
  try {
    return await bench.lab.inject(fault, phase, trial, random, delayMs);
  } catch (error) {
    if (!(error instanceof PhaseMissed)) throw error;
    log(error.message);
    return error;
  }
}

const skip = ({ bench }: StageOptions, { fault, phase }: Card, missed: PhaseMissed): void => {
  bench.lab.skipped.push({ fault: fault.name, phase, reason: missed.message });
};

/** Nothing, the end of the fault (a zombie wakes up, a partition heals), or that all is well again. */
export type Patience = 'nothing' | 'healing' | 'well';

/** Of its rows, how many a run has finished when it is left alone to end. */
const NEARLY_DONE = 0.9;

/**
 * One long run after the other on a fleet that stays, each hit again and again. A fault that came too late for a run
 * hits the next one.
 *
 * @param patience what the next fault waits for
 * @param endsSeconds a run has ended after this, whatever hits it
 */
export async function warmLane(
  options: StageOptions,
  deck: Pick<Deck, 'deal'>,
  request: TrialRequest,
  patience: (card: Card) => Patience,
  endsSeconds: number,
): Promise<void> {
  const { bench, random } = options;
  const enough = request.rows * NEARLY_DONE;
  /** What was tried once without a hit: the phase was over, or (of a short campaign) the target was not there. */
  const missed = new Set<Card>();
  let card = deal(options, deck);
  while (card !== undefined) {
    const trial = bench.startTrial(request);
    const healing: Promise<void>[] = [];
    /** When all has to be well again, ms since the epoch. */
    let due = 0;
    while (card !== undefined && trial.view.finishedAt.size < enough && !trial.ended) {
      const struck = await tryToHit(options, trial, card);
      const isMissed = struck instanceof PhaseMissed || (struck === undefined && options.short);
      if (isMissed && !missed.has(card)) {
        missed.add(card);
        if (struck === undefined) await sleep(AGAIN_MS);
        continue;
      }
      if (struck instanceof PhaseMissed) {
        skip(options, card, struck);
      } else if (struck !== undefined) {
        healing.push(struck.healing);
        due = Math.max(due, struck.at + struck.record.boundSeconds * 1000);
        const waits = patience(card);
        if (waits !== 'nothing') await struck.healing;
        if (waits === 'well') await bench.health.well((due - Date.now()) / 1000);
      }
      await sleep(random.int(1000, 4000));
      card = deal(options, deck);
    }
    await Promise.all(healing);
    await bench.finish(trial, request.scenario, endsSeconds);
  }
}
