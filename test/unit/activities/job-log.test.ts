import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import {
  lastLine,
  logSize,
  logTail,
  MOST_SEGMENTS,
  readLog,
  SEGMENT_BYTES,
  writeLog,
} from '../../../src/activities/jobs/job-log.js';

let folder: string;
beforeEach(() => {
  folder = path.join(mkdtempSync(path.join(tmpdir(), 'rankflow-log-')), 'log');
});
afterEach(() => rmSync(path.dirname(folder), { recursive: true }));

const read = async (from = 0): Promise<string> => {
  const parts: Buffer[] = [];
  await readLog(folder, from, (data) => parts.push(Buffer.from(data)));
  return Buffer.concat(parts).toString('utf8');
};

test('a log is what was written, also when it is written twice or in between', async () => {
  expect(await logSize(folder)).toBe(0);
  await writeLog(folder, 0, Buffer.from('one\ntwo\n'));
  await writeLog(folder, 4, Buffer.from('two\nthree\n'));
  expect(await logSize(folder)).toBe(14);
  expect(await read()).toBe('one\ntwo\nthree\n');
  expect(await read(8)).toBe('three\n');
  expect(await logTail(folder, 6)).toBe('three\n');
});

test('a long log keeps its beginning and its end, and says what is missing', async () => {
  const block = Buffer.alloc(SEGMENT_BYTES, 'x');
  const segments = MOST_SEGMENTS + 2;
  for (let index = 0; index < segments; index += 1) {
    block.write(`part ${index}\n`);
    await writeLog(folder, index * SEGMENT_BYTES, block);
  }
  await writeLog(folder, segments * SEGMENT_BYTES, Buffer.from('\nthe end\n'));
  expect(await logSize(folder)).toBe(segments * SEGMENT_BYTES + 9);
  const kept = readdirSync(folder);
  expect(kept).toHaveLength(MOST_SEGMENTS);
  const text = await read();
  expect(text).toMatch(/^part 0\n/u);
  expect(text).toContain(`[${3 * SEGMENT_BYTES} bytes of the log were not kept]`);
  expect(text.endsWith('the end\n')).toBe(true);
});

test('a piece that is longer than a file is cut at the right byte', async () => {
  const text = 'é'.repeat(SEGMENT_BYTES / 2 + 10);
  await writeLog(folder, 0, Buffer.from(text));
  expect(readdirSync(folder)).toHaveLength(2);
  expect(await read()).toBe(text);
});

test('the last line is the last that says something, without colours and not too long', () => {
  expect(lastLine('Traceback:\n  at x\n\u001B[31mValueError: no\u001B[0m\r\n\n  \n')).toBe(
    'ValueError: no',
  );
  expect(lastLine(`first\n${'x'.repeat(1000)}`)).toHaveLength(300);
  expect(lastLine('\n')).toBe('');
});
