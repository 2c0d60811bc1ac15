import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { WorkflowFailedError, WorkflowNotFoundError } from '@temporalio/client';
import { expect, test } from 'vitest';

import { ClientError, describeFailure, EXIT, isTransient } from '../../../src/client/errors.js';
import { ERRORS } from '../../../src/contracts/errors.js';

const grpcError = (code: number, message: string): Error =>
  Object.assign(new Error(message), { code });

test('a refused input shows every problem with its line, and how to go on', () => {
  const problems = [
    { line: 2, code: 'invalid_json', message: 'not JSON' },
    { line: 5, customId: 'e', code: 'duplicate_id', message: 'seen on line 1' },
  ];
  const cause = ApplicationFailure.create({
    type: 'InvalidInput',
    message: 'the input has 7 problems',
    details: [{ problems, total: 7 }],
  });
  const wrapped = new Error('child failed', { cause: new Error('activity failed', { cause }) });
  const failure = describeFailure(
    new WorkflowFailedError('Workflow execution failed', wrapped, 'NON_RETRYABLE_FAILURE'),
  );
  expect(failure).toEqual({
    type: 'InvalidInput',
    message: 'the input has 7 problems',
    problems,
    totalProblems: 7,
    wayOut: ERRORS.InvalidInput.wayOut,
    exitCode: EXIT.usage,
  });
});

test('a way out of this very failure goes before the one of its type', () => {
  const cause = ApplicationFailure.nonRetryable('lab is another', 'ClusterMismatch', {
    wayOut: 'Add the host.',
  });
  expect(describeFailure(new Error('update failed', { cause })).wayOut).toBe('Add the host.');
  const plain = ApplicationFailure.nonRetryable('lab is another', 'ClusterMismatch');
  expect(describeFailure(plain).wayOut).toBe(ERRORS.ClusterMismatch.wayOut);
});

test('what is wrong with the input as a whole is not mended by recording lines', () => {
  const problems = [{ line: 0, code: 'unknown_column', message: "no column 'q'" }];
  const cause = ApplicationFailure.create({
    type: 'InvalidInput',
    message: 'the input has 1 problem',
    details: [{ problems, total: 1 }],
  });
  const { wayOut } = describeFailure(new WorkflowFailedError('failed', cause, 'IN_PROGRESS'));
  expect(wayOut).toMatch(/option/u);
  expect(wayOut).not.toContain('--on-invalid');
  expect(new ClientError('InvalidInput', 'm', { problems }).wayOut).toBe(wayOut);
});

test.each([
  ['RunMismatch', EXIT.usage],
  ['ImpossibleResources', EXIT.usage],
  ['ClusterStartFailed', EXIT.unreachable],
  ['StoreUnavailable', EXIT.unreachable],
  ['EngineLoadFailed', EXIT.failed],
] as const)('a run that fails with %s ends with exit code %d', (type, exitCode) => {
  const cause = ApplicationFailure.create({ type, message: 'why' });
  const failure = describeFailure(new WorkflowFailedError('failed', cause, 'IN_PROGRESS'));
  expect(failure).toMatchObject({ type, message: 'why', exitCode });
});

test('a server that is away is told from a run that failed', () => {
  const failure = describeFailure(new Error('wrapped', { cause: grpcError(14, 'no connection') }));
  expect(failure).toMatchObject({ type: 'Unreachable', exitCode: EXIT.unreachable });
});

test('a run that Temporal does not know is a usage error', () => {
  const failure = describeFailure(
    new WorkflowNotFoundError('no workflow', 'inference/x', undefined),
  );
  expect(failure).toMatchObject({ type: 'NotFound', exitCode: EXIT.usage });
});

test('a cancelled run says so', () => {
  const error = new WorkflowFailedError('failed', new CancelledFailure('c'), 'IN_PROGRESS');
  expect(describeFailure(error).type).toBe('Cancelled');
});

test('the innermost message of an unknown error is shown, not that of a wrapper', () => {
  const cause = ApplicationFailure.create({ type: 'SomethingNew', message: 'disk on fire' });
  const failure = describeFailure(new WorkflowFailedError('Workflow failed', cause, 'IN_PROGRESS'));
  expect(failure).toMatchObject({
    type: 'Internal',
    message: 'disk on fire',
    exitCode: EXIT.failed,
  });
});

test('what can be done about this very failure goes before what its type says', () => {
  const failed = (wayOut?: unknown) =>
    describeFailure(
      ApplicationFailure.create({
        ...{ type: 'ClusterStartFailed', message: 'ended' },
        details: [{ wayOut }],
      }),
    ).wayOut;
  expect(failed('See its log.')).toBe('See its log.');
  expect(failed()).toBe('Mend what the message names, then run `rankflow cluster up` again.');
});

test('things that are no errors do not break the report', () => {
  expect(describeFailure('text').message).toBe('text');
  expect(describeFailure(undefined).exitCode).toBe(EXIT.failed);
  const loop = new Error('loop');
  loop.cause = loop;
  expect(describeFailure(loop).message).toBe('loop');
});

test('watching goes on when the server is away, and ends at once for a bug or an unknown run', () => {
  expect(isTransient(grpcError(14, 'unavailable'))).toBe(true);
  expect(isTransient(grpcError(9, 'no poller'))).toBe(true);
  expect(isTransient(grpcError(7, 'permission denied'))).toBe(false);
  expect(isTransient(new TypeError('x is undefined'))).toBe(false);
  expect(isTransient(new ClientError('NotFound', 'no run'))).toBe(false);
});
