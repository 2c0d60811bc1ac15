import { FAULTS, Deck, cardsOf } from '../faults/index.js';
import type { Fault } from '../faults/fault.js';
import { killChild } from '../faults/stack.js';
import { cancel } from '../faults/run.js';
import { sleep } from '../lab/processes.js';
import { PhaseMissed } from '../phases.js';
import type { StageOptions } from './simulated.js';

const CLUSTER = 'local';
const FLEET = 'real';
/** Two engines on two nodes, a core each. */
const ENGINES = 2;
/** A run has ended after this, whatever hits it (seconds): engines take minutes to load on a busy machine. */
const RUN_ENDS_S = 1800;
/** Loading both engines at once (seconds). */
const LOADED_S = 600;

/** Flags of `rankflow run` for real engines. */
export const realFlags = (): string[] => [
  ...['--model', 'SmolLM2-135M-Instruct', '--dtype', 'bfloat16', '--max-model-len', '1024'],
  ...['--engines', `${ENGINES}`, '--nodes', `${ENGINES}`, '--ranks', '2', '--batch-rows', '30'],
  '--keep',
];

/** Not here: it would take the warm fleet's runs away from the other faults. */
const ELSEWHERE: readonly Fault[] = [cancel, killChild];

/** Real engines on one warm fleet, hit one at a time; the next fault comes when all is well again. */
export async function vllmStage(options: StageOptions): Promise<void> {
  const { bench, random, goal, selection, rounds, log } = options;
  await bench.clusterUp(CLUSTER, ENGINES);
  const faults = FAULTS.filter((fault) => !ELSEWHERE.includes(fault));
  const cards = cardsOf(faults, ['generate', 'commit'], 'vllm', selection);
  const deck = new Deck(cards, random, rounds);
  let card = goal.reached(bench.lab) ? undefined : deck.deal();
  while (card !== undefined) {
    const trial = bench.startTrial({
      ...{ scenario: 'real', rows: 1200, tokens: 64, fleet: FLEET, cluster: CLUSTER, lookMs: 200 },
      flags: [...realFlags(), ...bench.secretFlags],
    });
    bench.health.fleets.add(FLEET);
    const healing: Promise<void>[] = [];
    while (card !== undefined && trial.view.finishedAt.size < 1080 && !trial.ended) {
      try {
        const struck = await bench.lab.inject(card.fault, card.phase, trial, random);
        if (struck !== undefined) healing.push(struck.healing);
        await struck?.healing;
      } catch (error) {
        if (!(error instanceof PhaseMissed)) throw error;
        log(error.message);
      }
      await bench.health.well(card.fault.bound.vllm);
      await sleep(random.int(1000, 3000));
      card = goal.reached(bench.lab) ? undefined : deck.deal();
    }
    await Promise.all(healing);
    await bench.finish(trial, 'real', RUN_ENDS_S);
    await bench.health.well(LOADED_S);
  }
}
