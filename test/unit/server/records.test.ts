import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';

import { derivedId, isId, newId, timeOfId } from '../../../src/server/ids.js';
import { RecordFolder } from '../../../src/server/records.js';

let folder: string;
let records: RecordFolder<{ n: number }>;
beforeEach(() => {
  folder = path.join(mkdtempSync(path.join(tmpdir(), 'rankflow-records-')), 'new');
  records = new RecordFolder(folder, z.object({ n: z.number() }));
});
afterEach(() => rmSync(path.dirname(folder), { recursive: true }));

test('of racing creators one wins, and everybody reads its record', async () => {
  const won = await Promise.all(Array.from({ length: 20 }, (_, n) => records.create('a', { n })));
  expect(won.filter(Boolean)).toHaveLength(1);
  expect(await records.read('a')).toEqual({ n: won.indexOf(true) });
  expect(readdirSync(folder)).toEqual(['a.json']);
});

test('what a killed writer left half-written is no record', async () => {
  mkdirSync(folder);
  writeFileSync(path.join(folder, '.0123456789abcdef.tmp'), '{"n"');
  expect(await records.names()).toEqual([]);
  await records.create('b', { n: 1 });
  await records.create('a', { n: 2 });
  expect(await records.names()).toEqual(['a', 'b']);
});

test('a record is replaced whole, removed once, and missing after that', async () => {
  expect(await records.read('a')).toBeUndefined();
  expect(await records.names()).toEqual([]);
  await records.create('a', { n: 1 });
  await records.replace('a', { n: 2 });
  expect(await records.read('a')).toEqual({ n: 2 });
  expect([await records.remove('a'), await records.remove('a')]).toEqual([true, false]);
  expect(existsSync(path.join(folder, 'a.json'))).toBe(false);
});

test('a record of another shape is an error, not a guess', async () => {
  mkdirSync(folder);
  writeFileSync(path.join(folder, 'a.json'), '{"n": "one"}');
  await expect(records.read('a')).rejects.toThrow(/expected number/u);
});

test('what could not be read again is not written', async () => {
  const wrong = { n: undefined } as unknown as { n: number };
  await expect(records.create('a', wrong)).rejects.toThrow(/expected number/u);
  expect(await records.names()).toEqual([]);
  await records.create('a', { n: 1 });
  await expect(records.replace('a', wrong)).rejects.toThrow(/expected number/u);
  expect(await records.read('a')).toEqual({ n: 1 });
});

test('ids sort by time, also within a millisecond, and only ids become paths', () => {
  const ids = Array.from({ length: 100 }, () => newId('batch', 1_800_000_000_000));
  expect(ids.toSorted()).toEqual(ids);
  expect(new Set(ids).size).toBe(100);
  expect(timeOfId(ids[0] ?? '')).toBe(1_800_000_000_000);
  expect(isId('batch', ids[0] ?? '')).toBe(true);
  for (const text of [ids[0]?.replace('batch_', 'file-') ?? '', `${ids[0]}/..`, '../keys', '']) {
    expect(isId('batch', text), text).toBe(false);
  }
});

test('an id that is derived is the same for everybody, and another for another part', () => {
  const at = 1_800_000_000_000.7;
  expect(derivedId('file', at, 'x', 'output')).toBe(derivedId('file', at, 'x', 'output'));
  expect(derivedId('file', at, 'x', 'output')).not.toBe(derivedId('file', at, 'x', 'errors'));
  expect(derivedId('file', at, 'ab', 'c')).not.toBe(derivedId('file', at, 'a', 'bc'));
  expect(timeOfId(derivedId('file', at, 'x'))).toBe(1_800_000_000_000);
});
