import type { Violation } from '../checker/violation.js';
import { killEngine, zombie } from '../faults/engines.js';
import type { Bench, TrialRequest } from '../lab/bench.js';
import type { Struck } from '../lab/lab.js';
import { poll, sleep } from '../lab/processes.js';
import type { Trial } from '../lab/trial.js';
import { PhaseMissed } from '../phases.js';
import type { Random } from '../random.js';
import { flagsOf } from './simulated.js';

/** Of a batch of 20 rows, how many are finished when its engine is killed: most of it. */
const FINISHED_ROWS = 15;
const RUN_ENDS_S = 600;
const MOST_ZOMBIES = 3;
/** So long after it woke up a zombie has made its commit, if it makes one. */
const WAKES_MS = 3000;

const CLUSTER = 'local';
const NODES = 1;

async function hasReplacedCommit({ view }: Trial): Promise<boolean> {
  for (const [batch, { text }] of view.commits) {
    const data = await view.reader.read(view.key('commits', `${batch}.json`));
    if (data !== undefined && data.toString() !== text) return true;
  }
  return false;
}

/** What the checker says of a run without a guard, which was hit where the guard matters. */
export interface Complaints {
  readonly fence: readonly Violation[];
  readonly salvage: readonly Violation[];
}

export async function controlsStage(bench: Bench, random: Random): Promise<Complaints> {
  await bench.clusterUp(CLUSTER, NODES);
  const unguarded = new Unguarded(bench, random);
  const runs = { fence: await unguarded.start('fence'), salvage: await unguarded.start('salvage') };
  const [fence, salvage] = await Promise.all([
    unguarded.zombieCommits(runs.fence),
    unguarded.engineIsKilled(runs.salvage),
  ]);
  return { fence, salvage };
}

/** Runs without a guard, on fleets whose engines were started without it. The stack is restarted around each. */
class Unguarded {
  constructor(
    private readonly bench: Bench,
    private readonly random: Random,
  ) {}

  /**
   * Starts a run on engines with one guard switched off, and restarts the stack with all guards on: engines keep
   * what they were started with.
   */
  async start(guard: 'fence' | 'salvage'): Promise<Trial> {
    const { stack } = this.bench;
    await stack.down(true);
    await stack.up({ RANKFLOW_FAULTS: JSON.stringify({ [guard]: false }) });
    const request: TrialRequest = {
      // Long enough for one zombie after the other.
      ...{ scenario: `no-${guard}`, rows: guard === 'fence' ? 1000 : 300, tokens: 16 },
      ...{ fleet: `no-${guard}`, cluster: CLUSTER },
      // A zombie needs another engine that makes its commit.
      flags: flagsOf(this.bench, {
        engines: guard === 'fence' ? 2 : 1,
        rate: 20,
        nodes: NODES,
      }),
    };
    const trial = this.bench.startTrial(request);
    const started = await poll(() => (trial.view.attempts.size > 0 ? true : undefined), 120);
    if (started === undefined) throw new Error(`run ${trial.runId} did not start`);
    await stack.down(true);
    await stack.up();
    return trial;
  }

  /**
   * A frozen engine wakes up in the middle of a commit that another has made meanwhile, and nothing stops it, unless it is
   * told first that it was given up: then there is another.
   */
  async zombieCommits(trial: Trial): Promise<readonly Violation[]> {
    for (let zombies = 1; zombies <= MOST_ZOMBIES; zombies += 1) {
      await (
        await this.#zombie(trial)
      )?.healing;
      await sleep(WAKES_MS);
      if (trial.ended || (await hasReplacedCommit(trial))) break;
    }
    return (await this.bench.judge(trial, RUN_ENDS_S)).violations;
  }

  /** On a busy machine a commit is missed now and then: there are more. */
  async #zombie(trial: Trial): Promise<Struck | undefined> {
    for (;;) {
      try {
        return await this.bench.lab.inject(zombie, 'commit', trial, this.random);
      } catch (error) {
        if (!(error instanceof PhaseMissed)) throw error;
        if (trial.ended) return undefined;
      }
    }
  }

  /** An engine is killed near the end of a batch, and nobody takes over what it had finished. */
  async engineIsKilled(trial: Trial): Promise<readonly Violation[]> {
    const { view } = trial;
    const nearlyDone = (): true | undefined =>
      [...view.attempts.values()].some(
        ({ batch, lines }) => lines.length >= FINISHED_ROWS && !view.commits.has(batch),
      ) || undefined;
    await poll(nearlyDone, 60, 20);
    await this.bench.lab.inject(killEngine, 'generate', trial, this.random);
    await sleep(1000);
    return (await this.bench.judge(trial, RUN_ENDS_S)).violations;
  }
}
