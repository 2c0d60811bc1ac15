import { cancel } from '../faults/run.js';
import { killChild } from '../faults/stack.js';
import { FAULTS } from '../faults/index.js';
import { type StageOptions, deckOf, warmLane } from './lane.js';

const CLUSTER = 'local';
/** Two engines on two nodes, a core each. */
const ENGINES = 2;
/** A run has ended after this, whatever hits it (seconds): engines take minutes to load on a busy machine. */
const RUN_ENDS_S = 1800;

/** Flags of `rankflow run` for real engines. */
export const realFlags = (): string[] => [
  ...['--model', 'SmolLM2-135M-Instruct', '--dtype', 'bfloat16', '--max-model-len', '1024'],
  ...['--engines', `${ENGINES}`, '--nodes', `${ENGINES}`, '--ranks', '2', '--batch-rows', '30'],
  '--keep',
];

/** Real engines on one warm fleet, hit one at a time; the next fault comes when all is well again. */
export async function vllmStage(options: StageOptions): Promise<void> {
  const { bench } = options;
  await bench.clusterUp(CLUSTER, ENGINES);
  // These are about the phases around generation, which do not depend on what generates.
  const faults = FAULTS.filter((fault) => fault !== cancel && fault !== killChild);
  await warmLane(
    options,
    deckOf(options, faults, ['generate', 'commit']),
    {
      ...{ scenario: 'real', rows: 1200, tokens: 64, fleet: 'real', cluster: CLUSTER },
      ...{ flags: [...realFlags(), ...bench.secretFlags], lookMs: 200 },
    },
    () => true,
    RUN_ENDS_S,
  );
}
