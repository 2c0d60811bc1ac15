import { ApplicationFailure, TemporalFailure } from '@temporalio/workflow';

import { ERRORS, type ErrorType } from '../contracts/errors.js';
import type { Problem } from '../contracts/workflows.js';

/** The error and its causes, outermost first; bounded, as a cause may be its own ancestor. */
export function causes(error: unknown): Error[] {
  const chain: Error[] = [];
  let current = error;
  while (current instanceof Error && chain.length < 32) {
    chain.push(current);
    current = current.cause;
  }
  return chain;
}

function isErrorType(type: unknown): type is ErrorType {
  return typeof type === 'string' && Object.hasOwn(ERRORS, type);
}

/** The innermost error of the closed set, else the innermost message: wrappers hide nothing. */
export function problemOf(error: unknown): Problem {
  const inner = causes(error).toReversed();
  for (const link of inner) {
    if (link instanceof ApplicationFailure && isErrorType(link.type)) {
      const wayOut = wayOutIn(link);
      return { type: link.type, message: link.message, ...(wayOut !== undefined && { wayOut }) };
    }
  }
  const message = inner.find((link) => link.message !== '')?.message ?? String(error);
  return { type: 'Unknown', message };
}

/** What the user can do about this very one, as {@link failureOf} attaches it. */
function wayOutIn({ details }: ApplicationFailure): string | undefined {
  const [first] = (details ?? []) as [{ readonly wayOut?: unknown } | null | undefined];
  return typeof first?.wayOut === 'string' ? first.wayOut : undefined;
}

/** Whether another try may change it. */
export const isRetryable = ({ type }: Problem): boolean =>
  type === 'Unknown' || type === 'ClusterStartFailed' || ERRORS[type].retryable;

/** A failure that ends a workflow or an update, with the type of `problem`; never retried by itself. */
export function failureOf(problem: Problem): ApplicationFailure {
  const { wayOut } = problem;
  return ApplicationFailure.create({
    type: problem.type,
    message: problem.message,
    ...(wayOut !== undefined && { details: [{ wayOut }] }),
    nonRetryable: problem.type === 'Unknown' || !ERRORS[problem.type].retryable,
  });
}

/**
 * The failure with which a workflow ends because of `error`: type, message and details (such as the problems of
 * an input) of the innermost error of the closed set, so that nobody has to unwrap it.
 *
 * @throws the error itself when it is not Temporal's: a bug fails the workflow task and waits for a mended worker
 */
export function workflowFailure(error: unknown): ApplicationFailure {
  if (!(error instanceof TemporalFailure)) throw error;
  const found = causes(error).findLast(
    (link): link is ApplicationFailure =>
      link instanceof ApplicationFailure && isErrorType(link.type),
  );
  const { type, message } = problemOf(error);
  return ApplicationFailure.create({
    type,
    message,
    nonRetryable: true,
    ...(found?.details && { details: found.details }),
    cause: error,
  });
}
