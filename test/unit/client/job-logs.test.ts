import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { logFolder, writeLog } from '../../../src/activities/jobs/job-log.js';
import { endOfLog } from '../../../src/client/job-logs.js';
import { submissionIdOf } from '../../../src/contracts/names.js';

let store: string;

beforeEach(() => {
  store = mkdtempSync(path.join(tmpdir(), 'rankflow-test-'));
});

afterEach(() => {
  rmSync(store, { recursive: true });
});

test('why a script failed is read from its log, of the attempt that is asked for', async () => {
  const place = { store, jobId: 'train' };
  const folder = logFolder(place, submissionIdOf('train', 2));
  await writeLog(folder, 0, Buffer.from('from epoch 0\nValueError: no such column\n\n'));
  expect(await endOfLog(place, 2)).toBe('ValueError: no such column');
  expect(await endOfLog(place, 1)).toBeUndefined();
});
