import { expect, test } from 'vitest';

import { examineMachine } from '../../src/setup/machine.js';
import { paths } from '../../src/setup/paths.js';
import { findBootstrapPython } from '../../src/setup/python.js';
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

test('a machine is told whether it has a Python that can install uv', async () => {
  expect(await findBootstrapPython(paths.python)).toBeDefined();
  expect(await findBootstrapPython('/no/such/python3')).toBeUndefined();
  // As Debian's without python3-venv: it runs, and lacks a module.
  expect(await findBootstrapPython('false')).toBeUndefined();
});
