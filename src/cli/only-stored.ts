import { withClient } from '../client/connection.js';
import { ClientError, describeFailure } from '../client/errors.js';
import { runSnapshot } from '../client/progress.js';
import { findRun, listAllRuns, memoOf, type RunListing } from '../client/runs.js';
import type { RunSnapshot } from '../client/snapshot.js';
import { isStored, storedSnapshot } from '../client/stored.js';
import { paths } from '../setup/paths.js';
import { say } from './output.js';

/**
 * The newest runs, of Temporal and of a store. Without a server they are those of the store, and people are told so.
 *
 * @throws ClientError `Unreachable` when there is no server and the store has no run
 */
export async function allRuns(store: string, limit: number): Promise<RunListing[]> {
  let answered = false;
  try {
    return await withClient(async (client) => {
      answered = true;
      return listAllRuns(client, store, limit);
    });
  } catch (error) {
    if (answered || !isAbsent(error)) throw error;
    const runs = await listAllRuns(undefined, store, limit);
    if (runs.length === 0) throw error;
    say('Temporal does not answer: this is what the store says.');
    return runs;
  }
}

/**
 * One look at a run: as Temporal says it, else as its store does, as after the loss of Temporal's database.
 *
 * @param store where to look for it; the data folder's store by default
 * @param note told what to know about a run that only its store knows
 * @throws ClientError `NotFound` when neither knows it
 */
export async function lookAtRun(
  runId: string,
  store = paths.store,
  note: (line: string) => void = say,
): Promise<RunSnapshot> {
  try {
    return await withClient(async (client) => runSnapshot(client, runId));
  } catch (error) {
    if (!isAbsent(error)) throw error;
    const snapshot = await storedSnapshot(store, runId);
    if (snapshot === undefined) throw withStoreHint(error, runId, store);
    if (snapshot.phase === 'stored') note(nobodyWorks(runId, error));
    return snapshot;
  }
}

/** What to know about a run that only its store knows and that is not finished. */
export function nobodyWorks(runId: string, error: unknown): string {
  return describeFailure(error).type === 'Unreachable'
    ? `Temporal does not answer: this is what the store says of ${runId}.`
    : `Nothing works at ${runId}: Temporal does not know it. The same \`rankflow run\` command goes on with it.`;
}

/**
 * The store of a run: this machine's own when the run is there, else where Temporal says that it was started
 * with.
 *
 * @throws ClientError `NotFound`, `Unreachable`
 */
export async function storeOf(runId: string): Promise<string> {
  if (await isStored(paths.store, runId)) return paths.store;
  try {
    const run = await withClient(async (client) => findRun(client, runId));
    const store = run && memoOf(run)?.store;
    if (store !== undefined) return store;
  } catch (error) {
    throw withStoreHint(error, runId, paths.store);
  }
  throw withStoreHint(new ClientError('NotFound', ''), runId, paths.store);
}

/** Where a run was generated, as far as Temporal knows it. */
export async function placementOf(runId: string): Promise<{ fleet?: string; cluster?: string }> {
  try {
    const run = await withClient(async (client) => findRun(client, runId));
    const memo = run && memoOf(run);
    return memo === undefined ? {} : { fleet: memo.fleet, cluster: memo.cluster };
  } catch (error) {
    if (isAbsent(error)) return {};
    throw error;
  }
}

/** Whether Temporal has nothing to say: it does not answer, or does not know what it is asked for. */
export const isAbsent = (error: unknown): boolean =>
  ['NotFound', 'Unreachable'].includes(describeFailure(error).type);

function withStoreHint(error: unknown, runId: string, store: string): unknown {
  const { type, message } = describeFailure(error);
  const wayOut = 'Name its store with --store, or see `rankflow list`.';
  if (type === 'NotFound') {
    const nowhere = `Neither Temporal nor the store ${store} knows a run ${runId}.`;
    return new ClientError('NotFound', nowhere, { wayOut, cause: error });
  }
  if (type !== 'Unreachable') return error;
  const unseen = `${message} The store ${store} has no run ${runId}.`;
  return new ClientError('Unreachable', unseen, { cause: error });
}
