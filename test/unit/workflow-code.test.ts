import { readFileSync } from 'node:fs';

import { expect, test } from 'vitest';

import { workflowCode } from '../../dist/workers/workflow-code.js';
import { workflowCode as inTests } from '../../src/workers/workflow-code.js';

const bundled = (versioned: boolean): string => {
  const { workflowBundle } = workflowCode(versioned, true);
  if (workflowBundle === undefined || !('codePath' in workflowBundle)) throw new Error('no bundle');
  return readFileSync(workflowBundle.codePath, 'utf8');
};

test.each([true, false])(
  'the build has made the workflow code of a worker (versioned: %s)',
  (versioned) => {
    expect(bundled(versioned)).toContain('async function runWorkflow');
    expect(bundled(versioned)).toContain('class NothingAheadOfItsTask');
    expect(bundled(versioned)).not.toBe(bundled(!versioned));
  },
);

test.each([true, false])(
  'what adds to workflow code makes its own (versioned: %s)',
  (versioned) => {
    expect(workflowCode(versioned, false, ['traced.js'])).toEqual({
      workflowsPath: expect.stringContaining(versioned ? 'versioned.js' : 'index.js'),
      interceptors: {
        workflowModules: [expect.stringMatching(/ahead-of-task\.js$/u), 'traced.js'],
      },
    });
  },
);

test('code that was not built so is bundled when it starts', () => {
  expect(inTests(true, true)).toEqual({
    workflowsPath: expect.stringMatching(/versioned\.ts$/u),
    interceptors: { workflowModules: [expect.stringMatching(/ahead-of-task\.ts$/u)] },
  });
});
