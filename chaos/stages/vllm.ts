import { readFileSync } from 'node:fs';

import { killCore, killEngine, zombie } from '../faults/engines.js';
import { Deck, FAULTS, cardsOf } from '../faults/index.js';
import type { Fault } from '../faults/fault.js';
import { killHead, killNode } from '../faults/nodes.js';
import { cancel } from '../faults/run.js';
import { killChild, killControlWorker, killPythonWorker, killTemporal } from '../faults/stack.js';
import type { Phase } from '../phases.js';
import {
  AROUND,
  type Patience,
  type StageOptions,
  deal,
  deckOf,
  hitOnItsWay,
  warmLane,
} from './lane.js';

const CLUSTER = 'local';
/** Two engines on two nodes, a core each. */
const ENGINES = 2;
/** A run has ended after this, whatever hits it (seconds): engines take minutes to load on a busy machine. */
const RUN_ENDS_S = 1800;

/** Rows of a run that is hit: for a few minutes of decoding, which without AVX-512 goes at a fifth of the speed. */
const FAST = readFileSync('/proc/cpuinfo', 'utf8').includes('avx512f');
const ROWS = FAST ? { short: 1000, long: 1500 } : { short: 260, long: 450 };

/** Flags of `rankflow run` for real engines. */
export const realFlags = (): string[] => [
  // A processor without AVX-512 computes in float32 four times as fast as in bfloat16.
  ...['--model', 'SmolLM2-135M-Instruct', '--dtype', 'float32', '--max-model-len', '1024'],
  ...['--engines', `${ENGINES}`, '--nodes', `${ENGINES}`, '--ranks', '2', '--batch-rows', '30'],
  // What a core decodes side by side: on a GPU it would be hundreds, of a run with many more rows.
  ...['--max-num-seqs', '32'],
  '--keep',
];

/**
 * The short form, in an order that makes few loads of engines do: what costs none comes while one is loading, and
 * a node goes while the engine of the other one comes back. While an engine is frozen, the other one does what is left
 * of the run.
 */
const SHORT: readonly (readonly [fault: Fault, phase: Phase, waits: Patience])[] = [
  [killCore, 'generate', 'nothing'],
  [killControlWorker, 'generate', 'nothing'],
  [killPythonWorker, 'generate', 'nothing'],
  [killTemporal, 'generate', 'well'],
  [killEngine, 'generate', 'nothing'],
  [killNode, 'generate', 'well'],
  [killHead, 'generate', 'well'],
  [zombie, 'commit', 'healing'],
];

/** These are left out: they are about phases that do not depend on what generates, or end the run. */
const LONG = FAULTS.filter((fault) => fault !== cancel && fault !== killChild);
/** Rows of a run that is hit only before and after it generates. */
const COLD_ROWS = 60;

/** The faults of the short form: simulated engines need not be hit by them in the same phase. */
export const ON_REAL_ENGINES: readonly string[] = SHORT.map(([{ name }]) => name);

/** Real engines on one warm fleet. In the long form one fault at a time: the next comes when all is well again. */
export async function vllmStage(options: StageOptions): Promise<void> {
  const { bench, short } = options;
  await bench.clusterUp(CLUSTER, ENGINES);
  if (!short) await coldRun(options);
  const waits = new Map(SHORT.map(([fault, , patience]) => [fault, patience]));
  await warmLane(
    options,
    short ? shortDeck(options) : longDeck(options),
    {
      ...{ scenario: 'real', rows: short ? ROWS.short : ROWS.long, tokens: 64 },
      ...{ fleet: 'real', cluster: CLUSTER },
      ...{ flags: [...realFlags(), ...bench.canaries.flags], lookMs: 200 },
    },
    ({ fault }) => (short ? (waits.get(fault) ?? 'well') : 'well'),
    RUN_ENDS_S,
  );
}

/** A run with a fleet of its own, hit once in each of the phases around generation. */
async function coldRun(options: StageOptions): Promise<void> {
  const { bench, random, selection } = options;
  const cards = AROUND.map((phase) =>
    deal(options, new Deck(cardsOf(LONG, [phase], 'vllm', selection), random)),
  );
  const dealt = cards.filter((card) => card !== undefined);
  if (dealt.length === 0) return;
  const trial = bench.startTrial({
    ...{ scenario: 'real-cold', rows: COLD_ROWS, tokens: 64, fleet: 'cold', cluster: CLUSTER },
    ...{ flags: realFlags().filter((flag) => flag !== '--keep'), lookMs: 200 },
  });
  await hitOnItsWay(options, trial, dealt);
  await bench.finish(trial, 'real-cold', RUN_ENDS_S);
}

function shortDeck({ selection: { only } }: StageOptions): Pick<Deck, 'deal'> {
  const left = SHORT.filter(([{ name }]) => (only ?? name) === name);
  return {
    deal: () => {
      const [next, ...rest] = left;
      left.splice(0, left.length, ...rest);
      return next && { fault: next[0], phase: next[1] };
    },
  };
}

const longDeck = (options: StageOptions): Deck => deckOf(options, LONG, ['generate', 'commit']);
