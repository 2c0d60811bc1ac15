import { ChildWorkflowFailure, log, sleep } from '@temporalio/workflow';

import { causes } from './failures.js';

/** How the SDK begins the message of a workflow whose code does not fit its history. */
const NONDETERMINISM = '[TMPRL1100]';
/** So often it is no accident any more. */
const MOST_RESTARTS = 5;
const PAUSE = '1 second';

/**
 * Does `work`, a child workflow that keeps nothing but in the store, again while it ends because its history does not
 * fit its code. The worker has to be told to let it fail (`BEGUN_AGAIN`).
 */
export async function begunAgain<T>(what: string, work: () => Promise<T>): Promise<T> {
  for (let restarts = 0; ; restarts += 1) {
    try {
      return await work();
    } catch (error) {
      if (!isNondeterminism(error) || restarts >= MOST_RESTARTS) throw error;
      log.error(`${what} begins again: its history does not fit its code`, { restarts });
      await sleep(PAUSE, { summary: `Begin ${what} again` });
    }
  }
}

const isNondeterminism = (error: unknown): boolean =>
  error instanceof ChildWorkflowFailure &&
  causes(error).some(({ message }) => message.startsWith(NONDETERMINISM));
