import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { KeyStore } from '../../../src/server/keys.js';

let root: string;
let keys: KeyStore;
beforeEach(() => {
  root = mkdtempSync(path.join(tmpdir(), 'rankflow-keys-'));
  keys = new KeyStore(root);
  vi.useFakeTimers({ toFake: ['Date'] });
});
afterEach(() => {
  vi.useRealTimers();
  rmSync(root, { recursive: true });
});

/** A new key, younger than those before it. */
async function made(name: string, sameAs?: string) {
  vi.setSystemTime(Date.now() + 1);
  const key = await keys.create(name, sameAs);
  if (key === undefined) throw new Error('no key was made');
  return key;
}

test('a key proves whose it is; a changed one proves nothing', async () => {
  const { key, record } = await made('nightly');
  expect(await keys.verify(key)).toEqual({ keyId: record.id, namespace: record.id });
  const changed = Array.from(key, (_, at) => `${key.slice(0, at)}~${key.slice(at + 1)}`);
  for (const wrong of [...changed, `${key}x`, key.slice(1), '', 'rf-', `rf-${record.id}-`]) {
    expect(await keys.verify(wrong), wrong).toBeUndefined();
  }
  const other = await made('other');
  const mixed = `rf-${record.id}-${other.key.slice(-43)}`;
  expect(await keys.verify(mixed)).toBeUndefined();
});

test('what is on disk proves nothing, and only its owner may read it', async () => {
  const { key, record } = await made('nightly');
  const [file = ''] = readdirSync(path.join(root, 'keys'));
  const stored = path.join(root, 'keys', file);
  const text = readFileSync(stored, 'utf8');
  expect(text).not.toContain(key.slice(-43));
  expect(await keys.verify(`rf-${record.id}-${record.hash.slice(0, 43)}`)).toBeUndefined();
  expect(statSync(stored).mode & 0o077).toBe(0);
});

test('a revoked key is worth nothing, for every server on the store, and is still listed', async () => {
  const { key, record } = await made('nightly');
  const elsewhere = new KeyStore(root);
  expect(await elsewhere.verify(key)).toBeDefined();
  expect(await keys.revoke(record.id)).toBe(true);
  expect(await elsewhere.verify(key)).toBeUndefined();
  const [listed] = await keys.list();
  expect(listed).toMatchObject({ id: record.id, revokedAt: expect.any(String) });
  await keys.revoke(record.id);
  expect((await keys.list())[0]?.revokedAt).toBe(listed?.revokedAt);
  expect(await keys.revoke('0123456789abcdef')).toBe(false);
  expect(await keys.revoke('../keys')).toBe(false);
});

test('a key that replaces another sees what that one saw; every other key is alone', async () => {
  const first = await made('first');
  const successor = await made('successor', first.record.id);
  expect(successor.record.namespace).toBe(first.record.namespace);
  const [third, fourth] = [await made('same name'), await made('same name')];
  expect(third.record.namespace).not.toBe(fourth.record.namespace);
  expect(await keys.create('x', 'ffffffffffffffff')).toBeUndefined();
  expect((await keys.list()).map(({ name }) => name)).toEqual([
    'first',
    'successor',
    'same name',
    'same name',
  ]);
});
