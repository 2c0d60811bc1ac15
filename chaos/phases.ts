import { inferenceWorkflowId, QUERY, runWorkflowId } from '../dist/contracts/names.js';
import type { InferenceStatus, RunProgress } from '../dist/contracts/workflows.js';
import { type Engine, enginesOf, openAttempts } from './lab/engines.js';
import { poll, signal, sleep } from './lab/processes.js';
import type { Trial } from './lab/trial.js';

/** What a run is doing, in the order in which it happens; `commit` is the end of one batch. */
export const PHASES = [
  'bring-up',
  'plan',
  'deploy',
  'generate',
  'commit',
  'finalize',
  'teardown',
] as const;
export type Phase = (typeof PHASES)[number];

/** An engine that is held still between the last row of a batch and its commit. */
export interface Held {
  readonly engine: Engine;
  readonly batch: string;
}

/** A phase that was reached. */
export interface Aim {
  /** In the phase `commit`. */
  readonly held?: Held;
  /** Lets go of what was held. Safe to call when that is gone. */
  release(): void;
}

const NOTHING_HELD: Aim = { release: () => {} };

/** The run ended, or did not get there, before it could be hit in a phase. */
export class PhaseMissed extends Error {
  override readonly name = 'PhaseMissed';
}

/** Longest wait for a phase, in seconds: nodes and real engines take minutes on a busy machine. */
const PATIENCE_S = 400;

/**
 * Waits until a run is in a phase.
 *
 * @throws PhaseMissed when the run never gets there, or ends before
 */
export async function reach(phase: Phase, trial: Trial): Promise<Aim> {
  // Nothing is committed before engines have loaded, which takes a time of its own.
  await comeTo(phase === 'commit' ? 'generate' : phase, trial);
  return phase === 'commit' ? reachCommit(trial) : NOTHING_HELD;
}

async function comeTo(phase: Exclude<Phase, 'commit'>, trial: Trial): Promise<void> {
  const there = await poll(
    async () => {
      if (trial.ended) return false;
      return (await RECOGNISED[phase](trial)) ? true : undefined;
    },
    PATIENCE_S,
    50,
  );
  if (there !== true)
    throw new PhaseMissed(`run ${trial.runId} did not come to its phase ${phase}`);
}

/**
 * That a run has not left a phase meanwhile. An engine that is held in a commit is there as long as it is held.
 *
 * @throws PhaseMissed
 */
export async function stillIn(phase: Phase, trial: Trial): Promise<void> {
  if (phase === 'commit' || (await RECOGNISED[phase](trial))) return;
  throw new PhaseMissed(
    `run ${trial.runId} left its phase ${phase} before there was something to hit`,
  );
}

/** A phase is recognised by the processes that only it has, by the store, and by the queries of the workflows. */
const RECOGNISED: Readonly<
  Record<Exclude<Phase, 'commit'>, (trial: Trial) => boolean | Promise<boolean>>
> = {
  'bring-up': async ({ stack, cluster }) =>
    stack.nodes(cluster).length > 0 && (await stack.clusterStatus(cluster))?.state === 'starting',
  // Somebody is planned for, and this run has begun and no plan yet.
  plan: async (trial) => {
    if (trial.stack.children('plan').length === 0 || trial.view.plan !== undefined) return false;
    const status = await inference(trial);
    return status?.phase === 'preparing' && status.plan === undefined;
  },
  deploy: async (trial) => (await inference(trial))?.phase === 'starting-fleet',
  generate: ({ view }) => view.finishedAt.size > 0 && view.manifest === undefined,
  finalize: async ({ stack, runId, view }) =>
    view.manifest === undefined &&
    (await stack.query<RunProgress>(runWorkflowId(runId), QUERY.progress))?.state === 'finalizing',
  teardown: async (trial) => (await inference(trial))?.phase === 'stopping',
};

const inference = async ({ stack, runId }: Trial): Promise<InferenceStatus | undefined> =>
  stack.query<InferenceStatus>(inferenceWorkflowId(runId), QUERY.status);

/** Milliseconds for which an engine runs between two looks at it: a commit takes a few times that. */
const STEP_MS = 1.5;
/**
 * Rows before the end of a batch from which an engine is followed step by step: those that began together and are as
 * long as they may be end together.
 */
const CLOSE_ROWS = 20;
/** A batch whose last rows take longer than this is left alone: other ones end as well. */
const CLOSE_MS = 15_000;

/**
 * Brings one engine to a halt between its last row of a batch and the commit of it: the engine is stopped and
 * continued in steps of milliseconds, and stays stopped when its attempt file is whole and no commit is there.
 */
async function reachCommit(trial: Trial): Promise<Aim> {
  const deadline = Date.now() + PATIENCE_S * 1000;
  while (!trial.ended && Date.now() < deadline) {
    const engines = enginesOf(await trial.stack.fleetStatus(trial.fleet));
    for (const engine of engines) {
      const batch = await stepIntoCommit(engine, trial);
      if (batch !== undefined) {
        return {
          held: { engine, batch },
          release: () => {
            signal(engine.pid, 'SIGCONT');
          },
        };
      }
    }
    await sleep(20);
  }
  throw new PhaseMissed(`no commit of run ${trial.runId} could be caught`);
}

/** Returns the batch in whose commit the engine stands still now. */
async function stepIntoCommit(engine: Engine, trial: Trial): Promise<string | undefined> {
  const { view } = trial;
  await view.poll();
  const close = openAttempts(engine, view).find((id) => missingRows(id, trial) <= CLOSE_ROWS);
  if (close === undefined) return undefined;
  const batch = close.split('/')[0] ?? '';
  const started = Date.now();
  while (Date.now() - started < CLOSE_MS) {
    if (!signal(engine.pid, 'SIGSTOP')) return undefined;
    await view.poll();
    if (view.commits.has(batch)) break;
    if (missingRows(close, trial) === 0) return batch;
    signal(engine.pid, 'SIGCONT');
    await sleep(STEP_MS);
  }
  signal(engine.pid, 'SIGCONT');
  return undefined;
}

/** Rows that an attempt file still lacks. */
function missingRows(attempt: string, { view }: Trial): number {
  const [batch = ''] = attempt.split('/');
  return view.rowsOf(batch) - (view.attempts.get(attempt)?.lines.length ?? 0);
}
