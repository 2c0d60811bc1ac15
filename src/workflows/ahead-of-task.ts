/**
 * Keeps events from a workflow that belong to a workflow task which is still to come.
 *
 * A query that had to wait for a worker comes with all events until then, also with those that no workflow task has given
 * to the workflow yet. The SDK's Core (as of 1.24) hands these to it in a step of their own, before the query, with the
 * clock of the task before; the task itself brings only what is left. At replay all of it is one step, so that the
 * workflow may do something else, and is stuck (`docs/decisions.md`).
 */
import type {
  ActivateInput,
  Next,
  WorkflowInternalsInterceptor,
  WorkflowInterceptorsFactory,
} from '@temporalio/workflow';

import { ASK_AGAIN } from '../contracts/names.js';

/** A step that fails while a query waits fails the query alone: the next task begins with the history. */
class NothingAheadOfItsTask implements WorkflowInternalsInterceptor {
  /** When the workflow task of the last step was started, and how many events the workflow knew then. */
  #startedAt: string | undefined;
  #events = 0;

  activate(input: ActivateInput, next: Next<WorkflowInternalsInterceptor, 'activate'>): void {
    const { timestamp, historyLength, isReplaying } = input.activation;
    const startedAt = `${String(timestamp?.seconds)}.${timestamp?.nanos}`;
    const events = historyLength ?? 0;
    // Core adds steps to a task itself, for what the workflow has cancelled: without an event.
    if (!isReplaying && startedAt === this.#startedAt && events > this.#events) {
      throw new Error(ASK_AGAIN);
    }
    this.#startedAt = startedAt;
    this.#events = events;
    next(input);
  }
}

export const interceptors: WorkflowInterceptorsFactory = () => ({
  internals: [new NothingAheadOfItsTask()],
});
