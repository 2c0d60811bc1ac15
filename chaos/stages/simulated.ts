import { type Card, Deck, FAULTS, cardsOf } from '../faults/index.js';
import { fullStore } from '../faults/store.js';
import { hang, hangSilently, zombie } from '../faults/engines.js';
import { preempt30, preempt120 } from '../faults/nodes.js';
import { POISON, cancel, poison } from '../faults/run.js';
import { type Fault, NotPossible } from '../faults/fault.js';
import { s3Faults } from '../faults/s3.js';
import type { Bench } from '../lab/bench.js';
import { poll, sleep } from '../lab/processes.js';
import { LimitedFolder } from '../lab/room.js';
import type { Phase } from '../phases.js';
import type { S3Server } from '../s3/server.js';
import { FolderReader } from '../store/reader.js';
import {
  AROUND,
  type StageOptions,
  deal,
  deckOf,
  hit,
  hitOnItsWay,
  hitWhenPossible,
  warmLane,
} from './lane.js';

/** The cluster that stays up for all runs but those that try bringing one up. */
const CLUSTER = 'local';
const NODES = 2;
/** Many engines fit on two nodes of one CPU: simulated ones need next to nothing. */
const CPUS_PER_ENGINE = '0.1';
/** A run has ended after this, whatever hits it (seconds). */
const RUN_ENDS_S = 900;

interface Shape {
  readonly engines: number;
  /** Tokens a second of one engine: low, so that a run lasts long enough to be hit. */
  readonly rate: number;
  /** Local worker nodes; undefined on a cluster of somebody else. */
  readonly nodes?: number | undefined;
  readonly keep?: boolean;
  readonly arguments?: readonly string[];
}

/** Flags of `rankflow run` for simulated engines. */
export function flagsOf({ ledger }: Bench, shape: Shape): string[] {
  const { engines, rate, keep = false, arguments: more = [] } = shape;
  const nodes = 'nodes' in shape ? shape.nodes : NODES;
  return [
    ...['--model', 'simulated-model', '--backend', 'simulated'],
    ...['--engines', `${engines}`, '--ranks', '2', '--batch-rows', '20'],
    ...(nodes === undefined ? [] : ['--nodes', `${nodes}`]),
    ...['--cpus-per-engine', CPUS_PER_ENGINE],
    ...[`tokens_per_second=${rate}`, `ledger=${ledger}`, ...more].flatMap((argument) => [
      '--engine-arg',
      argument,
    ]),
    ...(keep ? ['--keep'] : []),
  ];
}

/** Faults that take minutes, or end their run, go on beside the others, on runs of their own. */
const ALONE: readonly Fault[] = [zombie, hang, preempt120, preempt30, cancel];

/**
 * Simulated engines, for volume. Three lanes go on side by side on one cluster: a long run on a warm fleet that is
 * hit again and again; short runs with fleets of their own that are hit in the phases around generation; and runs
 * on the warm fleet for what takes minutes (zombies, hangs) or needs a store of its own.
 */
export async function simulatedStage(options: StageOptions): Promise<void> {
  const { bench, random } = options;
  await bench.clusterUp(CLUSTER, NODES);
  await Promise.all([
    mainLane({ ...options, random: random.fork('main') }),
    phasesLane({ ...options, random: random.fork('phases') }),
    slowLane({ ...options, random: random.fork('slow') }),
  ]);
}

/** The fleet that most runs share. Faults that are meant for one of them hit the others as well. */
const FLEET = 'main';
const sharedFlags = (bench: Bench): string[] => [
  ...flagsOf(bench, { engines: 4, rate: 60, keep: true }),
  ...bench.canaries.flags,
];

/** Long runs on a fleet that stays. Most faults find what the last one hit still recovering. */
async function mainLane(options: StageOptions): Promise<void> {
  const { bench, selection } = options;
  const elsewhere = selection.elsewhere ?? [];
  const faults = FAULTS.filter((one) => !ALONE.includes(one) && !elsewhere.includes(one.name));
  const flags = sharedFlags(bench);
  await warmLane(
    options,
    deckOf(options, faults, ['generate', 'commit']),
    { scenario: 'main', rows: 1500, tokens: 16, fleet: FLEET, cluster: CLUSTER, flags },
    ({ fault }) => (fault.scope === 'cluster' ? 'well' : 'nothing'),
    RUN_ENDS_S,
  );
}

/** Short runs of the short form: the last one has a cluster of its own. */
const SHORT_RUNS = 3;

/** Short runs that bring their fleet up and take it down, and now and then a cluster too. */
async function phasesLane(options: StageOptions): Promise<void> {
  const { bench, goal, random, selection, short } = options;
  const deck = (phase: Phase): Deck =>
    new Deck(cardsOf(FAULTS, [phase], 'simulated', selection), random);
  const ends = AROUND.map(deck);
  const cold = deck('bring-up');
  for (let round = 1; !goal.reached(bench.lab) && (!short || round <= SHORT_RUNS); round += 1) {
    const cards = ends.map((one) => deal(options, one)).filter((card) => card !== undefined);
    const first = round % SHORT_RUNS === 0 || cards.length === 0 ? deal(options, cold) : undefined;
    if (cards.length === 0 && first === undefined) return;
    await shortRun(options, round, [...(first ? [first] : []), ...cards], first !== undefined);
  }
}

/** One short run, hit once in each of some phases. A cancellation is the last thing that happens to it. */
async function shortRun(
  options: StageOptions,
  round: number,
  cards: readonly Card[],
  cold: boolean,
): Promise<void> {
  const { bench } = options;
  const cancelled = cards.findIndex(({ fault }) => fault === cancel);
  const dealt = cancelled < 0 ? cards : cards.slice(0, cancelled + 1);
  const cluster = cold ? `cold-${round}` : CLUSTER;
  bench.expectCluster(cluster);
  const trial = bench.startTrial({
    ...{ scenario: 'short', rows: 200, tokens: 16, fleet: `short-${round}`, cluster, lookMs: 50 },
    flags: flagsOf(bench, { engines: 1, rate: 400, nodes: cold ? 1 : NODES }),
  });
  await hitOnItsWay(options, trial, dealt);
  await bench.finish(trial, cold ? 'cold' : 'short', RUN_ENDS_S);
}

/** A scenario with a run of its own; `number` makes names. */
type SlowScenario = (options: StageOptions, number: number) => Promise<void>;

/** One after the other, or all at once when each is wanted once. */
async function slowLane(options: StageOptions): Promise<void> {
  const { bench, random, goal, selection, short } = options;
  const s3 = bench.s3;
  const { only } = selection;
  const scenarios = new Map<string, SlowScenario>([
    ...cardsOf(ALONE, ['generate', 'commit'], 'simulated', selection)
      .filter(({ fault, phase }) => !short || fault.phases[0] === phase)
      .map(plainSlow),
    ['hang-silently', hangsSilently],
    ['store-full', storeFull],
    ['poison', poisoned],
  ]);
  if (s3 !== undefined) scenarios.set('s3', async (o) => bucket(o, s3));
  const wanted = [...scenarios].filter(
    ([name]) => only === undefined || name.startsWith(only) || only.startsWith(name),
  );
  let round = 0;
  const run = async (scenario: SlowScenario): Promise<void> => scenario(options, (round += 1));
  if (short) {
    await Promise.all(wanted.map(async ([, scenario]) => run(scenario)));
    return;
  }
  while (!goal.reached(bench.lab) && wanted.length > 0) {
    for (const [, scenario] of random.shuffle(wanted)) {
      if (!goal.reached(bench.lab)) await run(scenario);
    }
  }
}

const SLOW_RUN = { rows: 200, tokens: 16, cluster: CLUSTER, fleet: FLEET } as const;

const plainSlow = (card: Card): [string, SlowScenario] => [
  `${card.fault.name}-${card.phase}`,
  async (options) => {
    const { bench } = options;
    const scenario = card.fault.name;
    const trial = bench.startTrial({ ...SLOW_RUN, scenario, flags: sharedFlags(bench) });
    const struck = await hitWhenPossible(options, trial, card);
    await struck?.healing;
    await bench.finish(trial, scenario, RUN_ENDS_S);
  },
];

/** Engines at work finish a row more often. */
const SILENT_MS = 3_000;

/** Engines that stop answering for good after some rows, and say nothing. */
async function hangsSilently(options: StageOptions, number: number): Promise<void> {
  const { bench } = options;
  const after = 60;
  const flags = flagsOf(bench, { engines: 2, rate: 80, arguments: [`hang_after_rows=${after}`] });
  const trial = bench.startTrial({
    ...{ ...SLOW_RUN, rows: 2 * after + 20 },
    ...{ scenario: 'hang-silently', fleet: `silent-${number}`, flags },
  });
  // Each engine hangs after its own rows: they all do when nothing comes any more.
  const hang = (): boolean => {
    const times = [...trial.view.finishedAt.values()];
    return times.length >= after && Date.now() - Math.max(...times) > SILENT_MS;
  };
  await poll(() => (hang() || trial.ended ? true : undefined), 300);
  await hitWhenPossible(options, trial, { fault: hangSilently, phase: 'generate' });
  await bench.finish(trial, 'hang-silently', RUN_ENDS_S);
}

/** A row that kills its engine each time, among others that must not suffer for it. */
async function poisoned(options: StageOptions): Promise<void> {
  const { bench, random } = options;
  const row = random.int(0, SLOW_RUN.rows - 1);
  const trial = bench.startTrial({
    ...{ ...SLOW_RUN, scenario: 'poison', flags: sharedFlags(bench) },
    poison: { text: POISON, rows: [row] },
  });
  await hit(options, trial, { fault: poison, phase: 'generate' });
  await bench.finish(trial, 'poison', RUN_ENDS_S);
}

async function storeFull(options: StageOptions, number: number): Promise<void> {
  const { bench, random } = options;
  let store: LimitedFolder;
  try {
    store = LimitedFolder.mount(bench.home.file(`full-${number}`));
  } catch (error) {
    if (!(error instanceof NotPossible)) throw error;
    bench.lab.skipped.push({ fault: 'store-full', phase: 'generate', reason: error.message });
    return;
  }
  try {
    const fault = fullStore(store);
    const trial = bench.startTrial({
      ...{
        ...SLOW_RUN,
        scenario: 'store-full',
        flags: sharedFlags(bench),
      },
      ...{ store: store.folder, reader: new FolderReader(store.folder) },
    });
    const phase = options.short ? fault.phases[0] : random.pick(fault.phases);
    const struck = await hit(options, trial, { fault, phase });
    await struck?.healing;
    await bench.finish(trial, 'store-full', RUN_ENDS_S);
    await bench.checkStore(store.folder);
  } finally {
    store.unmount();
  }
}

/** One run with its store in a bucket that has one trouble after the other. */
async function bucket(options: StageOptions, s3: S3Server): Promise<void> {
  const { bench, random, short, selection } = options;
  await s3.exclusively(async () => {
    const faults = s3Faults(s3).filter(({ name }) => (selection.only ?? name) === name);
    const trial = bench.startTrial({
      ...{ ...SLOW_RUN, rows: 600, scenario: 's3', flags: sharedFlags(bench) },
      ...{ store: s3.store, reader: s3.reader(), lookMs: 500 },
    });
    const tried = short ? faults : random.shuffle(faults).slice(0, 4);
    for (const fault of tried) {
      const phase = fault === tried.at(-1) ? random.pick(fault.phases) : 'generate';
      const struck = await hit(options, trial, { fault, phase });
      await struck?.healing;
      await sleep(random.int(500, 3000));
    }
    await bench.finish(trial, 's3', RUN_ENDS_S);
  });
}
