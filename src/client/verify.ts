import { pythonError, runPython } from './python.js';

/** What checking a finished run again has found. */
export interface Verification {
  readonly runId: string;
  readonly valid: boolean;
  /** How the run ended; null when it is not finished. */
  readonly state: 'completed' | 'cancelled' | 'expired' | null;
  /** Results that were read: succeeded and failed rows. */
  readonly rows: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly batches: number;
  readonly committed: number;
  /** Whether `rankflow gc` took the attempts: the results were then compared with the manifest alone. */
  readonly attemptsCollected: boolean;
  /** At most the first ones of `totalProblems`. */
  readonly problems: readonly { readonly code: string; readonly message: string }[];
  readonly totalProblems: number;
}

/**
 * Reads everything that a run left in its store and compares it: plan, commits, attempts, results and manifest.
 * Needs no server.
 *
 * @throws ClientError `StoreUnavailable`
 */
export async function verifyRun(store: string, runId: string): Promise<Verification> {
  const result = await runPython([
    ...['rankflow.rows', 'verify', '--store', store, '--run-id', runId],
  ]);
  if (result.exitCode !== 0) throw pythonError('The check', result);
  return JSON.parse(result.stdout) as Verification;
}
