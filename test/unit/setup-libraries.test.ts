import { expect, test } from 'vitest';

import { examineMachine } from '../../src/setup/machine.js';
import { missingLibraries, NEEDED_LIBRARIES } from '../../src/setup/libraries.js';

test('a library that the machine lacks is named, one that it has is not', async () => {
  const libraries = ['libm.so.6', 'libno-such-thing.so.9'];
  const expected = process.platform === 'linux' ? ['libno-such-thing.so.9'] : libraries;
  expect(await missingLibraries(libraries)).toEqual(expected);
});

test('the doctor looks for the libraries that vLLM needs of the system', async () => {
  const findings = await examineMachine();
  for (const library of NEEDED_LIBRARIES) {
    expect(findings).toContainEqual(expect.objectContaining({ what: library, state: 'ok' }));
  }
});
