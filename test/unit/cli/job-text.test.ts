import { stripVTControlCharacters } from 'node:util';

import { expect, test } from 'vitest';

import { jobTable, jobText } from '../../../src/cli/job-text.js';
import type { JobView } from '../../../src/client/jobs.js';

const view: JobView = {
  ...{ jobId: 'moons', state: 'failed', entrypoint: 'python train.py', cluster: 'lab' },
  ...{ store: '/store', startedAt: new Date('2026-01-01T00:00:00Z') },
  attempts: [
    {
      ...{ attempt: 1, submissionId: 'moons-a1', state: 'failed', node: 'a' },
      ...{ startedAt: '2026-01-01T00:00:00.000Z', endedAt: '2026-01-01T00:01:00.000Z' },
      problem: { type: 'JobFailed', message: 'exit code 1' },
    },
  ],
};
const linesOf = (text: string): string[] => stripVTControlCharacters(text).split('\n');

test('a job that failed is told with its attempts, why, and the end of its log', () => {
  const failure = { type: 'JobFailed', message: 'exit code 1', wayOut: 'Read the log.' } as const;
  const counted = { problems: [], totalProblems: 0, exitCode: 1 };
  const text = jobText({ ...view, failure: { ...failure, ...counted }, logEnd: 'KeyError: x' });
  expect(linesOf(text)).toEqual([
    ...['moons: failed', '  python train.py', '  cluster lab, store /store'],
    'attempt  state   node  submitted            ended                problem',
    '1        failed  a     2026-01-01T00:00:00  2026-01-01T00:01:00  exit code 1',
    expect.stringContaining('exit code 1'),
    'way out: Read the log.',
    'its log ends with: KeyError: x',
  ]);
});

test('a job that succeeded is told with what its script reported, one that waits with its last problem', () => {
  const good = { metrics: { loss: 0.1 }, checkpoint: '/store/c', path: '/store/r.json' };
  expect(linesOf(jobText({ ...view, ...good, state: 'succeeded', attempts: [] })).slice(3)).toEqual(
    ['  loss  0.1', 'checkpoint  /store/c', 'result  /store/r.json'],
  );
  const waits = jobText({ ...view, state: 'waiting', attempts: [], problem: 'b: no route' });
  expect(linesOf(waits).at(-1)).toBe('last problem: b: no route');
});

test('a list of jobs has a line for each, whatever is known of it', () => {
  const startedAt = new Date('2026-01-01T00:00:00Z');
  const entrypoint = `python\n  a.py ${'x'.repeat(80)}`;
  const lines = linesOf(
    jobTable([
      { jobId: 'long', state: 'running', startedAt, cluster: 'lab', entrypoint },
      { jobId: 'bare', state: 'stopped', startedAt },
    ]),
  );
  expect(lines[0]).toMatch(/^job +state +started +cluster +entrypoint$/u);
  expect(lines[1]).toMatch(/^long +running +2026-01-01T00:00:00 +lab +python a\.py x{48}$/u);
  expect(lines[2]).toMatch(/^bare +stopped +2026-01-01T00:00:00$/u);
});
