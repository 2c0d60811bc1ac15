import { ActivityFailure, ApplicationFailure, RetryState } from '@temporalio/common';
import { WorkflowUpdateFailedError } from '@temporalio/client';
import { describe, expect, it } from 'vitest';

import { refusal } from '../../../src/activities/entities.js';
import { failureOf, problemOf, workflowFailure } from '../../../src/workflows/failures.js';
import { table } from '../../../src/workflows/details.js';
import { sameValue } from '../../../src/workflows/same-value.js';

const activityFailure = (cause: Error): ActivityFailure =>
  new ActivityFailure(
    'activity failed',
    'planRun',
    '1',
    RetryState.NON_RETRYABLE_FAILURE,
    'w',
    cause,
  );

describe('failures', () => {
  it('show the innermost error of the closed set, not its wrappers', () => {
    const inner = ApplicationFailure.nonRetryable('line 3 is no JSON', 'InvalidInput');
    expect(problemOf(activityFailure(inner))).toEqual({
      type: 'InvalidInput',
      message: 'line 3 is no JSON',
    });
    expect(problemOf(activityFailure(new Error('boom')))).toEqual({
      type: 'Unknown',
      message: 'boom',
    });
  });

  it('take a way out of their own through workers and workflows', () => {
    const problem = { type: 'ClusterMismatch', message: 'another', wayOut: 'Add it.' } as const;
    const update = new WorkflowUpdateFailedError('update failed', failureOf(problem));
    expect(problemOf(activityFailure(refusal(update)))).toEqual(problem);
  });

  it('keep the problems of an input for those who wait for the workflow', () => {
    const inner = ApplicationFailure.nonRetryable('bad', 'InvalidInput', { total: 2 });
    expect(workflowFailure(activityFailure(inner))).toMatchObject({
      type: 'InvalidInput',
      nonRetryable: true,
      details: [{ total: 2 }],
    });
  });

  it('keep what can be done about this very one', () => {
    const problem = {
      type: 'ClusterStartFailed',
      message: 'ended',
      wayOut: 'See its log.',
    } as const;
    expect(problemOf(activityFailure(failureOf(problem)))).toEqual(problem);
    const other = ApplicationFailure.nonRetryable('bad', 'InvalidInput', null);
    expect(problemOf(other)).toEqual({ type: 'InvalidInput', message: 'bad' });
  });

  it('leave bugs alone, so that a mended worker can go on', () => {
    expect(() => workflowFailure(new TypeError('a bug'))).toThrow(TypeError);
  });

  it('are retryable as the closed set says', () => {
    expect(failureOf({ type: 'ClusterUnavailable', message: '' }).nonRetryable).toBe(false);
    expect(failureOf({ type: 'RunMismatch', message: '' }).nonRetryable).toBe(true);
  });
});

describe('details', () => {
  it('are a Markdown table whatever the cells hold', () => {
    expect(table(['a', 'b'], [['x|y', 'one\n two']])).toBe(
      '| a | b |\n| --- | --- |\n| x\\|y | one two |\n\n\u00A0',
    );
  });
});

describe('sameValue', () => {
  it('does not mind the order of keys or absent fields', () => {
    expect(sameValue({ a: 1, b: [{ c: 2 }] }, { b: [{ c: 2, d: undefined }], a: 1 })).toBe(true);
    expect(sameValue({ a: 1 }, { a: 1, b: null })).toBe(false);
    expect(sameValue([1, 2], [2, 1])).toBe(false);
    expect(sameValue([], {})).toBe(false);
  });
});
