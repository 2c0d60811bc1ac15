import type { Client } from '@temporalio/client';
import pLimit from 'p-limit';

import { inferenceWorkflowId, runWorkflowId } from '../contracts/names.js';
import { isRunning } from './entities.js';
import { pythonError, runPython } from './python.js';

/** What of a store may go beside the leftovers of finished runs. */
export interface GarbageRules {
  /** Finished runs that ended longer ago than this. */
  readonly olderThanSeconds?: number;
  /** All finished runs but the newest so many. */
  readonly keepLast?: number;
  /** The oldest finished runs, until all runs together take no more bytes. */
  readonly maxBytes?: number;
  /** Runs without results that nobody has written to for so long and that no workflow works at. */
  readonly unfinishedOlderThanSeconds?: number;
  /** Runs of schedules, too. */
  readonly scheduled?: boolean;
  /** Batches of the batch API whose results are still among its files, too. */
  readonly batches?: boolean;
}

/** A run that goes, or whose attempts do. */
export interface GarbageStep {
  readonly runId: string;
  readonly bytes: number;
  readonly why: string;
}

/** What was freed, or would be. */
export interface Garbage {
  readonly dryRun: boolean;
  /** Whole runs, in the order in which they go. */
  readonly removed: readonly GarbageStep[];
  /** Finished runs that stay, without their attempts and journals. */
  readonly collected: readonly GarbageStep[];
  /** Runs that a rule was for and that stay, with the reason. */
  readonly kept: readonly { readonly runId: string; readonly why: string }[];
  readonly freedBytes: number;
  /** What all runs of the store take afterwards. */
  readonly leftBytes: number;
}

/** Workflows asked for at once. */
const ASKED_AT_ONCE = 16;

/**
 * Frees a store of what nobody needs, or tells what would go. Safe to repeat and beside runs and readers.
 *
 * @param client undefined when Temporal does not answer: unfinished runs then stay, as somebody may work at them
 * @throws ClientError `StoreUnavailable`, `UnsupportedInput`
 */
export async function collectGarbage(
  client: Client | undefined,
  store: string,
  rules: GarbageRules = {},
  { dryRun = false }: { readonly dryRun?: boolean } = {},
): Promise<Garbage> {
  const asked = new Map<string, boolean>();
  const limit = pLimit(ASKED_AT_ONCE);
  const wanted = (dry: boolean): object => ({
    ...{ store, dryRun: dry, ...rules },
    ...(client && { asked: [...asked.keys()] }),
    running: [...asked].filter(([, running]) => running).map(([runId]) => runId),
  });
  // Where one run stays because its workflow runs, another may have to go instead: that one is asked for, too.
  while (client !== undefined) {
    const { removed } = await python(wanted(true));
    const unknown = removed.map(({ runId }) => runId).filter((runId) => !asked.has(runId));
    if (unknown.length === 0) break;
    await limit.map(unknown, async (runId) => asked.set(runId, await goesOn(client, runId)));
  }
  return python(wanted(dryRun));
}

/** Whether a workflow works at a run. Asked by id: lists lag behind. */
async function goesOn(client: Client, runId: string): Promise<boolean> {
  return (
    (await isRunning(client, inferenceWorkflowId(runId))) || isRunning(client, runWorkflowId(runId))
  );
}

async function python(wanted: object): Promise<Garbage> {
  const result = await runPython(['rankflow.rows', 'gc'], { input: JSON.stringify(wanted) });
  if (result.exitCode !== 0) throw pythonError('Freeing the store', result);
  return JSON.parse(result.stdout) as Garbage;
}
