import { expect, test } from 'vitest';

import type { Failure } from '../../../src/client/errors.js';
import type { RunSnapshot } from '../../../src/client/snapshot.js';
import { endedBatch, liveBatch } from '../../../src/server/batch-object.js';
import { newMoments, nextStep, type Seen } from '../../../src/server/batch-plan.js';
import type { BatchState } from '../../../src/server/batch-records.js';
import type { RunResults } from '../../../src/server/results.js';
import { snapshot } from '../../support/api-server.js';

const NOW = 1_000_100;

function state(fields: Partial<BatchState> = {}): BatchState {
  const request = {
    id: 'batch_1',
    inputFileId: 'file-1',
    endpoint: '/v1/completions',
    completionWindow: '24h',
    metadata: { night: '7' },
    createdAt: 1_000_000,
    expiresAt: 1_086_400,
    outputSeconds: null,
  };
  return { request, started: { model: 'm', rows: 10 }, moments: {}, ...fields };
}
const { started: _, ...fresh } = state();

const run = (fields: Partial<RunSnapshot>): Seen => ({ run: snapshot('batch_1', fields) });

function results(ended: RunResults['state'], succeeded = 8, failed = 2): RunResults {
  const file = { path: 'x', size: 1, rows: succeeded };
  return {
    ...{ state: ended, rows: succeeded + failed, succeeded, failed },
    ...{ promptTokens: 40, completionTokens: 60 },
    ...{ output: file, errors: file, at: 1_000_090_500 },
  };
}

test('a fresh batch is started, unless somebody cancelled it or its time is over', () => {
  expect(nextStep(fresh, {}, NOW)).toEqual({ do: 'start' });
  expect(nextStep({ ...fresh, moments: { cancelling: 1 } }, {}, NOW)).toEqual({
    do: 'end',
    end: { status: 'cancelled', at: NOW },
  });
  expect(nextStep(fresh, {}, fresh.request.expiresAt)).toMatchObject({
    do: 'end',
    end: { status: 'expired' },
  });
});

test('a batch whose run goes on, or that nobody can see, is waited for', () => {
  expect(nextStep(state(), run({ state: 'in_progress' }), NOW)).toEqual({ do: 'wait' });
  expect(nextStep(state(), run({ state: 'paused' }), NOW)).toEqual({ do: 'wait' });
  expect(nextStep(state(), {}, NOW)).toEqual({ do: 'wait' });
});

test('its run is stopped when somebody asks, or when it has not expired by itself', () => {
  const running = run({ state: 'in_progress' });
  expect(nextStep(state({ moments: { cancelling: 1 } }), running, NOW)).toEqual({
    do: 'stop',
    why: 'cancelling',
  });
  expect(nextStep(state(), running, 1_086_400)).toEqual({ do: 'expire' });
  expect(nextStep(state({ moments: { expiring: 1 } }), {}, NOW)).toEqual({ do: 'expire' });
  expect(nextStep(state(), running, 1_086_459)).toEqual({ do: 'expire' });
  expect(nextStep(state(), running, 1_086_460)).toEqual({ do: 'stop', why: 'expiring' });
  const both = state({ moments: { cancelling: 1, expiring: 1 } });
  expect(nextStep(both, running, 1_086_400)).toEqual({ do: 'stop', why: 'cancelling' });
});

test.each([
  ['completed', {}, 'completed'],
  // The request came too late: everything was generated.
  ['completed', { cancelling: 1 }, 'completed'],
  ['cancelled', { cancelling: 1 }, 'cancelled'],
  ['cancelled', { cancelling: 1, expiring: 1 }, 'cancelled'],
  ['cancelled', { expiring: 1 }, 'expired'],
  ['expired', {}, 'expired'],
] as const)('results that are %s with %j end the batch as %s', (ended, moments, status) => {
  const step = nextStep(state({ moments }), { results: results(ended) }, NOW);
  expect(step).toMatchObject({ do: 'end', end: { status, at: 1_000_090 } });
});

test('a run that ended without results ends its batch too', () => {
  const end = (fields: Partial<RunSnapshot>, moments: BatchState['moments'] = {}) =>
    nextStep(state({ moments }), run({ at: 1_000_050_000, ...fields }), NOW);
  expect(end({ state: 'cancelled' }, { cancelling: 1 })).toMatchObject({
    end: { status: 'cancelled', at: 1_000_050 },
  });
  expect(end({ state: 'expired' })).toMatchObject({ end: { status: 'expired' } });
  expect(end({ state: 'failed' })).toMatchObject({ end: { status: 'failed', at: 1_000_050 } });
});

test('a run that Temporal lost is started again, unless the batch is to end', () => {
  const gone = { run: 'gone' } as const;
  expect(nextStep(state(), gone, NOW)).toEqual({ do: 'start' });
  const cancelled = nextStep(state({ moments: { cancelling: 1 } }), gone, NOW);
  expect(cancelled).toMatchObject({ do: 'end', end: { status: 'cancelled' } });
  expect(nextStep(state(), gone, 1_086_400)).toMatchObject({ end: { status: 'expired' } });
});

test('what is wrong with the input is told with its lines; what is wrong with the server is not', () => {
  const failed = (failure: Partial<Failure>) =>
    nextStep(
      state(),
      run({ state: 'failed', failure: { problems: [], ...failure } as Failure }),
      NOW,
    );
  const problems = [
    { line: 3, code: 'context_length_exceeded', message: 'too long' },
    { line: 0, code: 'input_changed', message: '/srv/store/contents/file-1 was changed' },
  ];
  expect(failed({ type: 'InvalidInput', problems })).toMatchObject({
    end: {
      errors: [
        { code: 'context_length_exceeded', message: 'too long', line: 3, param: null },
        { code: 'input_changed', message: 'The input file cannot be used.', line: null },
      ],
    },
  });
  const load = failed({ type: 'EngineLoadFailed', message: 'see /srv/logs/engine.log on node-7' });
  expect(load).toMatchObject({ end: { errors: [{ code: 'server_error', line: null }] } });
  expect(JSON.stringify(load)).not.toMatch(/srv|node-7/u);
});

test('moments are seen once: when the input is checked, and when the output is written', () => {
  expect(newMoments(state(), run({ state: 'validating' }))).toEqual([]);
  expect(newMoments(state(), run({ state: 'validating', totalRows: 10 }))).toEqual(['inProgress']);
  expect(newMoments(state(), run({ state: 'finalizing', totalRows: 10 }))).toEqual([
    'inProgress',
    'finalizing',
  ]);
  const seen = state({ moments: { inProgress: 5 } });
  expect(newMoments(seen, run({ totalRows: 10 }))).toEqual([]);
  expect(newMoments(state(), { run: 'gone' })).toEqual([]);
});

test.each([
  [{ state: 'validating' }, {}, 'validating'],
  // Engines load: the input is checked, and the batch waits for its turn.
  [{ state: 'validating', totalRows: 10 }, {}, 'in_progress'],
  [{ state: 'in_progress', totalRows: 10 }, {}, 'in_progress'],
  [{ state: 'paused', totalRows: 10 }, {}, 'in_progress'],
  [{ state: 'finalizing', totalRows: 10 }, {}, 'finalizing'],
  [{ state: 'cancelling', totalRows: 10 }, { cancelling: 7 }, 'cancelling'],
  [{ state: 'cancelling', totalRows: 10 }, { expiring: 7 }, 'finalizing'],
  [undefined, { inProgress: 5 }, 'in_progress'],
  [undefined, {}, 'validating'],
] as const)('a run %j with moments %j is a batch %s', (fields, moments, status) => {
  const seen = fields === undefined ? undefined : snapshot('batch_1', fields);
  expect(liveBatch(state({ moments }), seen)).toMatchObject({ object: 'batch', status });
});

test('counts add up, also when what is in flight is counted twice for a moment', () => {
  const counts = (fields: Partial<RunSnapshot>) =>
    liveBatch(state(), snapshot('batch_1', fields)).request_counts;
  expect(counts({ totalRows: 10, doneRows: 6, failedRows: 2 })).toEqual({
    total: 10,
    completed: 4,
    failed: 2,
  });
  expect(counts({ totalRows: 10, doneRows: 13, failedRows: 2 })).toEqual({
    total: 10,
    completed: 8,
    failed: 2,
  });
  expect(counts({ state: 'validating' })).toEqual({ total: 0, completed: 0, failed: 0 });
});

test('a batch that is completed has its counts, tokens, times and files', () => {
  const end = { status: 'completed', at: 1_000_090, results: results('completed') } as const;
  const batch = endedBatch(state({ moments: { inProgress: 1_000_010 } }), end, {
    output: 'file-o',
    errors: null,
  });
  expect(batch).toEqual({
    id: 'batch_1',
    object: 'batch',
    endpoint: '/v1/completions',
    model: 'm',
    errors: null,
    input_file_id: 'file-1',
    completion_window: '24h',
    status: 'completed',
    output_file_id: 'file-o',
    error_file_id: null,
    created_at: 1_000_000,
    in_progress_at: 1_000_010,
    expires_at: 1_086_400,
    finalizing_at: 1_000_090,
    completed_at: 1_000_090,
    failed_at: null,
    expired_at: null,
    cancelling_at: null,
    cancelled_at: null,
    request_counts: { total: 10, completed: 8, failed: 2 },
    usage: {
      input_tokens: 40,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens: 60,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: 100,
    },
    metadata: { night: '7' },
  });
});

test('times never run backwards when a server was away and saw the end first', () => {
  const late = state({ moments: { inProgress: 1_000_200, finalizing: 1_000_300 } });
  const end = { status: 'completed', at: 1_000_090, results: results('completed') } as const;
  expect(endedBatch(late, end, { output: null, errors: null })).toMatchObject({
    in_progress_at: 1_000_090,
    finalizing_at: 1_000_090,
    completed_at: 1_000_090,
  });
});

test('a batch that failed before it ran has errors and neither files nor tokens', () => {
  const errors = [{ code: 'empty_file', message: 'empty', param: null, line: null }];
  const batch = endedBatch(
    fresh,
    { status: 'failed', at: NOW, errors },
    { output: null, errors: null },
  );
  expect(batch).toMatchObject({
    status: 'failed',
    errors: { object: 'list', data: errors },
    failed_at: NOW,
    completed_at: null,
    in_progress_at: null,
    usage: null,
    request_counts: { total: 0, completed: 0, failed: 0 },
  });
});
