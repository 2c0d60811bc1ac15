import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PassThrough } from 'node:stream';

import { expect, test } from 'vitest';

import { pythonError, runPython } from '../../../src/client/python.js';

test('an error of a Python command keeps its type, problems and way out', () => {
  const answer = {
    error: 'InvalidInput',
    message: 'the input has 2 problems',
    problems: [{ line: 1, code: 'invalid_json', message: 'not JSON' }],
    total: 2,
  };
  const error = pythonError('The check', {
    exitCode: 2,
    stdout: `noise\n${JSON.stringify(answer)}\n`,
    stderr: '',
  });
  expect(error).toMatchObject({ type: 'InvalidInput', totalProblems: 2 });
  expect(error.problems).toHaveLength(1);
  expect(error.wayOut).toContain('--on-invalid record');
});

test('a Python command that crashes shows the end of what it said', () => {
  const stderr = `${'line\n'.repeat(50)}MemoryError: too much`;
  const error = pythonError('The check', { exitCode: 1, stdout: '', stderr });
  expect(error).toMatchObject({ type: 'Internal' });
  expect(error.message).toMatch(/exit code 1\.[\s\S]*MemoryError: too much$/u);
  expect(error.message.length).toBeLessThan(200);
});

test('the error of a command that streams results does not end up among them', async () => {
  const store = mkdtempSync(path.join(tmpdir(), 'rankflow-store-'));
  const sink = new PassThrough();
  try {
    const result = await runPython(
      ['rankflow.rows', 'results', '--store', store, '--run-id', 'none'],
      { sink },
    );
    expect(result.exitCode).toBe(2);
    expect(pythonError('Reading', result)).toMatchObject({ type: 'NoResults' });
    expect(sink.readableLength).toBe(0);
  } finally {
    rmSync(store, { recursive: true });
  }
});

test('large and small output reaches the sink whole', async () => {
  for (const size of [10, 300_000]) {
    const sink = new PassThrough({ highWaterMark: 1_000_000 });
    // `timeit` is a module that runs any code, in a process like that of Rankflow's own modules.
    const code = `import sys; sys.stdout.write('x' * ${size}); sys.stdout.flush()`;
    const result = await runPython(['timeit', '-n', '1', '-r', '1', '-s', code, 'pass'], { sink });
    expect(result.exitCode).toBe(0);
    const text = (sink.read() as Buffer).toString();
    expect(text.startsWith('x'.repeat(size))).toBe(true);
  }
}, 20_000);
