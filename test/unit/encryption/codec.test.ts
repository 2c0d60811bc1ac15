import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { defaultPayloadConverter, type Payload } from '@temporalio/common';
import { afterAll, expect, onTestFinished, test, vi } from 'vitest';

import { describeFailure } from '../../../src/client/errors.js';
import { EncryptionCodec } from '../../../src/encryption/codec.js';
import { readKeys } from '../../../src/encryption/key-file.js';
import { KeyRing } from '../../../src/encryption/key-ring.js';
import { addKey } from '../../../src/encryption/make-key.js';
import { paths } from '../../../src/setup/paths.js';

const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-keys-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const OLD = `old ${'ab'.repeat(32)}`;
const NEW = `new ${Buffer.alloc(32, 7).toString('base64')}`;
const CANARY = { prompt: 'canary-ünïcode-5f3a', numbers: [1, 2.5, null] };

let files = 0;
function keyFile(...lines: readonly string[]): string {
  const file = path.join(folder, `keys-${(files += 1)}`);
  writeFileSync(file, `# keys\n\n${lines.join('\n')}\n`, { mode: 0o600 });
  return file;
}

const codecOf = (...lines: readonly string[]): EncryptionCodec =>
  new EncryptionCodec(new KeyRing(keyFile(...lines)));
const seal = async (codec: EncryptionCodec, value: unknown): Promise<Payload> =>
  (await codec.encode([defaultPayloadConverter.toPayload(value)]))[0] as Payload;
const unseal = async (codec: EncryptionCodec, payload: Payload): Promise<unknown> =>
  defaultPayloadConverter.fromPayload((await codec.decode([payload]))[0] as Payload);
const text = (value: Uint8Array | null | undefined): string => Buffer.from(value ?? []).toString();

/** Payloads as the two languages hand them over in this test: base64 of protocol buffers. */
const PYTHON = `
import asyncio, base64, json, sys
from pathlib import Path
from temporalio.api.common.v1 import Payload
from rankflow.encryption import EncryptionCodec, KeyRing
do, keys, payload = sys.argv[1], sys.argv[2], json.load(sys.stdin)
codec = EncryptionCodec(KeyRing(Path(keys)))
given = Payload(data=base64.b64decode(payload["data"]),
                metadata={k: base64.b64decode(v) for k, v in payload["metadata"].items()})
(done,) = asyncio.run(getattr(codec, do)([given]))
print(json.dumps({"data": base64.b64encode(done.data).decode(),
                  "metadata": {k: base64.b64encode(v).decode() for k, v in done.metadata.items()}}))
`;

function inPython(what: 'encode' | 'decode', keys: string, { data, metadata }: Payload): Payload {
  const base64 = (value: Uint8Array): string => Buffer.from(value).toString('base64');
  const input = {
    data: base64(data ?? Buffer.alloc(0)),
    metadata: Object.fromEntries(
      Object.entries(metadata ?? {}).map(([name, value]) => [name, base64(value)]),
    ),
  };
  const output = execFileSync(paths.python, ['-c', PYTHON, what, keys], {
    input: JSON.stringify(input),
    env: { ...process.env, PYTHONPATH: paths.pythonProject },
    encoding: 'utf8',
  });
  const answer = JSON.parse(output) as { data: string; metadata: Record<string, string> };
  return {
    data: Buffer.from(answer.data, 'base64'),
    metadata: Object.fromEntries(
      Object.entries(answer.metadata).map(([name, value]) => [name, Buffer.from(value, 'base64')]),
    ),
  };
}

test('what one language encrypts the other reads, with the same file of keys', async () => {
  const keys = keyFile(NEW, OLD);
  const codec = new EncryptionCodec(new KeyRing(keys));
  const sealed = await seal(codec, CANARY);
  const opened = inPython('decode', keys, sealed);
  expect(defaultPayloadConverter.fromPayload(opened)).toEqual(CANARY);
  expect(text(opened.metadata?.['encoding'])).toBe('json/plain');

  const fromPython = inPython('encode', keys, defaultPayloadConverter.toPayload(CANARY));
  expect(await unseal(codec, fromPython)).toEqual(CANARY);
  for (const payload of [sealed, fromPython]) {
    expect(Object.keys(payload.metadata ?? {}).toSorted()).toEqual([
      'encoding',
      'encryption-cipher',
      'encryption-key-id',
    ]);
    expect(text(payload.metadata?.['encoding'])).toBe('binary/encrypted');
    expect(text(payload.metadata?.['encryption-key-id'])).toBe('new');
    expect(JSON.stringify([text(payload.data)])).not.toContain('canary');
  }
});

test('the same value is never encrypted the same way twice', async () => {
  const codec = codecOf(NEW);
  const sealed = await Promise.all([seal(codec, CANARY), seal(codec, CANARY)]);
  expect(sealed[0].data).not.toEqual(sealed[1].data);
});

test('the first key encrypts, and each of a file decrypts', async () => {
  const sealed = await seal(codecOf(OLD), CANARY);
  const rotated = codecOf(NEW, OLD);
  expect(await unseal(rotated, sealed)).toEqual(CANARY);
  expect(text((await seal(rotated, 1)).metadata?.['encryption-key-id'])).toBe('new');
});

test('a key that is added to the file is known without a restart', async () => {
  const file = keyFile(OLD);
  const codec = new EncryptionCodec(new KeyRing(file));
  const sealed = await seal(codecOf(NEW), CANARY);
  await expect(unseal(codec, sealed)).rejects.toThrow('the key new, which is not in');
  writeFileSync(file, `${OLD}\n${NEW}\n`);
  expect(await unseal(codec, sealed)).toEqual(CANARY);
});

test('the first key of a file that changes encrypts after seconds; one that is broken for a moment changes nothing', async () => {
  const file = keyFile(OLD);
  const codec = new EncryptionCodec(new KeyRing(file));
  const idIn = async (ms: number): Promise<string> => {
    vi.setSystemTime(Date.now() + ms);
    return text((await seal(codec, 1)).metadata?.['encryption-key-id']);
  };
  vi.useFakeTimers({ toFake: ['Date'] });
  onTestFinished(() => void vi.useRealTimers());
  writeFileSync(file, 'half a li');
  expect(await idIn(6_000)).toBe('old');
  writeFileSync(file, `${NEW}\n${OLD}\n`);
  expect(await idIn(6_000)).toBe('new');
});

test('a changed byte anywhere is noticed', async () => {
  const codec = codecOf(NEW);
  const sealed = await seal(codec, 'x');
  const data = Buffer.from(sealed.data ?? []);
  for (let at = 0; at < data.length; at += 1) {
    const changed = Buffer.from(data);
    changed[at] = (changed[at] ?? 0) ^ 1;
    await expect(unseal(codec, { ...sealed, data: changed })).rejects.toThrow('tampered');
  }
  for (const length of [0, 11, 27]) {
    await expect(unseal(codec, { ...sealed, data: data.subarray(0, length) })).rejects.toThrow(
      'tampered',
    );
  }
});

test('who has no key, or another one of that id, is told so in one error', async () => {
  const sealed = await seal(codecOf(NEW), CANARY);
  const without = await unseal(new EncryptionCodec(), sealed).catch((error: unknown) => error);
  expect(describeFailure(without)).toMatchObject({
    type: 'KeyMismatch',
    message: expect.stringContaining('RANKFLOW_ENCRYPTION_KEY_FILE is not set'),
    wayOut: expect.stringContaining('the same keys'),
  });
  const other = codecOf(`new ${'cd'.repeat(32)}`);
  await expect(unseal(other, sealed)).rejects.toThrow('another key of that id');
});

test('what is not encrypted is read as it is', async () => {
  const plain = defaultPayloadConverter.toPayload(CANARY);
  expect(await unseal(codecOf(NEW), plain)).toEqual(CANARY);
  expect(await new EncryptionCodec().encode([plain])).toEqual([plain]);
});

const refusal = (file: string): { message: string; wayOut?: string } => {
  try {
    readKeys(file);
  } catch (error) {
    return describeFailure(error);
  }
  throw new Error('the file was taken');
};

test('a file that others may read is refused, as ssh does it', () => {
  const file = keyFile(NEW);
  for (const mode of [0o640, 0o604, 0o660]) {
    chmodSync(file, mode);
    const { message, wayOut } = refusal(file);
    expect(message).toContain(`its mode is 0${mode.toString(8)}`);
    expect(wayOut).toContain(`chmod 600 ${file}`);
  }
  chmodSync(file, 0o400);
  expect(readKeys(file)).toHaveLength(1);
});

test('a file that is missing, empty or wrong is named with its line, and nothing of it', () => {
  expect(refusal(path.join(folder, 'none')).message).toContain('is not there');
  expect(refusal(keyFile()).message).toContain('has no keys');
  const canary = 'c4a1'.repeat(15);
  for (const line of [
    `k ${canary}`,
    canary,
    `k! ${'ab'.repeat(32)}`,
    `k ${'ab'.repeat(32)} more`,
  ]) {
    const { message } = refusal(keyFile(OLD, line));
    expect(message).toContain('line 4');
    expect(message).not.toContain(canary);
  }
  expect(refusal(keyFile(OLD, OLD)).message).toContain('twice');
});

test('keys are made in a file of their own, or put behind the others until they are to be first', async () => {
  const file = path.join(folder, 'made');
  const first = await addKey(file, false);
  expect(first).toMatchObject({ first: true });
  expect(statSync(file).mode & 0o777).toBe(0o600);
  const second = await addKey(file, false);
  const third = await addKey(file, true);
  expect(readKeys(file).map(({ id }) => id)).toEqual([third.id, first.id, second.id]);
  expect(new Set(readKeys(file).map(({ key }) => key.toString('hex'))).size).toBe(3);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  // A file stays as its owner has made it, and his: root adds keys for the user of a service.
  const root = process.getuid?.() === 0;
  if (root) chownSync(file, 1234, 1234);
  chmodSync(file, 0o400);
  await addKey(file, false);
  const { mode, uid } = statSync(file);
  expect([mode & 0o777, uid]).toEqual([0o400, root ? 1234 : process.getuid?.()]);
  chmodSync(file, 0o600);
  writeFileSync(file, 'something else\n');
  await expect(addKey(file, false)).rejects.toThrow('line 1');
  expect(readFileSync(file, 'utf8')).toBe('something else\n');
});
