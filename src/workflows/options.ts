import type { RetryPolicy } from '@temporalio/common';

import { NON_RETRYABLE } from '../contracts/errors.js';

/** Retries without a limit, for work that must not be given up: a store or a cluster that comes back. */
export const UNTIL_DONE = {
  initialInterval: '1 second',
  backoffCoefficient: 2,
  // Short enough that work goes on soon after what was missing is back.
  maximumInterval: '10 seconds',
  nonRetryableErrorTypes: [...NON_RETRYABLE],
} satisfies RetryPolicy;

/** A few tries, for steps of a control loop that observes and plans again anyway. */
export const A_FEW_TRIES = { ...UNTIL_DONE, maximumAttempts: 3 } satisfies RetryPolicy;

/** Of the timer that ends a run. */
export const DEADLINE = { summary: 'Deadline of the run' };
