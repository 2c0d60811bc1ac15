import { createHash } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

import { afterEach, beforeEach, expect, test } from 'vitest';

import {
  checkStoreSpace,
  formatBytes,
  inspectInput,
  neededStoreBytes,
  sha256File,
} from '../../../src/client/input.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'rankflow-input-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const file = (name: string, text: string): string => {
  const target = path.join(folder, name);
  writeFileSync(target, text);
  return target;
};

test('a file is found by path and by file:// address', async () => {
  const input = file('ä b.jsonl', '{}\n');
  const expected = { kind: 'local', uri: input, bytes: 3 };
  expect(await inspectInput(input)).toEqual(expected);
  expect(await inspectInput(path.relative(process.cwd(), input))).toEqual(expected);
  expect(await inspectInput(pathToFileURL(input).href)).toEqual(expected);
});

test('a missing, empty or unfit input is refused before anything starts', async () => {
  await expect(inspectInput(path.join(folder, 'none'))).rejects.toThrow(/none does not exist/u);
  await expect(inspectInput(file('empty', ''))).rejects.toThrow(/is empty/u);
  await expect(inspectInput(folder)).rejects.toThrow(/is not a file/u);
  await expect(inspectInput('https://host/file')).rejects.toMatchObject({
    type: 'UnsupportedInput',
  });
});

test.skipIf(process.getuid?.() === 0)('a file that may not be read is refused', async () => {
  const secret = file('secret', 'x');
  chmodSync(secret, 0o000);
  await expect(inspectInput(secret)).rejects.toThrow(/may not be read/u);
});

test('an input in a bucket is left to the planner', async () => {
  expect(await inspectInput('s3://bucket/in.jsonl')).toEqual({
    kind: 'remote',
    uri: 's3://bucket/in.jsonl',
  });
});

test('a file larger than a read buffer has the hash of its whole content', async () => {
  const text = 'x'.repeat(3_000_000);
  const expected = createHash('sha256').update(text).digest('hex');
  expect(await sha256File(file('large', text))).toBe(expected);
});

test('a store without room is refused with the numbers, one with room is not', async () => {
  const needed = neededStoreBytes(1024);
  await expect(checkStoreSpace(folder, 1024, async () => needed)).resolves.toBeUndefined();
  await expect(checkStoreSpace(folder, 1024, async () => 1024)).rejects.toThrow(
    /has 1\.0 KiB free; this run needs about 256\.0 MiB/u,
  );
  await expect(checkStoreSpace('s3://b', 1024, async () => 0)).resolves.toBeUndefined();
});

test.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1536, '1.5 KiB'],
  [5 * 1024 ** 3, '5.0 GiB'],
])('%d bytes are %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});
