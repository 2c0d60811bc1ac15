import {
  ActivityFailure,
  ApplicationFailure,
  TimeoutFailure,
  proxyActivities,
  sleep,
  type ActivityOptions,
} from '@temporalio/workflow';

import type { EngineActivities } from '../contracts/activities.js';
import { slotQueue } from '../contracts/names.js';
import type { GenerateBatchInput, GenerateBatchResult } from '../contracts/run.js';
import type { RunFleet } from '../contracts/workflows.js';
import { UNTIL_DONE } from './options.js';

/**
 * How long a suspect batch waits for one engine before it asks the next: that one may be loading after the last
 * death (a minute or two), hold another suspect, hang without anybody knowing yet, or be gone for good.
 */
const PATIENCE = '2 minutes';

const RETRY = {
  ...UNTIL_DONE,
  // An engine that died says so by its successor or by its missing heartbeat. The next one need not load first, and
  // a row is judged by deaths of different engines. Other troubles are tried again on the same engine.
  nonRetryableErrorTypes: [
    ...UNTIL_DONE.nonRetryableErrorTypes,
    'EngineGone',
    'TemporalTimeout:Heartbeat',
  ],
};

/** Between two engines: an engine that gives the batch back at once must not make a long history in minutes. */
const LONGEST_PAUSE_S = 30;

/** Whether engines refuse a batch, because several died while they worked on it, unless it runs alone. */
export const isSuspect = (error: unknown): boolean => failureType(error) === 'SuspectBatch';

/**
 * Generates a suspect batch on one engine after the other, each of which takes nothing else meanwhile. The suspects
 * of all ranks begin at the same engine, so that the others go on. What is known of the rows is in the store, and
 * so is the bound on engines that may die.
 *
 * @param options of an ordinary attempt
 */
export async function generateAlone(
  fleet: RunFleet,
  work: GenerateBatchInput,
  options: ActivityOptions,
  summary: string,
): Promise<GenerateBatchResult> {
  for (let visit = 0; ; visit += 1) {
    const slot = visit % Math.max(1, fleet.engines);
    const { generateBatch } = proxyActivities<Pick<EngineActivities, 'generateBatch'>>({
      ...options,
      taskQueue: slotQueue(fleet.name, work.specHash, slot),
      scheduleToStartTimeout: PATIENCE,
      retry: RETRY,
    });
    try {
      return await generateBatch.executeWithOptions(
        { summary: `${summary}, alone on engine ${slot}` },
        [{ ...work, alone: true }],
      );
    } catch (error) {
      if (!isLostEngine(error)) throw error;
    }
    await sleep(Math.min(LONGEST_PAUSE_S, 2 ** visit) * 1000, {
      summary: `${summary}: try another engine after engine ${slot}`,
    });
  }
}

/** The engine died in the middle, is going, or is not there to begin with. */
const isLostEngine = (error: unknown): boolean =>
  ['EngineGone', 'HEARTBEAT', 'SCHEDULE_TO_START'].includes(failureType(error) ?? '');

function failureType(error: unknown): string | undefined {
  const cause = error instanceof ActivityFailure ? error.cause : undefined;
  if (cause instanceof TimeoutFailure) return cause.timeoutType;
  return cause instanceof ApplicationFailure ? (cause.type ?? undefined) : undefined;
}
