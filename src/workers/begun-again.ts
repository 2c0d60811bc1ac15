import type { WorkerOptions } from '@temporalio/worker';

import { WORKFLOW } from '../contracts/names.js';

/**
 * Workflows that end when their code does not fit their history, instead of waiting for code that does: what started
 * them starts them again (`workflows/restart.ts`), and they go on from the store.
 */
export const BEGUN_AGAIN = {
  '*': [],
  [WORKFLOW.rank]: ['NondeterminismError'],
  [WORKFLOW.run]: ['NondeterminismError'],
} satisfies WorkerOptions['workflowFailureErrorTypes'];
