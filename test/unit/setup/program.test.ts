import { mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

import { afterAll, expect, test } from 'vitest';

import { isProgram } from '../../../src/setup/program.js';

const folder = realpathSync(mkdtempSync(path.join(tmpdir(), 'rankflow-program-')));
afterAll(() => rmSync(folder, { recursive: true }));

test('a program is known by its file, also through a link to its folder', () => {
  const file = path.join(folder, 'worker.js');
  writeFileSync(file, '');
  symlinkSync(folder, path.join(folder, 'link'));
  const module = pathToFileURL(file).href;
  expect(isProgram(module, file)).toBe(true);
  expect(isProgram(module, path.join(folder, 'link/worker.js'))).toBe(true);
  expect(isProgram(module, path.join(folder, 'none.js'))).toBe(false);
  expect(isProgram(module, import.meta.filename)).toBe(false);
});
