import {
  ActivityCancellationType,
  ActivityFailure,
  CancellationScope,
  TimeoutFailure,
  continueAsNew,
  defineQuery,
  defineSignal,
  getExternalWorkflowHandle,
  patched,
  proxyActivities,
  setCurrentDetails,
  setHandler,
  workflowInfo,
  type ExternalWorkflowHandle,
} from '@temporalio/workflow';

import type { EngineActivities, PythonActivities } from '../contracts/activities.js';
import { PYTHON_QUEUE, QUERY, SIGNAL, fleetQueue, slotQueue } from '../contracts/names.js';
import type { GenerateBatchInput, GenerateBatchResult } from '../contracts/run.js';
import type {
  Problem,
  RankNumbers,
  RankPaused,
  RankProgressView,
  RankResult,
  RankWorkflowInput,
} from '../contracts/workflows.js';
import { workflowFailure } from './failures.js';
import { HeldWork, fleetSizeSignal, holdSignal } from './hold.js';
import { UNTIL_DONE } from './options.js';
import { generateAlone, isSuspect } from './quarantine.js';
import { addRedone } from './redone.js';
import { rankDetails, tokensPerSecond } from './run-progress.js';
import { StoreRoom } from './store-room.js';
import { ProgressTeller, Teller } from './teller.js';
import {
  MOST_EVENTS,
  NOTHING_DONE,
  addCounts,
  batchNumbers,
  batchesPerHistory,
  countsOf,
  windowSize,
} from './window.js';

export const rankProgressQuery = defineQuery<RankProgressView>(QUERY.progress);
export const rankPausedSignal = defineSignal<[RankPaused]>(SIGNAL.rankPaused);
export const rankNumbersSignal = defineSignal<[RankNumbers]>(SIGNAL.rankNumbers);

const python = proxyActivities<Pick<PythonActivities, 'rankProgress'>>({
  taskQueue: PYTHON_QUEUE,
  // Lists and reads the commits of one rank: seconds, also for thousands of them in a bucket.
  startToCloseTimeout: '10 minutes',
  // Without the store nothing goes on, and it comes back.
  retry: UNTIL_DONE,
});

const BATCH = {
  // Long answers of a large model take hours; a dead engine is noticed by the heartbeat instead.
  startToCloseTimeout: '6 hours',
  // Engines heartbeat each second while they step. On a crowded CPU host one step was seen to take 30 s; a
  // lost node is noticed within the minute.
  heartbeatTimeout: '1 minute',
  // An engine that dies takes nothing with it but time: its finished rows are salvaged.
  retry: UNTIL_DONE,
  // A rank has ended when its batches have: what they finished until then is recorded.
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
} as const;

/** How long a batch waits for its rank's own engine before any may take it: about as long as a batch takes. */
const AFFINITY_PATIENCE = '30 seconds';

/** Generates the batches of one rank through a sliding window. What is done is read from the store. */
export async function rankWorkflow(input: RankWorkflowInput): Promise<RankResult> {
  const { runId, store, rank } = input;
  let done = NOTHING_DONE;
  let { salvagedRows, retries } = input.carried ?? { salvagedRows: 0, retries: 0 };
  let quarantined = input.carried?.quarantined ?? 0;
  let redone = input.carried?.redone;
  const inFlight = new Set<number>();
  const suspects = new Set<number>();
  const held = new HeldWork(input.carried?.hold ?? input.hold);
  let { fleet } = input;
  setHandler(holdSignal, (request) => held.ask(request));
  const view = (): RankProgressView => ({
    rank,
    rowsTotal: input.rows,
    rowsDone: done.rows,
    rowsFailed: done.failedRows,
    promptTokens: done.promptTokens,
    completionTokens: done.completionTokens,
    batchesDone: done.batches,
    batchesTotal: input.batches,
    inFlight: [...inFlight].toSorted((a, b) => a - b),
    retries,
    salvagedRows,
    ...(suspects.size > 0 && { suspects: [...suspects].toSorted((a, b) => a - b) }),
  });
  setHandler(rankProgressQuery, view);

  const progress = await python.rankProgress.executeWithOptions(
    { summary: `Read what rank ${rank} has committed` },
    [{ runId, store, rank }],
  );
  done = progress.committed;
  const since = { at: Date.now(), tokens: done.completionTokens };
  const show = (): void => setCurrentDetails(rankDetails(view(), since, Date.now()));
  show();
  const began = input.carried?.began ?? since.at;
  const tellNumbers = async (): Promise<void> => {
    const rate = tokensPerSecond(done.completionTokens, since, Date.now());
    await runOf()?.signal(rankNumbersSignal, { rank, done, tokensPerSecond: rate });
  };
  // Histories before this patch tell by the clock.
  const byClock = patched('tell-by-steps')
    ? undefined
    : new Teller(tellNumbers, began, input.ranks, input.carried?.toldAt);
  const toldSteps = input.carried === undefined ? 0 : done.batches;
  const numbers = new ProgressTeller(tellNumbers, input.ranks, toldSteps);
  const progressed = (): void => {
    show();
    // The result tells the last ones.
    if (done.batches === 0 || done.batches >= input.batches) return;
    if (byClock === undefined) numbers.reached(done.batches);
    else byClock.changed();
  };
  if (input.carried === undefined) progressed();

  const room = new StoreRoom({ runId, store }, async (problem) => tellRun(rank, problem));
  const pending = batchNumbers(progress.pending);
  // Before, windows were as wide as if every batch in work had all of its rows left.
  const thinned = patched('windows-of-thinned-batches') ? undefined : 1;
  const width = (): number => windowSize(fleet, input.ranks, input.rows / input.batches, thinned);
  // Of histories without this patch, windows of any size end after as many batches.
  const byWindow = patched('histories-by-window');
  let taken = 0;
  let exhausted = false;
  /** Whether what comes next is for a new history. Wide windows go beyond what the server suggests. */
  const isFull = (): boolean => {
    const { continueAsNewSuggested, historyLength } = workflowInfo();
    const usual = batchesPerHistory(rank);
    const most = byWindow ? batchesPerHistory(rank, width()) : usual;
    return taken >= most || (most > usual ? historyLength > MOST_EVENTS : continueAsNewSuggested);
  };
  const take = (): number | undefined => {
    if (isFull()) return undefined;
    const { value } = pending.next();
    if (value === undefined) exhausted = true;
    else taken += 1;
    return value;
  };
  const suspected = (batch: number): void => {
    if (!suspects.has(batch)) quarantined += 1;
    suspects.add(batch);
    show();
  };
  let places = 0;
  /** One of the places of the window: takes the next batch as soon as its last one is committed. */
  const place = async (): Promise<void> => {
    places += 1;
    while (places <= width()) {
      if (held.hold !== 'none' && !(await held.mayBegin())) break;
      const batch = take();
      if (batch === undefined) break;
      inFlight.add(batch);
      const result = await held.piece(async () =>
        room.waitedFor(async () => generate(input, batch, suspected)),
      );
      suspects.delete(batch);
      inFlight.delete(batch);
      if (result === undefined) break;
      done = addCounts(done, countsOf(result));
      salvagedRows += result.salvagedRows;
      retries += (result.attempt ?? 1) - 1;
      redone = addRedone(redone, result.redone);
      progressed();
    }
    places -= 1;
  };
  const window = new CancellationScope();
  const started: Promise<void>[] = [];
  const widen = async (): Promise<void> =>
    window.run(async () => {
      const missing = width() - places;
      for (let more = 0; more < missing; more += 1) started.push(place());
    });
  setHandler(fleetSizeSignal, async (size) => {
    fleet = { ...fleet, ...size };
    if (started.length > 0) await widen();
  });
  await widen();
  await settle(window, started);

  // Activities in flight do not survive it, but none are: the window has drained.
  if (!exhausted && !held.draining) {
    const carried = {
      salvagedRows,
      retries,
      ...(quarantined > 0 && { quarantined }),
      ...(redone && { redone }),
      ...(held.hold !== 'none' && { hold: held.hold }),
      began,
      ...(byClock?.last !== undefined && { toldAt: byClock.last }),
    };
    await continueAsNew<typeof rankWorkflow>({ ...input, fleet, carried });
  }
  return {
    ...{ rank, done, salvagedRows, retries },
    ...(quarantined > 0 && { quarantined }),
    ...(redone && { redone }),
  };
}

/** Once for a pause and once for its end, however many batches of the rank wait. */
async function tellRun(rank: number, problem: Problem | undefined): Promise<void> {
  await runOf()?.signal(rankPausedSignal, { rank, ...(problem && { problem }) });
}

/** The run that a rank is part of. */
function runOf(): ExternalWorkflowHandle | undefined {
  const { parent } = workflowInfo();
  return parent && getExternalWorkflowHandle(parent.workflowId, parent.runId);
}

/** Waits for all places; the first failure (or a cancellation) ends the others, which record what they have. */
async function settle(window: CancellationScope, places: readonly Promise<void>[]): Promise<void> {
  try {
    // A window that grows meanwhile has more of them.
    for (let waited = 0; waited < places.length;) {
      waited = places.length;
      await Promise.all(places);
    }
  } catch (error) {
    const cancelled = window.consideredCancelled;
    window.cancel();
    await CancellationScope.nonCancellable(() => Promise.allSettled(places));
    throw cancelled ? error : workflowFailure(error);
  }
}

function workOf(
  { runId, store, rank, specHash }: RankWorkflowInput,
  batch: number,
): GenerateBatchInput {
  return { runId, store, rank, batch, specHash };
}

const titleOf = ({ rank, batches }: RankWorkflowInput, batch: number): string =>
  `Rank ${rank}, batch ${batch} of ${batches}`;

/**
 * Generates a batch beside others, or alone when engines died with it in work.
 *
 * @param suspected told before it runs alone
 */
async function generate(
  input: RankWorkflowInput,
  batch: number,
  suspected: (batch: number) => void,
): Promise<GenerateBatchResult> {
  try {
    return await generateBeside(input, batch);
  } catch (error) {
    if (!isSuspect(error)) throw error;
  }
  suspected(batch);
  return generateAlone(input.fleet, workOf(input, batch), BATCH, titleOf(input, batch));
}

async function generateBeside(
  input: RankWorkflowInput,
  batch: number,
): Promise<GenerateBatchResult> {
  const { rank, specHash, fleet } = input;
  const work = workOf(input, batch);
  const summary = titleOf(input, batch);
  if (input.affinity === 'rank') {
    const slot = rank % fleet.engines;
    const own = proxyActivities<Pick<EngineActivities, 'generateBatch'>>({
      ...BATCH,
      taskQueue: slotQueue(fleet.name, specHash, slot),
      scheduleToStartTimeout: AFFINITY_PATIENCE,
    });
    try {
      const options = { summary: `${summary}, engine ${slot}` };
      return await own.generateBatch.executeWithOptions(options, [work]);
    } catch (error) {
      // Temporal never retries a schedule-to-start time-out by itself: that engine is busy or gone.
      if (!startedTooLate(error)) throw error;
    }
  }
  const any = proxyActivities<Pick<EngineActivities, 'generateBatch'>>({
    ...BATCH,
    taskQueue: fleetQueue(fleet.name, specHash),
  });
  return any.generateBatch.executeWithOptions({ summary }, [work]);
}

function startedTooLate(error: unknown): boolean {
  return (
    error instanceof ActivityFailure &&
    error.cause instanceof TimeoutFailure &&
    error.cause.timeoutType === 'SCHEDULE_TO_START'
  );
}
